//! A certificate's public key, and the check of signatures with it. By ring, which takes some 20 µs for RSA-2048
//! and 50 µs for P-256 where the crates `rsa` and `p256` take 60 µs and 300 µs: on a host whose processors
//! are at work for the token as well, that is the token's time. P-521, which ring has not, by its crate.

use std::fmt;

use der::asn1::{ObjectIdentifier, UintRef};
use der::referenced::OwnedToRef;
use der::{Decode, Reader, SliceReader};
use p521::ecdsa::signature::hazmat::PrehashVerifier;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512,
    UnparsedPublicKey, VerificationAlgorithm,
};
use sha2::{Digest, Sha256, Sha384, Sha512};
use x509_cert::spki::SubjectPublicKeyInfoRef;

use super::scheme::{Hash, Scheme};
use super::{Certificate, CertificateError};
use crate::rsa_length::{RSA_LENGTHS, is_rsa_length};

/// A public key of a kind that AWS accepts.
#[derive(Debug, Clone)]
pub struct PublicKey(Key);

#[derive(Debug, Clone)]
enum Key {
    /// With the length of its modulus in bits.
    Rsa(Vec<u8>, usize),
    P256(Vec<u8>),
    P384(Vec<u8>),
    P521(Box<p521::ecdsa::VerifyingKey>),
}

/// What kind of key it is. `Display` is such as `RSA-2048` or `EC-P-256`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // named as the curves are
pub enum KeyKind {
    /// With the length of its modulus in bits.
    Rsa(usize),
    P256,
    P384,
    P521,
}

/// The lengths that ring verifies with: AWS names none for the keys of CAs.
fn is_ca_rsa_length(bits: usize) -> bool {
    (2048..=8192).contains(&bits)
}

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const ML_DSA_44: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.3.17");
const ML_DSA_65: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.3.18");
const ML_DSA_87: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.3.19");
const ML_DSA: &str = "ML-DSA";
const P521: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.35");

impl PublicKey {
    /// The key in DER of a `SubjectPublicKeyInfo` (RFC 5280, 4.1), if it is of a kind that AWS takes of a leaf.
    pub fn from_der(spki: &[u8]) -> Result<PublicKey, CertificateError> {
        let spki = SubjectPublicKeyInfoRef::from_der(spki).map_err(|fault| {
            let fault = format!("its public key cannot be read: {fault}");
            CertificateError::with_remedy(fault, "have a new certificate issued")
        })?;
        PublicKey::read(spki, is_rsa_length)
    }

    /// Returns the key of a leaf, if it is of a kind that AWS accepts.
    pub(super) fn of_leaf(leaf: &Certificate) -> Result<PublicKey, CertificateError> {
        let spki = leaf.tbs().subject_public_key_info();
        PublicKey::read(spki.owned_to_ref(), is_rsa_length)
    }

    /// Returns the key of a CA, if it can verify here.
    pub(super) fn of_ca(ca: &Certificate) -> Result<PublicKey, CertificateError> {
        let spki = ca.tbs().subject_public_key_info();
        PublicKey::read(spki.owned_to_ref(), is_ca_rsa_length)
    }

    /// That it makes sense as a number or as a point shows when it is to verify.
    fn read(
        spki: SubjectPublicKeyInfoRef<'_>,
        is_length: fn(usize) -> bool,
    ) -> Result<PublicKey, CertificateError> {
        let key = spki.subject_public_key.as_bytes().unwrap_or_default();
        let curve = spki.algorithm.parameters_oid();
        let key = match (spki.algorithm.oid, curve) {
            (RSA, _) => rsa(key, is_length),
            (EC, Ok(P256)) => point(key, 32).map(Key::P256),
            (EC, Ok(P384)) => point(key, 48).map(Key::P384),
            (EC, Ok(P521)) => match p521::ecdsa::VerifyingKey::from_sec1_bytes(key) {
                Ok(key) => Ok(Key::P521(Box::new(key))),
                Err(_) => Err(malformed()),
            },
            (kind, _) if name(kind).starts_with(ML_DSA) => Err(CertificateError::with_remedy(
                "its key is an ML-DSA key, which roleseal cannot use",
                "use an RSA or EC key",
            )),
            _ => Err(CertificateError::new(
                "its key is none of RSA 2048 to 4096, EC P-256, P-384 and P-521",
            )),
        };
        key.map(PublicKey)
    }

    /// What kind it is.
    pub fn kind(&self) -> KeyKind {
        match self.0 {
            Key::Rsa(_, bits) => KeyKind::Rsa(bits),
            Key::P256(_) => KeyKind::P256,
            Key::P384(_) => KeyKind::P384,
            Key::P521(_) => KeyKind::P521,
        }
    }

    /// Whether it is this key's signature as SigV4-X509 has it: over SHA-256, whatever the curve.
    pub fn verifies(&self, text: &[u8], signature: &[u8]) -> bool {
        match &self.0 {
            Key::Rsa(key, _) => by_ring(&RSA_PKCS1_2048_8192_SHA256, key, text, signature),
            Key::P256(key) => by_ring(&ECDSA_P256_SHA256_ASN1, key, text, signature),
            Key::P384(key) => by_ring(&ECDSA_P384_SHA256_ASN1, key, text, signature),
            Key::P521(key) => by_p521(key, &Sha256::digest(text), signature),
        }
    }

    /// Whether it is this key's signature of that scheme; `None` for a scheme that cannot be checked with it.
    pub(super) fn verifies_as(
        &self,
        scheme: Scheme,
        text: &[u8],
        signature: &[u8],
    ) -> Option<bool> {
        let ring = |algorithm: &'static dyn VerificationAlgorithm, key: &[u8]| {
            Some(by_ring(algorithm, key, text, signature))
        };
        match (&self.0, scheme) {
            (Key::Rsa(key, _), Scheme::RsaPkcs1(Hash::Sha256)) => {
                ring(&RSA_PKCS1_2048_8192_SHA256, key)
            }
            (Key::Rsa(key, _), Scheme::RsaPkcs1(Hash::Sha384)) => {
                ring(&RSA_PKCS1_2048_8192_SHA384, key)
            }
            (Key::Rsa(key, _), Scheme::RsaPkcs1(Hash::Sha512)) => {
                ring(&RSA_PKCS1_2048_8192_SHA512, key)
            }
            // ring knows salts as long as the hash: another is no forgery.
            (Key::Rsa(key, _), Scheme::RsaPss(hash)) => {
                let algorithm: &'static dyn VerificationAlgorithm = match hash {
                    Hash::Sha256 => &RSA_PSS_2048_8192_SHA256,
                    Hash::Sha384 => &RSA_PSS_2048_8192_SHA384,
                    Hash::Sha512 => &RSA_PSS_2048_8192_SHA512,
                };
                ring(algorithm, key).filter(|verified| *verified)
            }
            (Key::P256(key), Scheme::Ecdsa(Hash::Sha256)) => ring(&ECDSA_P256_SHA256_ASN1, key),
            (Key::P256(key), Scheme::Ecdsa(Hash::Sha384)) => ring(&ECDSA_P256_SHA384_ASN1, key),
            (Key::P384(key), Scheme::Ecdsa(Hash::Sha256)) => ring(&ECDSA_P384_SHA256_ASN1, key),
            (Key::P384(key), Scheme::Ecdsa(Hash::Sha384)) => ring(&ECDSA_P384_SHA384_ASN1, key),
            (Key::P521(key), Scheme::Ecdsa(hash)) => Some(match hash {
                Hash::Sha256 => by_p521(key, &Sha256::digest(text), signature),
                Hash::Sha384 => by_p521(key, &Sha384::digest(text), signature),
                Hash::Sha512 => by_p521(key, &Sha512::digest(text), signature),
            }),
            // ring has no ECDSA with SHA-512.
            (Key::P256(_) | Key::P384(_), Scheme::Ecdsa(Hash::Sha512)) | (_, Scheme::Unknown) => {
                None
            }
            // A key of one kind and a signature of another.
            _ => Some(false),
        }
    }
}

/// Its kind, also of keys that AWS does not take.
pub(super) fn key_type(certificate: &Certificate) -> &'static str {
    name(certificate.tbs().subject_public_key_info().algorithm.oid)
}

fn name(kind: ObjectIdentifier) -> &'static str {
    match kind {
        RSA => "RSA",
        EC => "EC",
        ML_DSA_44 => "ML-DSA-44",
        ML_DSA_65 => "ML-DSA-65",
        ML_DSA_87 => "ML-DSA-87",
        _ => "",
    }
}

fn by_ring(
    algorithm: &'static dyn VerificationAlgorithm,
    key: &[u8],
    text: &[u8],
    signature: &[u8],
) -> bool {
    let key = UnparsedPublicKey::new(algorithm, key);
    key.verify(text, signature).is_ok()
}

fn by_p521(key: &p521::ecdsa::VerifyingKey, digest: &[u8], signature: &[u8]) -> bool {
    p521::ecdsa::Signature::from_der(signature)
        .is_ok_and(|signature| key.verify_prehash(digest, &signature).is_ok())
}

/// `RSAPublicKey ::= SEQUENCE { modulus INTEGER, publicExponent INTEGER }`
fn rsa(der: &[u8], is_length: fn(usize) -> bool) -> Result<Key, CertificateError> {
    let modulus_bits = || -> der::Result<usize> {
        let mut reader = SliceReader::new(der)?;
        let modulus = reader.sequence(|reader| {
            let modulus = UintRef::decode(reader)?;
            UintRef::decode(reader)?;
            Ok::<_, der::Error>(modulus)
        })?;
        reader.finish()?;
        let bytes = modulus.as_bytes();
        let unused = bytes
            .first()
            .map_or(0, |first| first.leading_zeros() as usize);
        Ok(bytes.len() * 8 - unused)
    };
    let bits = modulus_bits().map_err(|_| malformed())?;
    if !is_length(bits) {
        return Err(CertificateError::with_remedy(
            format!("its RSA key has {bits} bits, and AWS accepts {RSA_LENGTHS}"),
            "use such a key",
        ));
    }
    Ok(Key::Rsa(der.to_vec(), bits))
}

/// A point of a curve whose numbers have so many bytes.
fn point(point: &[u8], length: usize) -> Result<Vec<u8>, CertificateError> {
    match point {
        [2 | 3, ..] => Err(CertificateError::with_remedy(
            "its EC key is a compressed point",
            "have it issued for the point in full",
        )),
        [4, numbers @ ..] if numbers.len() == 2 * length => Ok(point.to_vec()),
        _ => Err(malformed()),
    }
}

fn malformed() -> CertificateError {
    CertificateError::with_remedy(
        "its public key is malformed",
        "have a new certificate issued",
    )
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            KeyKind::Rsa(bits) => write!(f, "RSA-{bits}"),
            KeyKind::P256 => f.write_str("EC-P-256"),
            KeyKind::P384 => f.write_str("EC-P-384"),
            KeyKind::P521 => f.write_str("EC-P-521"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_uncompressed_and_whole() {
        let read = |bytes: &[u8]| match point(bytes, 32) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        };
        assert_eq!(read(&[4; 65]), "");
        assert!(read(&[&[2][..], &[7; 32]].concat()).contains("compressed"));
        for malformed in [&[][..], &[4; 64], &[4; 66], &[0; 65]] {
            assert!(read(malformed).contains("malformed"), "{malformed:?}");
        }
    }

    #[test]
    fn rsa_keys_have_2048_to_4096_bits() {
        let key = |modulus: &[u8]| {
            let integer = |bytes: &[u8]| {
                [&[2, 0x82][..], &(bytes.len() as u16).to_be_bytes(), bytes].concat()
            };
            let content = [integer(modulus), vec![2, 1, 3]].concat();
            let header = [&[0x30, 0x82][..], &(content.len() as u16).to_be_bytes()].concat();
            rsa(&[header, content].concat(), is_rsa_length)
        };
        let kind = |key: Result<Key, CertificateError>| PublicKey(key.unwrap()).kind().to_string();
        let modulus = |first: &[u8], length| [first, &vec![0xff; length]].concat();
        assert_eq!(kind(key(&modulus(&[0, 0x80], 255))), "RSA-2048");
        assert_eq!(kind(key(&modulus(&[0, 0x80], 511))), "RSA-4096");
        for (modulus, bits) in [
            (modulus(&[0x7f], 255), "2047"),
            (modulus(&[1], 512), "4097"),
            (modulus(&[0x0f], 256), "2052"),
        ] {
            let refusal = key(&modulus).unwrap_err().to_string();
            assert!(refusal.contains(bits), "{refusal}");
        }
        assert!(rsa(b"nonsense", is_rsa_length).is_err());
    }
}
