//! How a key signs with SHA-256, from its public area; and whether it is a key that may sign at all.

use der::asn1::{AnyRef, UintRef};
use der::{Encode, Tag};
use sha2::{Digest as _, Sha256};
use token::Algorithm;
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::ecc::EccCurve;
use tss_esapi::structures::{Digest, EccScheme, HashScheme, Public, RsaScheme};
use tss_esapi::structures::{Signature, SignatureScheme};

/// How a key signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scheme {
    pub(crate) algorithm: Algorithm,
    /// For TPM2_Sign: null where the key's own scheme is fixed.
    pub(crate) parameter: SignatureScheme,
    /// What length the TPM wants the digest to have.
    digest_length: usize,
}

const SHA256: HashScheme = HashScheme::new(HashingAlgorithm::Sha256);
const SHA256_LENGTH: usize = 32;

impl Scheme {
    /// Of this key; or why it cannot sign for AWS, and what to do.
    pub(crate) fn of(key: &Public) -> Result<Scheme, String> {
        let attributes = key.object_attributes();
        if !attributes.sign_encrypt() {
            return Err(
                "it may not sign (its attribute sign is not set): make a key with \
                 `tpm2_create -a 'fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign'`"
                    .to_owned(),
            );
        }
        if attributes.restricted() {
            return Err(
                "it is restricted, so that it signs only what the TPM itself has made: make a key \
                 without the attribute restricted"
                    .to_owned(),
            );
        }
        match key {
            Public::Rsa { parameters, .. } => {
                check_length(u16::from(parameters.key_bits()).into())?;
                rsa(parameters.rsa_scheme())
            }
            Public::Ecc { parameters, .. } => ecc(parameters.ecc_curve(), parameters.ecc_scheme()),
            _ => Err("it is no key pair: make an RSA or an ECC key".to_owned()),
        }
    }

    /// SHA-256 of the message, as TPM2_Sign takes it.
    pub(crate) fn digest(self, message: &[u8]) -> tss_esapi::Result<Digest> {
        let hash = Sha256::digest(message);
        let mut digest = vec![0; self.digest_length.saturating_sub(hash.len())];
        digest.extend_from_slice(&hash);
        digest.try_into()
    }

    /// The signature as AWS wants it; `None` where it is of another kind than the key.
    pub(crate) fn signature(self, signature: &Signature) -> Option<Vec<u8>> {
        match (self.algorithm, signature) {
            (Algorithm::RsaSha256, Signature::RsaSsa(rsa)) => Some(rsa.signature().to_vec()),
            (Algorithm::EcdsaSha256, Signature::EcDsa(ecdsa)) => {
                sequence(ecdsa.signature_r(), ecdsa.signature_s()).ok()
            }
            _ => None,
        }
    }
}

fn check_length(bits: usize) -> Result<(), String> {
    match token::is_rsa_length(bits) {
        true => Ok(()),
        false => Err(format!(
            "it is an RSA key of {bits} bits, but AWS accepts {}: make a key with `tpm2_create -G rsa2048`",
            token::RSA_LENGTHS
        )),
    }
}

fn rsa(scheme: RsaScheme) -> Result<Scheme, String> {
    let parameter = match scheme {
        RsaScheme::Null => SignatureScheme::RsaSsa {
            hash_scheme: SHA256,
        },
        RsaScheme::RsaSsa(hash) if hash == SHA256 => SignatureScheme::Null,
        other => {
            return Err(format!(
                "its scheme is fixed to {other:?}, but AWS wants RSASSA with SHA-256: make a key with \
                 `tpm2_create -G rsa2048:rsassa-sha256`, or without a scheme"
            ));
        }
    };
    Ok(Scheme {
        algorithm: Algorithm::RsaSha256,
        parameter,
        digest_length: SHA256_LENGTH,
    })
}

/// ECDSA takes the digest as a number. With zeros in front it is the same number, as long as it is not cut
/// to the curve's length: so a key that is fixed to a longer hash signs SHA-256 all the same.
fn ecc(curve: EccCurve, scheme: EccScheme) -> Result<Scheme, String> {
    let curve_bits = match curve {
        EccCurve::NistP256 => 256,
        EccCurve::NistP384 => 384,
        EccCurve::NistP521 => 521,
        other => {
            return Err(format!(
                "AWS does not know its curve ({other:?}): make a key on P-256, P-384 or P-521"
            ));
        }
    };
    let hash = match scheme {
        EccScheme::Null => None,
        EccScheme::EcDsa(hash) => Some(hash.hashing_algorithm()),
        other => return Err(not_ecdsa(&format!("{other:?}"))),
    };
    let digest_length = match hash {
        None | Some(HashingAlgorithm::Sha256 | HashingAlgorithm::Sha3_256) => SHA256_LENGTH,
        Some(HashingAlgorithm::Sha384 | HashingAlgorithm::Sha3_384) => 48,
        Some(HashingAlgorithm::Sha512 | HashingAlgorithm::Sha3_512) => 64,
        Some(other) => return Err(not_ecdsa(&format!("ECDSA with {other:?}"))),
    };
    if digest_length * 8 > curve_bits {
        return Err(not_ecdsa(&format!("a hash of {} bits", digest_length * 8)));
    }
    Ok(Scheme {
        algorithm: Algorithm::EcdsaSha256,
        parameter: match hash {
            None => SignatureScheme::EcDsa {
                hash_scheme: SHA256,
            },
            Some(_) => SignatureScheme::Null,
        },
        digest_length,
    })
}

fn not_ecdsa(scheme: &str) -> String {
    format!(
        "its scheme is fixed to {scheme}, but AWS wants ECDSA with SHA-256: make a key with \
         `tpm2_create -G ecc256:ecdsa-sha256`, or without a scheme"
    )
}

/// DER `SEQUENCE { r INTEGER, s INTEGER }`.
fn sequence(r: &[u8], s: &[u8]) -> der::Result<Vec<u8>> {
    let mut integers = UintRef::new(r)?.to_der()?;
    UintRef::new(s)?.encode_to_vec(&mut integers)?;
    AnyRef::new(Tag::Sequence, &integers)?.to_der()
}

/// What works, but leaves a copy of the key elsewhere.
const NEW_KEY: &str =
    "make one in the TPM (roleseal-admin key generate --tpm --out FILE), and have that certified";

pub(crate) fn warnings(key: &Public) -> Vec<String> {
    let attributes = key.object_attributes();
    let mut warnings = Vec::new();
    if !attributes.sensitive_data_origin() {
        warnings.push(format!(
            "the key was made outside of the TPM, where a copy of it may be: {NEW_KEY}"
        ));
    }
    if !attributes.fixed_tpm() || !attributes.fixed_parent() {
        warnings.push(format!(
            "the key can leave its TPM (fixedTPM and fixedParent are not both set): {NEW_KEY}"
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longer_hashes_are_padded_where_that_keeps_the_number() {
        let fixed = |hash| EccScheme::EcDsa(HashScheme::new(hash));
        for (curve, scheme, length) in [
            (EccCurve::NistP256, EccScheme::Null, 32),
            (EccCurve::NistP256, fixed(HashingAlgorithm::Sha256), 32),
            (EccCurve::NistP384, fixed(HashingAlgorithm::Sha256), 32),
            (EccCurve::NistP384, fixed(HashingAlgorithm::Sha384), 48),
            (EccCurve::NistP521, fixed(HashingAlgorithm::Sha384), 48),
            (EccCurve::NistP521, fixed(HashingAlgorithm::Sha512), 64),
        ] {
            let scheme = ecc(curve, scheme).unwrap();
            let digest = scheme.digest(b"abc").unwrap();
            assert_eq!(digest.len(), length);
            let (zeros, hash) = digest.split_at(length - 32);
            assert!(zeros.iter().all(|byte| *byte == 0));
            assert_eq!(hash[..4], [0xba, 0x78, 0x16, 0xbf]);
        }
        for (curve, hash) in [
            (EccCurve::NistP256, HashingAlgorithm::Sha1),
            (EccCurve::NistP256, HashingAlgorithm::Sha384),
            (EccCurve::NistP384, HashingAlgorithm::Sha512),
        ] {
            let fault = ecc(curve, fixed(hash)).unwrap_err();
            assert!(fault.contains("AWS wants ECDSA with SHA-256"), "{fault}");
        }
        let fault = ecc(EccCurve::Sm2P256, EccScheme::Null).unwrap_err();
        assert!(fault.contains("P-256, P-384 or P-521"), "{fault}");
    }

    #[test]
    fn rsa_is_rsassa_with_sha256() {
        let null = rsa(RsaScheme::Null).unwrap();
        assert!(matches!(null.parameter, SignatureScheme::RsaSsa { .. }));
        let fixed = rsa(RsaScheme::RsaSsa(SHA256)).unwrap();
        assert_eq!(fixed.parameter, SignatureScheme::Null);
        let sha384 = HashScheme::new(HashingAlgorithm::Sha384);
        for other in [RsaScheme::RsaPss(SHA256), RsaScheme::RsaSsa(sha384)] {
            assert!(rsa(other).unwrap_err().contains("rsassa-sha256"));
        }
    }

    #[test]
    fn integers_are_positive_and_short() {
        let der = sequence(&[0, 0, 1], &[0x80]).unwrap();
        assert_eq!(der, [0x30, 7, 2, 1, 1, 2, 2, 0, 0x80]);
    }
}
