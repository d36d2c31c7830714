//! The public key that belongs to a private one, from whatever the token tells of it.

use cryptoki_sys::*;
use token::ObjectMatch;
use token::operator::PublicKeyInfo;
use x509_cert::Certificate;
use x509_cert::der::{Decode, Encode};
use x509_cert::spki::SubjectPublicKeyInfoRef;

use super::inventory::Lookup;
use crate::error::Failure;
use crate::properties::{P256, P384, P521};
use crate::raw::Session;
use crate::{der, find};

/// A public key, and what told it.
pub(crate) struct Told {
    pub(crate) key: PublicKeyInfo,
    /// Another object than the private key, and its class in a URI.
    pub(crate) by: Option<(CK_OBJECT_HANDLE, &'static str)>,
}

/// Of a private key of this name: as it tells itself; else its public-key object does, else its certificate. `None`
/// where none of them does, or several contradict each other.
pub(crate) fn of_private_key(
    session: &Session,
    others: &dyn Lookup,
    key: CK_OBJECT_HANDLE,
    own: &ObjectMatch,
) -> Result<Option<Told>, Failure> {
    if let Some(key) = of_object(session, key)? {
        return Ok(Some(Told { key, by: None }));
    }
    let public = (CKO_PUBLIC_KEY, "public", of_object as Reader);
    let certificate = (CKO_CERTIFICATE, "cert", of_certificate as Reader);
    // A label binds only what has no id.
    let (name, classes) = match &own.id {
        Some(_) => {
            let label = None;
            (
                ObjectMatch {
                    label,
                    ..own.clone()
                },
                &[public, certificate][..],
            )
        }
        None if own.label.is_some() => (own.clone(), &[public][..]),
        None => return Ok(None),
    };
    for (class, class_name, read) in classes {
        let mut known: Vec<Told> = Vec::new();
        for object in others.matching(*class, &name)? {
            if own.id.is_none() && find::name(session, object)?.id.is_some() {
                continue;
            }
            let by = Some((object, *class_name));
            let told = read(session, object)?.map(|key| Told { key, by });
            known.extend(told.filter(|told| known.iter().all(|one| one.key != told.key)));
        }
        match (known.pop(), known.is_empty()) {
            (None, _) => {}
            (told, true) => return Ok(told),
            (_, false) => return Ok(None),
        }
    }
    Ok(None)
}

type Reader = fn(&Session, CK_OBJECT_HANDLE) -> Result<Option<PublicKeyInfo>, Failure>;

/// As a private or public key tells it itself.
pub(crate) fn of_object(
    session: &Session,
    object: CK_OBJECT_HANDLE,
) -> Result<Option<PublicKeyInfo>, Failure> {
    let value = |attribute| session.attribute(object, attribute);
    let made = match session.number(object, CKA_KEY_TYPE)? {
        Some(CKK_RSA) => match (value(CKA_MODULUS)?, value(CKA_PUBLIC_EXPONENT)?) {
            (Some(modulus), Some(exponent)) => der::rsa_public_key(&modulus, &exponent),
            _ => None,
        },
        Some(CKK_EC) => match (value(CKA_EC_PARAMS)?, value(CKA_EC_POINT)?) {
            (Some(curve), Some(value)) => {
                point(&curve, &value).and_then(|point| der::ec_public_key(&curve, point))
            }
            _ => None,
        },
        _ => return Ok(None),
    };
    if let Some(made) = made {
        return Ok(Some(PublicKeyInfo(made)));
    }
    // Newer than the others (PKCS#11 2.40), and empty in many modules that have it.
    let whole = value(CKA_PUBLIC_KEY_INFO)?.map(PublicKeyInfo);
    Ok(whole.filter(|info| bits(info).is_some()))
}

/// The uncompressed point in a `CKA_EC_POINT`: wrapped in an OCTET STRING, as the standard has it, or as it
/// is. They begin alike, but are not of the same length.
fn point<'a>(curve: &[u8], value: &'a [u8]) -> Option<&'a [u8]> {
    let length = match curve {
        P256 => 65,
        P384 => 97,
        P521 => 133,
        _ => return None,
    };
    let point = match value.len() == length {
        true => value,
        false => der::octet_string(value)?,
    };
    (point.len() == length && point.first() == Some(&UNCOMPRESSED)).then_some(point)
}

/// SEC 1, 2.3.3
const UNCOMPRESSED: u8 = 4;

/// As a certificate object has it.
pub(crate) fn of_certificate(
    session: &Session,
    object: CK_OBJECT_HANDLE,
) -> Result<Option<PublicKeyInfo>, Failure> {
    let value = session.attribute(object, CKA_VALUE)?.unwrap_or_default();
    Ok(Certificate::from_der(&value)
        .ok()
        .and_then(|certificate| certified(&certificate)))
}

/// The key that the certificate is for.
pub(crate) fn certified(certificate: &Certificate) -> Option<PublicKeyInfo> {
    let info = certificate.tbs_certificate().subject_public_key_info();
    info.to_der().ok().map(PublicKeyInfo)
}

/// Whether both are one key: one may have the parameter NULL where the other has none.
pub(crate) fn same(one: &PublicKeyInfo, other: &PublicKeyInfo) -> bool {
    bits(one).is_some_and(|bits_of_one| Some(bits_of_one) == bits(other))
}

/// `subjectPublicKey`
pub(crate) fn bits(info: &PublicKeyInfo) -> Option<Vec<u8>> {
    let info = SubjectPublicKeyInfoRef::from_der(&info.0).ok()?;
    info.subject_public_key.as_bytes().map(<[u8]>::to_vec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_come_wrapped_and_unwrapped() {
        for (curve, length, head) in [
            (P256, 65, &[4_u8, 65][..]),
            (P384, 97, &[4, 97]),
            (P521, 133, &[4, 0x81, 133]),
        ] {
            // A raw point whose second byte could be the length of an OCTET STRING.
            let mut raw = vec![7; length];
            raw[0] = UNCOMPRESSED;
            raw[1] = (length - 2) as u8;
            let wrapped = [head, &raw].concat();
            assert_eq!(point(curve, &raw), Some(raw.as_slice()));
            assert_eq!(point(curve, &wrapped), Some(raw.as_slice()));
            let mut compressed = raw[..=length / 2].to_vec();
            compressed[0] = 2;
            for bad in [
                &raw[..length - 1],
                &wrapped[..wrapped.len() - 1],
                &compressed,
                &[&wrapped[..], &[0]].concat(),
                &[3; 65],
                &[],
            ] {
                assert_eq!(point(curve, bad), None, "{bad:02x?}");
            }
        }
        assert_eq!(point(&P256[1..], &[4; 65]), None);
    }
}
