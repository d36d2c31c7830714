//! A TPM's public area as everybody else writes public keys.

use der::asn1::{BitStringRef, ObjectIdentifier};
use der::{Encode, Tag};
use token::operator::PublicKeyInfo;
use tss_esapi::interface_types::ecc::EccCurve;
use tss_esapi::structures::{EccPoint, Public};

use crate::asn1::{element, integer, sequence};

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const P521: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.35");

/// What a public area has for the exponent 65537.
const DEFAULT_EXPONENT: u32 = 0;

/// The `SubjectPublicKeyInfo` of an RSA key, or of one on a curve that AWS knows; `None` for others.
pub(crate) fn public_key_info(key: &Public) -> Option<PublicKeyInfo> {
    let info = match key {
        Public::Rsa {
            parameters, unique, ..
        } => rsa(unique, parameters.exponent().value()),
        Public::Ecc {
            parameters, unique, ..
        } => {
            let (curve, length) = match parameters.ecc_curve() {
                EccCurve::NistP256 => (P256, 32),
                EccCurve::NistP384 => (P384, 48),
                EccCurve::NistP521 => (P521, 66),
                _ => return None,
            };
            ec(curve, &point(unique, length)?)
        }
        _ => return None,
    };
    info.ok().map(PublicKeyInfo)
}

fn rsa(modulus: &[u8], exponent: u32) -> der::Result<Vec<u8>> {
    let exponent = match exponent {
        DEFAULT_EXPONENT => 65537,
        other => other,
    };
    let modulus = integer(modulus)?;
    let key = sequence(&[&modulus, &integer(&exponent.to_be_bytes())?])?;
    info(RSA, &element(Tag::Null, &[])?, &key)
}

fn ec(curve: ObjectIdentifier, point: &[u8]) -> der::Result<Vec<u8>> {
    info(EC, &curve.to_der()?, point)
}

fn info(algorithm: ObjectIdentifier, parameters: &[u8], key: &[u8]) -> der::Result<Vec<u8>> {
    let algorithm = sequence(&[&algorithm.to_der()?, parameters])?;
    sequence(&[&algorithm, &BitStringRef::from_bytes(key)?.to_der()?])
}

/// Uncompressed (SEC 1, 2.3.3). Some TPMs leave out the zeros in front of a coordinate.
fn point(point: &EccPoint, length: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![4];
    for coordinate in [point.x(), point.y()] {
        let zeros = length.checked_sub(coordinate.len())?;
        bytes.resize(bytes.len() + zeros, 0);
        bytes.extend_from_slice(coordinate);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coordinates_have_their_curves_length() {
        let of = |x: &[u8], y: &[u8]| {
            let coordinate = |bytes: &[u8]| bytes.to_vec().try_into().unwrap();
            point(&EccPoint::new(coordinate(x), coordinate(y)), 3)
        };
        assert_eq!(of(&[1, 2, 3], &[4, 5]), Some(vec![4, 1, 2, 3, 0, 4, 5]));
        assert_eq!(of(&[], &[1, 2, 3]), Some(vec![4, 0, 0, 0, 1, 2, 3]));
        assert_eq!(of(&[1, 2, 3, 4], &[1]), None);
    }
}
