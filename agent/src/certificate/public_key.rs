//! The public key of a leaf or of a certificate request, and the check of signatures with it. By ring, which takes some 20 µs for RSA-2048
//! and 50 µs for P-256 where the crates `rsa` and `p256` take 60 µs and 300 µs: on a host whose processors
//! are at work for the token as well, that is the token's time. P-521, which ring has not, by its crate.

use std::fmt;

use der::asn1::{ObjectIdentifier, UintRef};
use der::referenced::OwnedToRef;
use der::{Decode, Reader, SliceReader};
use p521::ecdsa::signature::hazmat::PrehashVerifier;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA256_ASN1, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
    VerificationAlgorithm,
};
use sha2::{Digest, Sha256};
use token::Algorithm;
use x509_cert::SubjectPublicKeyInfo;

use super::{CertificateError, error};

/// A public key of a kind that AWS accepts.
#[derive(Debug)]
pub(crate) enum PublicKey {
    /// With the length of its modulus in bits.
    Rsa(UnparsedPublicKey<Vec<u8>>, usize),
    P256(UnparsedPublicKey<Vec<u8>>),
    P384(UnparsedPublicKey<Vec<u8>>),
    P521(Box<p521::ecdsa::VerifyingKey>),
}

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const P521: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.35");

impl PublicKey {
    /// That it makes sense as a number or as a point shows when it is to verify.
    pub(crate) fn new(spki: &SubjectPublicKeyInfo) -> Result<PublicKey, CertificateError> {
        let spki = spki.owned_to_ref();
        let key = spki.subject_public_key.as_bytes().unwrap_or_default();
        let curve = spki.algorithm.parameters_oid();
        match (spki.algorithm.oid, curve) {
            (RSA, _) => rsa(key),
            (EC, Ok(P256)) => point(&ECDSA_P256_SHA256_ASN1, key, 32).map(PublicKey::P256),
            (EC, Ok(P384)) => point(&ECDSA_P384_SHA256_ASN1, key, 48).map(PublicKey::P384),
            (EC, Ok(P521)) => match p521::ecdsa::VerifyingKey::from_sec1_bytes(key) {
                Ok(key) => Ok(PublicKey::P521(Box::new(key))),
                Err(_) => Err(malformed()),
            },
            _ => Err(error(
                "its key is none of RSA 2048 to 4096, EC P-256, P-384 and P-521",
            )),
        }
    }

    /// How it signs.
    pub(crate) fn algorithm(&self) -> Algorithm {
        match self {
            PublicKey::Rsa(..) => Algorithm::RsaSha256,
            _ => Algorithm::EcdsaSha256,
        }
    }

    /// Whether it is this key's signature.
    pub(crate) fn verifies(&self, text: &[u8], signature: &[u8]) -> bool {
        match self {
            PublicKey::Rsa(key, _) | PublicKey::P256(key) | PublicKey::P384(key) => {
                key.verify(text, signature).is_ok()
            }
            PublicKey::P521(key) => {
                p521::ecdsa::Signature::from_der(signature).is_ok_and(|signature| {
                    key.verify_prehash(&Sha256::digest(text), &signature)
                        .is_ok()
                })
            }
        }
    }
}

/// `RSAPublicKey ::= SEQUENCE { modulus INTEGER, publicExponent INTEGER }`
fn rsa(der: &[u8]) -> Result<PublicKey, CertificateError> {
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
    if !(2048..=4096).contains(&bits) {
        return Err(error(format!(
            "its RSA key has {bits} bits: AWS takes 2048 to 4096"
        )));
    }
    let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, der.to_vec());
    Ok(PublicKey::Rsa(key, bits))
}

/// A point of a curve whose numbers have so many bytes.
fn point(
    algorithm: &'static dyn VerificationAlgorithm,
    point: &[u8],
    length: usize,
) -> Result<UnparsedPublicKey<Vec<u8>>, CertificateError> {
    match point {
        [2 | 3, ..] => Err(error(
            "its EC key is a compressed point: have it issued for the point in full",
        )),
        [4, numbers @ ..] if numbers.len() == 2 * length => {
            Ok(UnparsedPublicKey::new(algorithm, point.to_vec()))
        }
        _ => Err(malformed()),
    }
}

fn malformed() -> CertificateError {
    error("its public key is malformed: have a new certificate issued")
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            PublicKey::Rsa(_, bits) => write!(f, "RSA-{bits}"),
            PublicKey::P256(_) => f.write_str("EC-P-256"),
            PublicKey::P384(_) => f.write_str("EC-P-384"),
            PublicKey::P521(_) => f.write_str("EC-P-521"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_uncompressed_and_whole() {
        let read = |bytes: &[u8]| match point(&ECDSA_P256_SHA256_ASN1, bytes, 32) {
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
            rsa(&[header, content].concat())
        };
        let modulus = |first: &[u8], length| [first, &vec![0xff; length]].concat();
        assert_eq!(
            key(&modulus(&[0, 0x80], 255)).unwrap().to_string(),
            "RSA-2048"
        );
        assert_eq!(
            key(&modulus(&[0, 0x80], 511)).unwrap().to_string(),
            "RSA-4096"
        );
        for (modulus, bits) in [
            (modulus(&[0x7f], 255), "2047"),
            (modulus(&[1], 512), "4097"),
        ] {
            let refusal = key(&modulus).unwrap_err().to_string();
            assert!(refusal.contains(bits), "{refusal}");
        }
        assert!(rsa(b"nonsense").is_err());
    }
}
