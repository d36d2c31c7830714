//! The rules for one certificate: structure read by x509-parser, cryptography done by OpenSSL.
//!
//! From "Trust model" and "Signing process" in the IAM Roles Anywhere user guide.

use jiff::Timestamp;
use openssl::asn1::Asn1IntegerRef;
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, Public};
use openssl::x509::X509;
use x509_parser::asn1_rs::Any;
use x509_parser::prelude::{FromDer, X509Certificate, X509Version};

use super::attributes::Attributes;

/// Signature algorithms with SHA-256 or stronger; RSA-PSS, whose hash hides in its parameters, is left out.
const STRONG_SIGNATURES: [(&str, &str); 6] = [
    ("1.2.840.113549.1.1.11", "sha256WithRSAEncryption"),
    ("1.2.840.113549.1.1.12", "sha384WithRSAEncryption"),
    ("1.2.840.113549.1.1.13", "sha512WithRSAEncryption"),
    ("1.2.840.10045.4.3.2", "ecdsa-with-SHA256"),
    ("1.2.840.10045.4.3.3", "ecdsa-with-SHA384"),
    ("1.2.840.10045.4.3.4", "ecdsa-with-SHA512"),
];

/// The extensions that may be critical: those that RFC 5280 (4.2.1) lets a CA mark so and wants a reader to act on.
const UNDERSTOOD: [(&str, &str); 10] = [
    ("2.5.29.15", "keyUsage"),
    ("2.5.29.17", "subjectAltName"),
    ("2.5.29.19", "basicConstraints"),
    ("2.5.29.30", "nameConstraints"),
    ("2.5.29.31", "cRLDistributionPoints"),
    ("2.5.29.32", "certificatePolicies"),
    ("2.5.29.33", "policyMappings"),
    ("2.5.29.36", "policyConstraints"),
    ("2.5.29.37", "extKeyUsage"),
    ("2.5.29.54", "inhibitAnyPolicy"),
];

/// The longest certificate, in bytes: AWS's guidance.
const LENGTH: usize = 16 * 1024;

/// A certificate that arrived, read whole; no rule has been applied yet.
#[derive(Clone, Debug)]
pub(crate) struct Certificate {
    x509: X509,
    facts: Facts,
}

/// The key types that a leaf may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyType {
    Rsa,
    Ec,
}

#[derive(Clone, Debug)]
struct Facts {
    version: X509Version,
    serial: Vec<u8>,
    serial_decimal: String,
    subject: Vec<u8>,
    issuer: Vec<u8>,
    subject_text: String,
    attributes: Attributes,
    not_before: i64,
    not_after: i64,
    signature_oid: String,
    has_subject: bool,
    /// The first critical extension that is not understood.
    unknown_critical: Option<String>,
    basic_constraints: Option<(bool, Option<u32>)>,
    digital_signature: bool,
    key_cert_sign: bool,
    /// `None` where there is no extendedKeyUsage.
    client_auth: Option<bool>,
    /// Whether extendedKeyUsage, where there is one, allows a CA to issue for clients.
    issues_for_clients: bool,
}

impl Certificate {
    /// Reads exactly one DER certificate.
    pub(crate) fn from_der(der: &[u8]) -> Result<Certificate, String> {
        if der.len() > LENGTH {
            return Err(format!(
                "{} bytes; a certificate has at most {LENGTH}",
                der.len()
            ));
        }
        let (rest, parsed) = X509Certificate::from_der(der)
            .map_err(|error| format!("no DER certificate: {error}"))?;
        if !rest.is_empty() {
            return Err(format!("{} bytes follow the certificate", rest.len()));
        }
        let x509 = X509::from_der(der).map_err(|error| format!("no DER certificate: {error}"))?;
        let facts = Facts::read(&parsed)?;
        Ok(Certificate { x509, facts })
    }

    /// Reads a bundle of PEM certificates.
    pub(crate) fn bundle_from_pem(pem: &str) -> Result<Vec<Certificate>, String> {
        let stack = X509::stack_from_pem(pem.as_bytes())
            .map_err(|error| format!("no PEM bundle: {error}"))?;
        stack
            .iter()
            .map(|x509| Certificate::from_der(&x509.to_der().map_err(|error| error.to_string())?))
            .collect()
    }

    /// Applies the rules for an end entity; returns the key's type, which decides the algorithm.
    pub(crate) fn check_leaf(&self, now: Timestamp) -> Result<KeyType, String> {
        let facts = &self.facts;
        if facts.version != X509Version::V3 {
            return Err("the leaf is not X.509 version 3".to_owned());
        }
        if let Some((true, _)) = facts.basic_constraints {
            return Err("the leaf is a CA certificate (basicConstraints CA:TRUE)".to_owned());
        }
        if !facts.digital_signature {
            return Err("the leaf's keyUsage lacks digitalSignature".to_owned());
        }
        if facts.client_auth == Some(false) {
            return Err("the leaf's extendedKeyUsage lacks clientAuth".to_owned());
        }
        if !facts.has_subject {
            return Err("the leaf's subject is empty".to_owned());
        }
        self.check_critical("leaf")?;
        self.check_signature_algorithm("leaf")?;
        self.check_validity("leaf", now)?;
        self.key_type()
    }

    /// Applies the rules for a CA with `below` intermediates between it and the leaf.
    pub(crate) fn check_ca(&self, below: usize, now: Timestamp) -> Result<(), String> {
        let name = format!("CA {}", self.facts.subject_text);
        self.check_is_ca()?;
        let limit = self.facts.basic_constraints.and_then(|(_, limit)| limit);
        if limit.is_some_and(|limit| below > usize::try_from(limit).unwrap_or(usize::MAX)) {
            return Err(format!(
                "{name} allows fewer intermediates below it (pathLenConstraint)"
            ));
        }
        if !self.facts.issues_for_clients {
            return Err(format!("{name}'s extendedKeyUsage lacks clientAuth"));
        }
        self.check_critical(&name)?;
        self.check_signature_algorithm(&name)?;
        self.check_validity(&name, now)
    }

    /// Applies the rules for an intermediate, whether the path needs it or not.
    pub(crate) fn check_intermediate(&self) -> Result<(), String> {
        self.check_is_ca()?;
        self.check_signature_algorithm(&format!("CA {}", self.facts.subject_text))
    }

    /// Applies the rules for every CA, whenever and wherever.
    pub(crate) fn check_is_ca(&self) -> Result<(), String> {
        let name = format!("CA {}", self.facts.subject_text);
        if !matches!(self.facts.basic_constraints, Some((true, _))) {
            return Err(format!("{name} is no CA (basicConstraints CA:TRUE)"));
        }
        if !self.facts.key_cert_sign {
            return Err(format!("{name}'s keyUsage lacks keyCertSign"));
        }
        if !self.facts.has_subject {
            return Err("a CA's subject is empty".to_owned());
        }
        Ok(())
    }

    /// Whether `issuer` bears the name that this certificate says, and its key made the signature.
    pub(crate) fn is_issued_by(&self, issuer: &Certificate) -> bool {
        self.facts.issuer == issuer.facts.subject
            && issuer
                .public_key()
                .is_ok_and(|key| self.x509.verify(&key).unwrap_or(false))
    }

    /// The certificate as OpenSSL reads it.
    pub(crate) fn x509(&self) -> &X509 {
        &self.x509
    }

    /// The names of the certificate's issuer, for messages.
    pub(crate) fn subject(&self) -> &str {
        &self.facts.subject_text
    }

    /// The subject's name as it is encoded.
    pub(crate) fn subject_der(&self) -> &[u8] {
        &self.facts.subject
    }

    /// What can become session tags.
    pub(crate) fn attributes(&self) -> &Attributes {
        &self.facts.attributes
    }

    pub(crate) fn serial_number(&self) -> &Asn1IntegerRef {
        self.x509.serial_number()
    }

    pub(crate) fn serial_decimal(&self) -> &str {
        &self.facts.serial_decimal
    }

    /// The default session name.
    pub(crate) fn serial_hex(&self) -> String {
        hex::encode(&self.facts.serial)
    }

    pub(crate) fn public_key(&self) -> Result<PKey<Public>, String> {
        self.x509
            .public_key()
            .map_err(|error| format!("cannot read the certificate's key: {error}"))
    }

    fn key_type(&self) -> Result<KeyType, String> {
        let key = self.public_key()?;
        match key.id() {
            Id::RSA if (2048..=4096).contains(&key.bits()) && key.bits() % 8 == 0 => {
                Ok(KeyType::Rsa)
            }
            Id::RSA => Err(format!(
                "the leaf's RSA key has {} bits; 2048 to 4096 in steps of 8 are allowed",
                key.bits()
            )),
            Id::EC => {
                let curve = key.ec_key().ok().and_then(|key| key.group().curve_name());
                match curve {
                    Some(Nid::X9_62_PRIME256V1 | Nid::SECP384R1 | Nid::SECP521R1) => {
                        Ok(KeyType::Ec)
                    }
                    _ => Err("the leaf's EC key is not on P-256, P-384 or P-521".to_owned()),
                }
            }
            _ => Err("the leaf's key is neither RSA nor EC".to_owned()),
        }
    }

    fn check_critical(&self, name: &str) -> Result<(), String> {
        match &self.facts.unknown_critical {
            Some(oid) => Err(format!(
                "the {name}'s extension {oid} is critical and unknown"
            )),
            None => Ok(()),
        }
    }

    fn check_signature_algorithm(&self, name: &str) -> Result<(), String> {
        if STRONG_SIGNATURES
            .iter()
            .any(|(oid, _)| *oid == self.facts.signature_oid)
        {
            return Ok(());
        }
        let allowed = STRONG_SIGNATURES.map(|(_, name)| name).join(", ");
        Err(format!(
            "the {name}'s signature algorithm is {}, not one of {allowed}",
            self.facts.signature_oid
        ))
    }

    fn check_validity(&self, name: &str, now: Timestamp) -> Result<(), String> {
        if now.as_second() < self.facts.not_before {
            return Err(format!("the {name} is not valid yet"));
        }
        if now.as_second() > self.facts.not_after {
            return Err(format!("the {name} has expired"));
        }
        Ok(())
    }
}

impl Facts {
    fn read(parsed: &X509Certificate<'_>) -> Result<Facts, String> {
        let unreadable = |error| format!("cannot read the certificate's extensions: {error}");
        check_whole(parsed)?;
        let basic_constraints = parsed.basic_constraints().map_err(unreadable)?;
        let key_usage = parsed.key_usage().map_err(unreadable)?;
        let extended_key_usage = parsed.extended_key_usage().map_err(unreadable)?;
        Ok(Facts {
            version: parsed.version(),
            serial: parsed.serial.to_bytes_be(),
            serial_decimal: parsed.serial.to_string(),
            subject: parsed.subject().as_raw().to_vec(),
            issuer: parsed.issuer().as_raw().to_vec(),
            subject_text: parsed.subject().to_string(),
            attributes: Attributes::read(parsed)?,
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
            has_subject: parsed.subject().iter().next().is_some(),
            unknown_critical: unknown_critical(parsed),
            signature_oid: parsed.signature_algorithm.algorithm.to_id_string(),
            basic_constraints: basic_constraints
                .map(|found| (found.value.ca, found.value.path_len_constraint)),
            digital_signature: key_usage
                .as_ref()
                .is_some_and(|found| found.value.digital_signature()),
            key_cert_sign: key_usage
                .as_ref()
                .is_some_and(|found| found.value.key_cert_sign()),
            issues_for_clients: extended_key_usage
                .as_ref()
                .is_none_or(|found| found.value.client_auth || found.value.any),
            client_auth: extended_key_usage.map(|found| found.value.client_auth),
        })
    }
}

/// Refuses bytes behind the value of an extension that is read here; the parser ignores them.
fn check_whole(parsed: &X509Certificate<'_>) -> Result<(), String> {
    for extension in parsed.extensions() {
        let oid = extension.oid.to_id_string();
        let read = UNDERSTOOD.iter().any(|(known, _)| *known == oid);
        if read && !Any::from_der(extension.value).is_ok_and(|(rest, _)| rest.is_empty()) {
            return Err(format!(
                "the certificate's extension {oid} is not one DER value"
            ));
        }
    }
    Ok(())
}

fn unknown_critical(parsed: &X509Certificate<'_>) -> Option<String> {
    let critical = parsed.extensions().iter().filter(|one| one.critical);
    let mut oids = critical.map(|one| one.oid.to_id_string());
    oids.find(|oid| !UNDERSTOOD.iter().any(|(known, _)| known == oid))
}

#[cfg(test)]
mod tests;
