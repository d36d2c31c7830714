//! What `pkcs11-tool --list-objects` says.

use anyhow::{Context, Result};
use openssl::bn::BigNumContext;
use openssl::ec::{EcGroup, EcKey, EcPoint};
use openssl::nid::Nid;
use openssl::pkey::PKey;

/// The `Access` line of the object `label` in pkcs11-tool's listing.
pub(super) fn access_of(listing: &str, label: &str) -> Option<String> {
    let mut objects = fields(listing);
    objects.find(|(name, value)| *name == "label" && *value == label)?;
    objects
        .find(|(name, _)| *name == "Access")
        .map(|(_, value)| value.to_owned())
}

/// The `EC_POINT` of the object `id`; pkcs11-tool lists it before the id.
pub(super) fn ec_point_of(listing: &str, id: &str) -> Option<String> {
    let mut point = None;
    for (name, value) in fields(listing) {
        match name {
            "EC_POINT" => point = Some(value),
            "ID" if value == id && point.is_some() => return point.map(str::to_owned),
            "ID" => point = None,
            _ => {}
        }
    }
    None
}

fn fields(listing: &str) -> impl Iterator<Item = (&str, &str)> {
    listing
        .lines()
        .filter_map(|line| line.trim().split_once(':'))
        .map(|(name, value)| (name, value.trim()))
}

/// SubjectPublicKeyInfo of a point in CKA_EC_POINT's form, with or without an OCTET STRING around it.
pub(super) fn ec_spki(curve: Nid, attribute: &[u8]) -> Result<Vec<u8>> {
    let group = EcGroup::from_curve_name(curve)?;
    let length = 1 + 2 * usize::try_from(group.degree().div_ceil(8))?;
    let start = attribute
        .len()
        .checked_sub(length)
        .context("CKA_EC_POINT is too short for its curve")?;
    let point = attribute.get(start..).unwrap_or_default();
    let point = EcPoint::from_bytes(&group, point, &mut *BigNumContext::new()?)?;
    Ok(PKey::from_ec_key(EcKey::from_public_key(&group, &point)?)?.public_key_to_der()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "\
Public Key Object; RSA 2048 bits
  label:      batch
  ID:         02
  Usage:      verify
  Access:     local
Private Key Object; EC
  label:      web
  ID:         01
  Usage:      sign
  Access:     sensitive, never extractable
Public Key Object; EC  EC_POINT 256 bits
  EC_POINT:   0441aa
  EC_PARAMS:  06082a8648ce3d030107
  label:      web
  ID:         01
  Access:     local
";

    #[test]
    fn an_object_is_found_by_label_or_id() {
        assert_eq!(
            access_of(LISTING, "web").as_deref(),
            Some("sensitive, never extractable")
        );
        assert_eq!(access_of(LISTING, "we"), None);
        assert_eq!(ec_point_of(LISTING, "01").as_deref(), Some("0441aa"));
        assert_eq!(ec_point_of(LISTING, "02"), None);
        assert_eq!(ec_point_of(LISTING, "03"), None);
    }

    #[test]
    fn points_come_with_or_without_a_wrapper() {
        let group = EcGroup::from_curve_name(Nid::SECP384R1).unwrap();
        let key = EcKey::generate(&group).unwrap();
        let form = openssl::ec::PointConversionForm::UNCOMPRESSED;
        let raw = key
            .public_key()
            .to_bytes(&group, form, &mut BigNumContext::new().unwrap())
            .unwrap();
        let spki = PKey::from_ec_key(key).unwrap().public_key_to_der().unwrap();
        assert_eq!(ec_spki(Nid::SECP384R1, &raw).unwrap(), spki);
        assert_eq!(
            ec_spki(Nid::SECP384R1, &[&[0x04, 0x61], raw.as_slice()].concat()).unwrap(),
            spki
        );
        assert!(ec_spki(Nid::SECP384R1, &raw[1..]).is_err());
        assert!(ec_spki(Nid::SECP256K1, &raw).is_err());
    }
}
