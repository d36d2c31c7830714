//! Leaves and their rules.

use openssl::ec::{EcGroup, EcKey};
use openssl::rsa::Rsa;

use super::*;
use crate::pki::{Digest, LeafSpec, Pki, Purpose};

fn ec(curve: Nid) -> Vec<u8> {
    let key = EcKey::generate(&EcGroup::from_curve_name(curve).unwrap()).unwrap();
    PKey::from_ec_key(key).unwrap().public_key_to_der().unwrap()
}

fn rsa(bits: u32) -> Vec<u8> {
    Rsa::generate(bits).unwrap().public_key_to_der().unwrap()
}

fn judge(spki: &[u8], spec: &LeafSpec) -> Result<KeyType, String> {
    let dir = tempfile::tempdir().unwrap();
    let leaf = Pki::create(dir.path()).unwrap().leaf(spki, spec).unwrap();
    Certificate::from_der(&leaf.der)
        .unwrap()
        .check_leaf(Timestamp::now())
}

#[test]
fn a_good_leaf_tells_its_key_type() {
    let good = LeafSpec::new("web");
    for curve in [Nid::X9_62_PRIME256V1, Nid::SECP384R1, Nid::SECP521R1] {
        assert_eq!(judge(&ec(curve), &good), Ok(KeyType::Ec));
    }
    assert_eq!(judge(&rsa(2048), &good), Ok(KeyType::Rsa));
    let sha384 = LeafSpec {
        digest: Digest::Sha384,
        ..good.clone()
    };
    assert_eq!(judge(&rsa(2048), &sha384), Ok(KeyType::Rsa));
    assert_eq!(
        judge(
            &rsa(2048),
            &LeafSpec {
                basic_constraints: None,
                extended_key_usage: None,
                ..good
            }
        ),
        Ok(KeyType::Rsa)
    );
}

#[test]
fn each_bad_leaf_is_refused_by_name() {
    let good = || LeafSpec::new("web");
    let now = Timestamp::now();
    let later = now + jiff::SignedDuration::from_hours(1);
    let cases = [
        (
            LeafSpec {
                version: 1,
                ..good()
            },
            "version 3",
        ),
        (
            LeafSpec {
                basic_constraints: Some(true),
                ..good()
            },
            "CA:TRUE",
        ),
        (
            LeafSpec {
                digital_signature: false,
                ..good()
            },
            "digitalSignature",
        ),
        (
            LeafSpec {
                extended_key_usage: Some(Purpose::ServerAuth),
                ..good()
            },
            "clientAuth",
        ),
        (
            LeafSpec {
                digest: Digest::Sha1,
                ..good()
            },
            "signature algorithm is 1.2.840.10045.4.1",
        ),
        (LeafSpec::expired("web"), "has expired"),
        (
            LeafSpec {
                not_before: later,
                ..good()
            },
            "not valid yet",
        ),
    ];
    let key = ec(Nid::X9_62_PRIME256V1);
    for (spec, message) in cases {
        let error = judge(&key, &spec).unwrap_err();
        assert!(error.contains(message), "{message}: {error}");
    }
    assert!(
        judge(&rsa(1024), &good())
            .unwrap_err()
            .contains("1024 bits")
    );
    assert_eq!(judge(&rsa(2560), &good()), Ok(KeyType::Rsa));
    assert!(
        judge(&rsa(2052), &good())
            .unwrap_err()
            .contains("2052 bits")
    );
    assert!(
        judge(&ec(Nid::SECP256K1), &good())
            .unwrap_err()
            .contains("P-256, P-384 or P-521")
    );
    let ed25519 = PKey::generate_ed25519()
        .unwrap()
        .public_key_to_der()
        .unwrap();
    assert!(
        judge(&ed25519, &good())
            .unwrap_err()
            .contains("neither RSA nor EC")
    );
}

#[test]
fn bytes_that_are_no_certificate_are_refused() {
    assert!(Certificate::from_der(b"").is_err());
    assert!(Certificate::from_der(b"garbage").is_err());
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::create(dir.path()).unwrap();
    let mut der = pki
        .leaf(&ec(Nid::X9_62_PRIME256V1), &LeafSpec::new("web"))
        .unwrap()
        .der;
    der.push(0);
    assert!(
        Certificate::from_der(&der)
            .err()
            .unwrap()
            .contains("1 bytes follow")
    );
}

#[test]
fn serials_are_told_in_both_ways() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::create(dir.path()).unwrap();
    let spec = LeafSpec {
        serial: Some(0xff01),
        ..LeafSpec::new("web")
    };
    let leaf = Certificate::from_der(&pki.leaf(&ec(Nid::SECP384R1), &spec).unwrap().der).unwrap();
    assert_eq!(leaf.serial_decimal(), "65281");
    assert_eq!(leaf.serial_hex(), "ff01");
    assert_eq!(leaf.attributes().common_name().as_deref(), Some("web"));
}
