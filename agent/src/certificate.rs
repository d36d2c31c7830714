//! Leaf and intermediates as AWS wants them ("Signature validation" and "Trust model", IAM Roles
//! Anywhere user guide), and the check of every signature against the leaf.

mod public_key;
mod source;

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use der::asn1::ObjectIdentifier;
use der::{Decode, Encode};
use jiff::Timestamp;
use thiserror::Error;
use token::{Algorithm, Signature};
use x509_cert::certificate::Version;
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage};
use x509_cert::name::Name;

pub(crate) use public_key::PublicKey;
pub use source::{CertificateSource, LeafSource, Stamp};

/// A leaf that AWS can accept, with its intermediates.
#[derive(Debug)]
pub struct Certificate {
    /// `X-Amz-X509`: base64 of the leaf's DER.
    pub x509: String,
    /// `X-Amz-X509-Chain`: base64 of each intermediate's DER, with commas; `None` without any.
    pub x509_chain: Option<String>,
    /// The leaf's serial number, decimal.
    pub serial: String,
    /// The leaf's subject, RFC 4514.
    pub subject: String,
    /// The leaf's issuer, RFC 4514.
    pub issuer: String,
    /// Valid from.
    pub not_before: Timestamp,
    /// Valid until.
    pub not_after: Timestamp,
    /// Its public key, as DER SubjectPublicKeyInfo.
    pub spki: Vec<u8>,
    /// Whether the certificate of its issuer is among the intermediates, by its name.
    pub has_issuer: bool,
    key: PublicKey,
}

/// Why a certificate cannot be used. The text names the fault and the remedy; the caller adds which
/// certificate it was.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct CertificateError(String);

/// AWS accepts this many intermediates.
const CHAIN_LIMIT: usize = 5;

/// The largest PEM file that is read, in bytes: leaf and chain take about 12 KiB.
const PEM_LIMIT: u64 = 256 * 1024;

/// A leaf with an RSA-4096 key has about 2 KiB of DER. With five intermediates as large as this, their
/// base64 takes 48 KiB, and the answer fits into its message.
const DER_LIMIT: usize = 6 * 1024;

impl Certificate {
    /// From DER, the leaf first. Its validity is another question: see
    /// [`check_validity`](Self::check_validity).
    pub fn new(ders: Vec<Vec<u8>>) -> Result<Certificate, CertificateError> {
        let mut ders = ders.into_iter();
        let leaf_der = ders
            .next()
            .ok_or_else(|| error("there is no certificate in it"))?;
        let leaf = parse(&leaf_der)?;
        check_leaf(&leaf)?;
        let tbs = leaf.tbs_certificate();
        let chain = chain(&leaf_der, ders)?;
        let has_issuer = chain.subjects.contains(tbs.issuer());
        Ok(Certificate {
            x509: BASE64.encode(&leaf_der),
            x509_chain: chain.x509_chain,
            has_issuer,
            serial: decimal(tbs.serial_number().as_bytes()),
            subject: tbs.subject().to_string(),
            issuer: tbs.issuer().to_string(),
            not_before: timestamp(tbs.validity().not_before),
            not_after: timestamp(tbs.validity().not_after),
            spki: spki(&leaf)?,
            key: PublicKey::new(tbs.subject_public_key_info())?,
        })
    }

    /// Whether it is valid at `now`.
    pub fn check_validity(&self, now: Timestamp) -> Result<(), CertificateError> {
        if now > self.not_after {
            let until = self.not_after;
            return Err(error(format!("it expired on {until}: install a new one")));
        }
        if now < self.not_before {
            let from = self.not_before;
            return Err(error(format!(
                "it is not valid before {from}, and here it is {now:.0}: wait, or set the clock"
            )));
        }
        Ok(())
    }

    /// Whether the intermediates, if there are any, are those of this leaf.
    pub fn check_chain(&self) -> Result<(), CertificateError> {
        if self.x509_chain.is_some() && !self.has_issuer {
            return Err(error(format!(
                "none of its intermediates is its issuer ({})",
                self.issuer
            )));
        }
        Ok(())
    }

    /// How its key signs.
    pub fn algorithm(&self) -> Algorithm {
        self.key.algorithm()
    }

    /// Its key's kind, such as `RSA-2048` or `EC-P-256`.
    pub fn key_algorithm(&self) -> String {
        self.key.to_string()
    }

    /// Whether it is the same leaf with the same intermediates.
    pub fn is_same(&self, other: &Certificate) -> bool {
        self.x509 == other.x509 && self.x509_chain == other.x509_chain
    }

    /// Whether `signature` is this key's over `text`.
    #[must_use]
    pub fn verifies(&self, text: &str, signature: &Signature) -> bool {
        self.key.verifies(text.as_bytes(), &signature.0)
    }
}

/// The certificates of a PEM file, as DER.
pub fn read_pem(path: &Path) -> Result<Vec<Vec<u8>>, CertificateError> {
    let text = read_text(path).map_err(|fault| error(format!("cannot read it: {fault}")))?;
    parse_pem(&text)
}

/// The certificates of a PEM text, as DER. Text around them is left out, as OpenSSL writes it.
pub fn parse_pem(text: &str) -> Result<Vec<Vec<u8>>, CertificateError> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let mut rest = text;
    let mut ders = Vec::new();
    while let Some((_, after)) = rest.split_once(BEGIN) {
        let (body, after) = after
            .split_once(END)
            .ok_or_else(|| error(format!("certificate {} is cut off", ders.len() + 1)))?;
        // The bytes as they are: encoding what was parsed could change them, and so the certificate.
        let (_, der) = der::pem::decode_vec(format!("{BEGIN}{body}{END}\n").as_bytes())
            .map_err(|fault| error(format!("certificate {}: {fault}", ders.len() + 1)))?;
        ders.push(der);
        rest = after;
    }
    if ders.is_empty() {
        return Err(error(format!("there is no \"{BEGIN}\" in it")));
    }
    Ok(ders)
}

fn read_text(path: &Path) -> Result<String, String> {
    let metadata = std::fs::metadata(path).map_err(|fault| fault.to_string())?;
    if !metadata.is_file() || metadata.len() > PEM_LIMIT {
        return Err(format!("not a file of at most {PEM_LIMIT} bytes"));
    }
    std::fs::read_to_string(path).map_err(|fault| fault.to_string())
}

fn parse(der: &[u8]) -> Result<x509_cert::Certificate, CertificateError> {
    if der.len() > DER_LIMIT {
        return Err(error(format!(
            "a certificate has more than {DER_LIMIT} bytes"
        )));
    }
    x509_cert::Certificate::from_der(der)
        .map_err(|fault| error(format!("not an X.509 certificate: {fault}")))
}

/// What AWS demands of an end-entity certificate.
fn check_leaf(leaf: &x509_cert::Certificate) -> Result<(), CertificateError> {
    let tbs = leaf.tbs_certificate();
    if tbs.version() != Version::V3 {
        return Err(error(
            "it is not an X.509 v3 certificate: AWS takes no other",
        ));
    }
    match extension::<BasicConstraints>(leaf)? {
        Some(BasicConstraints { ca: true, .. }) => {
            return Err(error(
                "it is a CA certificate: the first certificate must be the key's own",
            ));
        }
        Some(_) => {}
        None => return Err(error("it lacks basicConstraints: AWS wants CA:FALSE in it")),
    }
    if !extension::<KeyUsage>(leaf)?.is_some_and(|usage| usage.digital_signature()) {
        return Err(error(
            "its keyUsage lacks digitalSignature, which AWS wants",
        ));
    }
    const CLIENT_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2");
    if extension::<ExtendedKeyUsage>(leaf)?.is_some_and(|usage| !usage.0.contains(&CLIENT_AUTH)) {
        return Err(error(
            "its extendedKeyUsage lacks clientAuth, which AWS wants",
        ));
    }
    let oid = leaf.signature_algorithm().oid;
    if WEAK.contains(&oid) {
        return Err(error(
            "it is signed with MD5 or SHA-1: AWS wants SHA-256 or stronger",
        ));
    }
    Ok(())
}

/// Signatures over MD2, MD5 and SHA-1.
const WEAK: [ObjectIdentifier; 4] = [
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.2"),
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.4"),
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.5"),
    ObjectIdentifier::new_unwrap("1.2.840.10045.4.1"),
];

fn extension<'a, T: Decode<'a, Error = der::Error> + der::oid::AssociatedOid>(
    certificate: &'a x509_cert::Certificate,
) -> Result<Option<T>, CertificateError> {
    match certificate.tbs_certificate().get_extension::<T>() {
        Ok(found) => Ok(found.map(|(_critical, extension)| extension)),
        Err(fault) => Err(error(format!("an extension cannot be read: {fault}"))),
    }
}

/// Intermediates.
struct Chain {
    x509_chain: Option<String>,
    subjects: Vec<Name>,
}

/// `X-Amz-X509-Chain`. The leaf once more and self-signed roots are left out: bundles often have them.
fn chain(leaf: &[u8], ders: impl Iterator<Item = Vec<u8>>) -> Result<Chain, CertificateError> {
    let (mut chain, mut subjects) = (Vec::new(), Vec::new());
    for (at, der) in ders.enumerate() {
        let parsed = parse(&der)?;
        let tbs = parsed.tbs_certificate();
        if der == leaf || tbs.subject() == tbs.issuer() {
            continue;
        }
        if !extension::<BasicConstraints>(&parsed)?.is_some_and(|constraints| constraints.ca) {
            let (number, subject) = (at + 1, tbs.subject());
            return Err(error(format!(
                "intermediate {number} ({subject}) is not a CA certificate: remove it"
            )));
        }
        subjects.push(tbs.subject().clone());
        chain.push(BASE64.encode(der));
    }
    if chain.len() > CHAIN_LIMIT {
        return Err(error(format!(
            "there are {} intermediates, and AWS takes at most {CHAIN_LIMIT}",
            chain.len()
        )));
    }
    Ok(Chain {
        x509_chain: (!chain.is_empty()).then(|| chain.join(",")),
        subjects,
    })
}

fn timestamp(time: x509_cert::time::Time) -> Timestamp {
    let seconds = i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX);
    Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX)
}

/// A big-endian number in decimal.
fn decimal(bytes: &[u8]) -> String {
    let mut digits = vec![0u8]; // least significant first
    for byte in bytes {
        let mut carry = u32::from(*byte);
        for digit in &mut digits {
            carry += u32::from(*digit) << 8;
            *digit = (carry % 10) as u8;
            carry /= 10;
        }
        while carry > 0 {
            digits.push((carry % 10) as u8);
            carry /= 10;
        }
    }
    digits
        .iter()
        .rev()
        .map(|digit| char::from(b'0' + digit))
        .collect()
}

fn spki(leaf: &x509_cert::Certificate) -> Result<Vec<u8>, CertificateError> {
    let spki = leaf.tbs_certificate().subject_public_key_info();
    spki.to_der()
        .map_err(|fault| error(format!("its public key: {fault}")))
}

fn error(text: impl Into<String>) -> CertificateError {
    CertificateError(text.into())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use openssl::asn1::{Asn1Integer, Asn1Time};
    use openssl::bn::BigNum;
    use openssl::ec::{EcGroup, EcKey};
    use openssl::hash::MessageDigest;
    use openssl::nid::Nid;
    use openssl::pkey::{PKey, Private};
    use openssl::rsa::Rsa;
    use openssl::sign::Signer;
    use openssl::x509::extension as ext;
    use openssl::x509::{X509, X509Builder, X509Extension, X509NameBuilder};

    /// 2026-11-23, noon: inside the validity of the certificates below.
    pub(crate) const NOON: &str = "2026-11-23T12:00:00Z";
    const TEXT: &str = "a string to sign";

    pub(crate) fn ec(curve: Nid) -> PKey<Private> {
        let group = EcGroup::from_curve_name(curve).unwrap();
        PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
    }

    fn rsa(bits: u32) -> PKey<Private> {
        PKey::from_rsa(Rsa::generate(bits).unwrap()).unwrap()
    }

    fn constraints(ca: bool) -> X509Extension {
        let mut constraints = ext::BasicConstraints::new();
        if ca {
            constraints.ca();
        }
        constraints.critical().build().unwrap()
    }

    fn usage() -> X509Extension {
        ext::KeyUsage::new().digital_signature().build().unwrap()
    }

    /// A certificate for `key`, signed by itself, as DER.
    fn der(
        key: &PKey<Private>,
        extensions: Vec<X509Extension>,
        adapt: impl Fn(&mut X509Builder),
        digest: MessageDigest,
    ) -> Vec<u8> {
        let mut builder = X509::builder().unwrap();
        builder.set_version(2).unwrap();
        let serial = BigNum::from_dec_str("123456789012345678901234567890").unwrap();
        builder
            .set_serial_number(&Asn1Integer::from_bn(&serial).unwrap())
            .unwrap();
        let name = |text| {
            let mut name = X509NameBuilder::new().unwrap();
            name.append_entry_by_text("CN", text).unwrap();
            name.build()
        };
        builder.set_subject_name(&name("web")).unwrap();
        builder.set_issuer_name(&name("ca")).unwrap();
        let time = |text| Asn1Time::from_str(text).unwrap();
        builder.set_not_before(&time("20260101000000Z")).unwrap();
        builder.set_not_after(&time("20270101000000Z")).unwrap();
        builder.set_pubkey(key).unwrap();
        for extension in extensions {
            builder.append_extension(extension).unwrap();
        }
        adapt(&mut builder);
        builder.sign(key, digest).unwrap();
        builder.build().to_der().unwrap()
    }

    fn leaf_der(key: &PKey<Private>) -> Vec<u8> {
        let extensions = vec![constraints(false), usage()];
        der(key, extensions, |_| {}, MessageDigest::sha256())
    }

    fn ca_der(key: &PKey<Private>) -> Vec<u8> {
        der(
            key,
            vec![constraints(true)],
            |_| {},
            MessageDigest::sha256(),
        )
    }

    fn load(ders: Vec<Vec<u8>>) -> Result<Certificate, CertificateError> {
        Certificate::new(ders)
    }

    pub(crate) fn certificate(key: &PKey<Private>, intermediates: usize) -> Certificate {
        let mut ders = vec![leaf_der(key)];
        ders.extend((0..intermediates).map(|_| ca_der(key)));
        load(ders).unwrap()
    }

    #[test]
    fn every_key_type_verifies_what_openssl_signed() {
        for (key, name, algorithm) in [
            (rsa(2048), "RSA-2048", Algorithm::RsaSha256),
            (rsa(3072), "RSA-3072", Algorithm::RsaSha256),
            (
                ec(Nid::X9_62_PRIME256V1),
                "EC-P-256",
                Algorithm::EcdsaSha256,
            ),
            (ec(Nid::SECP384R1), "EC-P-384", Algorithm::EcdsaSha256),
            (ec(Nid::SECP521R1), "EC-P-521", Algorithm::EcdsaSha256),
        ] {
            let certificate = certificate(&key, 0);
            assert_eq!(certificate.key_algorithm(), name);
            assert_eq!(certificate.algorithm(), algorithm);
            for _ in 0..8 {
                let mut signer = Signer::new(MessageDigest::sha256(), &key).unwrap();
                let signature = signer.sign_oneshot_to_vec(TEXT.as_bytes()).unwrap();
                assert!(
                    certificate.verifies(TEXT, &Signature(signature.clone())),
                    "{name}"
                );
                assert!(!certificate.verifies("another text", &Signature(signature.clone())));
                let mut changed = signature;
                *changed.last_mut().unwrap() ^= 1;
                assert!(!certificate.verifies(TEXT, &Signature(changed)), "{name}");
            }
            for nonsense in [vec![], vec![0x30], vec![0; 256], vec![0xff; 1024]] {
                assert!(!certificate.verifies(TEXT, &Signature(nonsense)), "{name}");
            }
        }
    }

    #[test]
    fn the_facts_are_read() {
        let certificate = certificate(&ec(Nid::X9_62_PRIME256V1), 2);
        assert_eq!(certificate.serial, "123456789012345678901234567890");
        assert_eq!(
            (&*certificate.subject, &*certificate.issuer),
            ("CN=web", "CN=ca")
        );
        assert_eq!(certificate.not_after.to_string(), "2027-01-01T00:00:00Z");
        assert_eq!(certificate.x509_chain.unwrap().matches(',').count(), 1);
    }

    #[test]
    fn what_aws_would_refuse_is_refused_here() {
        let key = ec(Nid::X9_62_PRIME256V1);
        let plain = || vec![constraints(false), usage()];
        let sha256 = MessageDigest::sha256();
        let server_auth = || ext::ExtendedKeyUsage::new().server_auth().build().unwrap();
        let encipherment = || ext::KeyUsage::new().key_encipherment().build().unwrap();
        let nothing = |_: &mut X509Builder| {};
        for (leaf, fault) in [
            (
                der(&key, vec![constraints(true), usage()], nothing, sha256),
                "CA certificate",
            ),
            (
                der(&key, vec![usage()], nothing, sha256),
                "basicConstraints",
            ),
            (
                der(&key, vec![constraints(false)], nothing, sha256),
                "digitalSignature",
            ),
            (
                der(
                    &key,
                    vec![constraints(false), encipherment()],
                    nothing,
                    sha256,
                ),
                "digitalSignature",
            ),
            (
                der(
                    &key,
                    vec![constraints(false), usage(), server_auth()],
                    nothing,
                    sha256,
                ),
                "clientAuth",
            ),
            (der(&key, plain(), nothing, MessageDigest::sha1()), "SHA-1"),
            (
                der(&rsa(2048), plain(), nothing, MessageDigest::md5()),
                "MD5",
            ),
            (
                der(&key, vec![], |b| b.set_version(0).unwrap(), sha256),
                "v3",
            ),
            (der(&rsa(1024), plain(), nothing, sha256), "1024 bits"),
            (
                der(&ec(Nid::SECP256K1), plain(), nothing, sha256),
                "none of RSA",
            ),
            (b"nonsense".to_vec(), "not an X.509 certificate"),
        ] {
            let message = load(vec![leaf]).unwrap_err().to_string();
            assert!(message.contains(fault), "{message}");
        }
        assert!(load(vec![]).is_err());
        let client_auth = ext::ExtendedKeyUsage::new().client_auth().build().unwrap();
        let good = der(
            &key,
            vec![constraints(false), usage(), client_auth],
            nothing,
            sha256,
        );
        assert!(load(vec![good]).is_ok());
    }

    #[test]
    fn validity_has_two_ends() {
        let certificate = certificate(&ec(Nid::X9_62_PRIME256V1), 0);
        for (now, fault) in [
            ("2025-12-31T23:59:59Z", "not valid before"),
            ("2027-01-01T00:00:01Z", "expired"),
        ] {
            let error = certificate
                .check_validity(now.parse().unwrap())
                .unwrap_err();
            assert!(error.to_string().contains(fault), "{error}");
        }
        assert_eq!(certificate.check_validity(NOON.parse().unwrap()), Ok(()));
    }

    #[test]
    fn the_chain_holds_intermediates_only() {
        let key = ec(Nid::X9_62_PRIME256V1);
        let leaf = leaf_der(&key);
        let root = der(
            &key,
            vec![constraints(true)],
            |builder| {
                let mut name = X509NameBuilder::new().unwrap();
                name.append_entry_by_text("CN", "ca").unwrap();
                builder.set_subject_name(&name.build()).unwrap();
            },
            MessageDigest::sha256(),
        );
        let certificate = load(vec![leaf.clone(), leaf.clone(), root]).unwrap();
        assert_eq!(certificate.x509_chain, None);
        let five = certificate_count(&leaf, &ca_der(&key), 5).unwrap();
        assert_eq!(five.x509_chain.unwrap().split(',').count(), 5);
        let six = certificate_count(&leaf, &ca_der(&key), 6).unwrap_err();
        assert!(six.to_string().contains("at most 5"), "{six}");
        let other = leaf_der(&ec(Nid::X9_62_PRIME256V1));
        let error = load(vec![leaf, other]).unwrap_err();
        assert!(
            error.to_string().contains("intermediate 1 (CN=web)"),
            "{error}"
        );
    }

    fn certificate_count(
        leaf: &[u8],
        intermediate: &[u8],
        count: usize,
    ) -> Result<Certificate, CertificateError> {
        let mut ders = vec![leaf.to_vec()];
        ders.extend(vec![intermediate.to_vec(); count]);
        load(ders)
    }

    #[test]
    fn pem_files_may_hold_other_text() {
        let leaf = leaf_der(&ec(Nid::X9_62_PRIME256V1));
        let pem = String::from_utf8(X509::from_der(&leaf).unwrap().to_pem().unwrap()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("web.pem");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            read_pem(&path)
        };
        assert_eq!(
            read(&format!("subject=CN = web\n{pem}\nissuer\n{pem}")).unwrap(),
            [&*leaf, &*leaf]
        );
        assert_eq!(read(&pem.replace('\n', "\r\n")).unwrap(), [&*leaf]);
        for (text, fault) in [
            (String::new(), "there is no"),
            (pem.replace("-----END", ""), "certificate 1 is cut off"),
            (
                format!("{pem}{}", pem.replace("MII", "!!!")),
                "certificate 2",
            ),
        ] {
            let message = read(&text).unwrap_err().to_string();
            assert!(message.contains(fault), "{message}");
        }
        assert!(read_pem(directory.path()).is_err());
        assert!(read_pem(Path::new("/nonexistent.pem")).is_err());
    }

    #[test]
    fn serials_are_decimal() {
        for (bytes, text) in [
            (&[0][..], "0"),
            (&[], "0"),
            (&[0, 1, 0], "256"),
            (
                &[0xff; 20],
                "1461501637330902918203684832716283019655932542975",
            ),
        ] {
            assert_eq!(decimal(bytes), text);
        }
    }
}
