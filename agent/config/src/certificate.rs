//! Leaf and intermediates as the agent signs with them, and the check of every signature against the leaf.
//! What AWS wants of them is in [`rolesanywhere::certificate`].

mod source;
#[cfg(any(test, feature = "test-support"))]
pub mod test_support;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
pub use rolesanywhere::certificate::CertificateError;
use rolesanywhere::certificate::{self, Chain, KeyKind, PublicKey};
use token::{Algorithm, Signature};

pub use source::{CertificateSource, LeafSource, Stamp, holds_clear_key, read_file};

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
    /// Whether the certificate of its issuer is among the intermediates.
    pub has_issuer: bool,
    key: PublicKey,
}

impl Certificate {
    /// From DER, the leaf first. Its validity is another question: see
    /// [`check_validity`](Self::check_validity).
    pub fn new(ders: Vec<Vec<u8>>) -> Result<Certificate, CertificateError> {
        let certificates: Result<_, _> = ders
            .into_iter()
            .map(certificate::Certificate::from_der)
            .collect();
        let chain = Chain::new(certificates?)?;
        chain.check()?;
        let leaf = chain.leaf();
        let intermediates: Vec<String> = chain
            .intermediates()
            .map(|intermediate| BASE64.encode(intermediate.der()))
            .collect();
        Ok(Certificate {
            x509: BASE64.encode(leaf.der()),
            x509_chain: (!intermediates.is_empty()).then(|| intermediates.join(",")),
            serial: leaf.serial().decimal(),
            subject: leaf.subject(),
            issuer: leaf.issuer(),
            not_before: leaf.not_before(),
            not_after: leaf.not_after(),
            spki: leaf.spki()?,
            has_issuer: chain.intermediates().any(|issuer| {
                issuer.subject() == leaf.issuer() && leaf.is_signed_by(issuer) != Some(false)
            }),
            key: leaf.public_key()?,
        })
    }

    /// Whether it is valid at `now`.
    pub fn check_validity(&self, now: Timestamp) -> Result<(), CertificateError> {
        certificate::check_validity(self.not_before, self.not_after, now)
    }

    /// Whether the intermediates, if there are any, are those of this leaf.
    pub fn check_chain(&self) -> Result<(), CertificateError> {
        if self.x509_chain.is_some() && !self.has_issuer {
            return Err(CertificateError::new(format!(
                "none of its intermediates is its issuer ({})",
                self.issuer
            )));
        }
        Ok(())
    }

    /// How its key signs.
    pub fn algorithm(&self) -> Algorithm {
        match self.key.kind() {
            KeyKind::Rsa(_) => Algorithm::RsaSha256,
            KeyKind::P256 | KeyKind::P384 | KeyKind::P521 => Algorithm::EcdsaSha256,
        }
    }

    /// Its key's kind, such as `RSA-2048` or `EC-P-256`.
    pub fn key_algorithm(&self) -> String {
        self.key.kind().to_string()
    }

    /// Base64 of each certificate's DER, the leaf first.
    pub fn chain(&self) -> Vec<String> {
        let intermediates = self.x509_chain.iter().flat_map(|chain| chain.split(','));
        std::iter::once(self.x509.as_str())
            .chain(intermediates)
            .map(str::to_owned)
            .collect()
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

#[cfg(test)]
mod tests {
    use super::test_support::*;
    use super::*;
    use openssl::hash::MessageDigest;
    use openssl::nid::Nid;
    use openssl::pkey::{PKey, Private};
    use openssl::rsa::Rsa;
    use openssl::sign::Signer;
    use openssl::x509::extension as ext;
    use openssl::x509::{X509Builder, X509NameBuilder};

    const TEXT: &str = "a string to sign";

    fn rsa(bits: u32) -> PKey<Private> {
        PKey::from_rsa(Rsa::generate(bits).unwrap()).unwrap()
    }

    fn load(ders: Vec<Vec<u8>>) -> Result<Certificate, CertificateError> {
        Certificate::new(ders)
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
}
