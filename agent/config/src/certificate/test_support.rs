//! Certificates to test with, signed by themselves.
#![allow(clippy::unwrap_used, missing_docs, reason = "how a test fails")]

use openssl::asn1::{Asn1Integer, Asn1Time};
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::x509::extension as ext;
use openssl::x509::{X509, X509Builder, X509Extension, X509NameBuilder};

use super::Certificate;

/// 2026-11-23, noon: inside the validity of the certificates below.
pub const NOON: &str = "2026-11-23T12:00:00Z";
/// A new key on this curve.
pub fn ec(curve: Nid) -> PKey<Private> {
    let group = EcGroup::from_curve_name(curve).unwrap();
    PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
}

/// A certificate for `key`, with so many others behind it.
pub fn certificate(key: &PKey<Private>, intermediates: usize) -> Certificate {
    let mut ders = vec![leaf_der(key)];
    ders.extend((0..intermediates).map(|_| ca_der(key)));
    Certificate::new(ders).unwrap()
}

pub(super) fn constraints(ca: bool) -> X509Extension {
    let mut constraints = ext::BasicConstraints::new();
    if ca {
        constraints.ca();
    }
    constraints.critical().build().unwrap()
}

pub(super) fn usage() -> X509Extension {
    ext::KeyUsage::new().digital_signature().build().unwrap()
}

/// A certificate for `key`, signed by itself, as DER.
pub(super) fn der(
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

pub(super) fn leaf_der(key: &PKey<Private>) -> Vec<u8> {
    let extensions = vec![constraints(false), usage()];
    der(key, extensions, |_| {}, MessageDigest::sha256())
}

pub(super) fn ca_der(key: &PKey<Private>) -> Vec<u8> {
    der(
        key,
        vec![constraints(true)],
        |_| {},
        MessageDigest::sha256(),
    )
}
