//! Certificates as IAM Roles Anywhere reads them: what identifies a leaf, what a session made with it is
//! tagged with, and what the service would have against it ("Trust model", IAM Roles Anywhere user guide); and
//! requests for them.

mod ca;
mod certification_request;
mod chain;
mod extensions;
mod file;
mod link;
mod name;
mod name_constraints;
mod path;
mod public_key;
mod restrictions;
mod rules;
mod scheme;
mod serial;
mod session_facts;
mod signature;
mod violation;

#[cfg(test)]
mod testing;

use der::{Decode, Encode};
use jiff::Timestamp;
use thiserror::Error;

pub use ca::anchor_objections;
pub use certification_request::{CertificationRequest, Proof};
pub use chain::{CHAIN_LIMIT, Chain, issuers};
pub use extensions::AlternativeName;
pub use file::{FILE_LIMIT, holds_clear_key, parse, parse_pem, read};
pub use name::Attribute;
pub use public_key::{KeyKind, PublicKey};
pub use rules::check_validity;
pub use serial::Serial;
pub use session_facts::{SessionFacts, Tag, is_tag_value};
pub use violation::{CertificateRef, Severity, Violation};

/// A certificate, and its bytes: encoding what was parsed could change them, and so the certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    der: Vec<u8>,
    parsed: x509_cert::Certificate,
}

/// Why bytes are no certificate, or no request for one, that can be used. The caller adds which certificate it was.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{fault}{colon}{remedy}", colon = if remedy.is_empty() { "" } else { ": " })]
pub struct CertificateError {
    fault: String,
    /// Empty where there is none to name.
    remedy: &'static str,
}

/// The largest certificate, in bytes of DER: AWS's guidance. Most have 2 KiB, those with a hundred names 6 KiB.
const DER_LIMIT: usize = 16 * 1024;

impl Certificate {
    /// Reads it. What AWS thinks of it is another question: see [`Chain`].
    pub fn from_der(der: Vec<u8>) -> Result<Certificate, CertificateError> {
        if der.len() > DER_LIMIT {
            let size = der.len();
            return Err(CertificateError::with_remedy(
                format!(
                    "the certificate has {size} bytes, more than the {DER_LIMIT} (16 KiB) that AWS recommends"
                ),
                "have one issued with fewer names or extensions",
            ));
        }
        let parsed = x509_cert::Certificate::from_der(&der)
            .map_err(|fault| CertificateError::new(format!("not an X.509 certificate: {fault}")))?;
        Ok(Certificate { der, parsed })
    }

    /// Its bytes.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The serial number.
    pub fn serial(&self) -> Serial<'_> {
        Serial(self.tbs().serial_number().as_bytes())
    }

    /// The subject, RFC 4514.
    pub fn subject(&self) -> String {
        self.tbs().subject().to_string()
    }

    /// The issuer, RFC 4514.
    pub fn issuer(&self) -> String {
        self.tbs().issuer().to_string()
    }

    /// The subject's attributes, in the certificate's order.
    pub fn subject_attributes(&self) -> Vec<Attribute> {
        name::attributes(self.tbs().subject())
    }

    /// The issuer's attributes, in the certificate's order.
    pub fn issuer_attributes(&self) -> Vec<Attribute> {
        name::attributes(self.tbs().issuer())
    }

    /// The subject's first common name.
    pub fn common_name(&self) -> Option<String> {
        let mut attributes = self.subject_attributes().into_iter();
        attributes.find_map(|attribute| (attribute.name == "CN").then_some(attribute.value?))
    }

    /// The subject alternative names; none where there is no such extension, or it cannot be read.
    pub fn alternative_names(&self) -> Vec<AlternativeName> {
        extensions::alternative_names(self)
    }

    /// Valid from.
    pub fn not_before(&self) -> Timestamp {
        timestamp(self.tbs().validity().not_before)
    }

    /// Valid until.
    pub fn not_after(&self) -> Timestamp {
        timestamp(self.tbs().validity().not_after)
    }

    /// Its public key, as DER SubjectPublicKeyInfo.
    pub fn spki(&self) -> Result<Vec<u8>, CertificateError> {
        let spki = self.tbs().subject_public_key_info();
        spki.to_der()
            .map_err(|fault| CertificateError::new(format!("its public key: {fault}")))
    }

    /// Its public key, if it is of a kind that AWS takes for a leaf.
    pub fn public_key(&self) -> Result<PublicKey, CertificateError> {
        PublicKey::of_leaf(self)
    }

    /// The kind of its key in the words of AWS's own helper: `RSA`, `EC`, such as `ML-DSA-44`, or
    /// nothing for another.
    pub fn key_type(&self) -> &'static str {
        public_key::key_type(self)
    }

    /// How its issuer signed it, such as `sha256WithRSAEncryption`.
    pub fn signature_algorithm(&self) -> String {
        signature::name(self)
    }

    /// Returns the hash of its issuer's signature, such as SHA-1, where that is too weak to prove anything.
    pub fn weak_hash(&self) -> Option<&'static str> {
        signature::scheme(self.parsed.signature_algorithm()).err()
    }

    /// Whether subject and issuer are the same, as a root's are.
    pub fn is_self_issued(&self) -> bool {
        self.tbs().subject() == self.tbs().issuer()
    }

    /// Whether it says of itself that it is a CA's.
    pub fn is_ca(&self) -> bool {
        extensions::basic_constraints(self)
            .is_ok_and(|constraints| constraints.is_some_and(|(ca, _)| ca))
    }

    /// Whether the key of `issuer` signed it; `None` where that cannot be told here, for its key or its scheme.
    pub fn is_signed_by(&self, issuer: &Certificate) -> Option<bool> {
        signature::is_signed_by(self, issuer)
    }

    fn tbs(&self) -> &x509_cert::TbsCertificate {
        self.parsed.tbs_certificate()
    }
}

impl CertificateError {
    /// Without a remedy of its own.
    pub fn new(fault: impl Into<String>) -> CertificateError {
        CertificateError::with_remedy(fault, "")
    }

    /// With what to do about it.
    pub fn with_remedy(fault: impl Into<String>, remedy: &'static str) -> CertificateError {
        CertificateError {
            fault: fault.into(),
            remedy,
        }
    }
}

fn timestamp(time: x509_cert::time::Time) -> Timestamp {
    let seconds = i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX);
    Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::testing::{Issued, NOON, ec_p256};
    use super::*;

    /// AWS recommends at most 16 KiB.
    #[test]
    fn certificates_have_up_to_16_kib() {
        let key = ec_p256();
        let of_size = |length| {
            let oid = openssl::asn1::Asn1Object::from_str("1.2.3.4.5").unwrap();
            let content = openssl::asn1::Asn1OctetString::new_from_bytes(&vec![5; length]).unwrap();
            let padding =
                openssl::x509::X509Extension::new_from_der(&oid, false, &content).unwrap();
            Certificate::from_der(Issued::leaf(&key).with(vec![padding]).der())
        };
        assert!(of_size(6 * 1024).is_ok());
        assert!(of_size(15 * 1024).is_ok());
        assert!(of_size(16 * 1024).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        /// Whatever is in a certificate, all can be said of it that there is to say.
        #[test]
        fn nothing_in_a_certificate_panics(changes in prop::collection::vec((any::<u16>(), any::<u8>()), 1..4)) {
            static GOOD: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| Issued::leaf(&ec_p256()).der());
            let mut der = GOOD.clone();
            for (at, byte) in changes {
                let at = usize::from(at) % der.len();
                der[at] = byte;
            }
            let _ = parse(&der);
            let Ok(spoiled) = Certificate::from_der(der) else {
                return Ok(());
            };
            let good = Certificate::from_der(GOOD.clone()).unwrap();
            let facts = SessionFacts::of(&spoiled);
            prop_assert!(facts.tags.iter().all(|tag| is_tag_value(&tag.value)));
            for ders in [[&spoiled, &good], [&good, &spoiled]] {
                let chain = Chain::new(ders.map(Clone::clone).to_vec()).unwrap();
                let _ = chain.check();
                let now = NOON.parse().unwrap();
                for anchors in [None, Some(&[spoiled.clone()][..])] {
                    for objection in chain.objections(anchors, now) {
                        prop_assert!(objection.to_string().contains(": "));
                    }
                }
            }
        }
    }
}
