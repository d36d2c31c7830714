use openssl::pkey::PKey;
use openssl::rsa::Rsa;

use super::*;

fn token() -> (tempfile::TempDir, Token) {
    let dir = tempfile::tempdir().unwrap();
    let token = SoftHsm::create(dir.path())
        .unwrap()
        .add_token("lab", "2468")
        .unwrap();
    (dir, token)
}

#[test]
fn each_kind_of_key_is_made_on_the_token_and_tells_its_public_key() {
    let (_dir, token) = token();
    for kind in KeyKind::ALL {
        let spki = token
            .generate(&KeySpec::new(kind.pkcs11_tool_name(), kind))
            .unwrap();
        let bits = PKey::public_key_from_der(&spki).unwrap().bits();
        let expected = match kind {
            KeyKind::Rsa2048 => 2048,
            KeyKind::Rsa3072 => 3072,
            KeyKind::Rsa4096 => 4096,
            KeyKind::EcP256 => 256,
            KeyKind::EcP384 => 384,
            KeyKind::EcP521 => 521,
        };
        assert_eq!(bits, expected, "{kind:?}");
    }
}

#[test]
fn a_generated_key_cannot_leave_unless_asked() {
    let (_dir, token) = token();
    token
        .generate(&KeySpec::new("web", KeyKind::EcP256))
        .unwrap();
    let loose = KeySpec {
        extractable: true,
        ..KeySpec::new("loose", KeyKind::EcP256)
    };
    token.generate(&loose).unwrap();
    let strict = KeySpec {
        always_authenticate: true,
        ..KeySpec::new("strict", KeyKind::EcP256)
    };
    token.generate(&strict).unwrap();
    assert_eq!(
        token.private_key_access("web").unwrap(),
        "sensitive, always sensitive, never extractable, local"
    );
    assert!(
        token
            .private_key_access("loose")
            .unwrap()
            .contains(" extractable")
    );
    assert!(
        !token
            .private_key_access("loose")
            .unwrap()
            .contains("never extractable")
    );
    assert!(
        token
            .private_key_access("strict")
            .unwrap()
            .contains("always authenticate")
    );
    assert!(token.private_key_access("none").is_err());
}

#[test]
fn the_public_key_goes_where_the_spec_says_so() {
    let (_dir, token) = token();
    let bare = KeySpec {
        keep_public: false,
        ..KeySpec::new("bare", KeyKind::EcP256)
    };
    token.generate(&bare).unwrap();
    assert!(token.public_key(bare.kind, &hex::encode(&bare.id)).is_err());
    assert!(token.private_key_access("bare").is_ok());
}

#[test]
fn keys_and_certificates_made_elsewhere_can_be_brought_along() {
    let (dir, token) = token();
    let key = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
    token
        .import_key("guest", b"\x07", &key.private_key_to_pem_pkcs8().unwrap())
        .unwrap();
    assert!(token.private_key_access("guest").is_ok());

    let pki = crate::Pki::create(&dir.path().join("pki")).unwrap();
    let leaf = pki
        .leaf(
            &key.public_key_to_der().unwrap(),
            &crate::LeafSpec::new("guest"),
        )
        .unwrap();
    token
        .write_certificate("guest", b"\x07", &leaf.der, true)
        .unwrap();
    let read = command::output(token.pkcs11_tool().unwrap().args([
        "--read-object",
        "--type",
        "cert",
        "--id",
        "07",
    ]));
    assert_eq!(read.unwrap(), leaf.der);
}

#[test]
fn two_stores_do_not_see_each_other() {
    let (_a, first) = token();
    let (_b, second) = token();
    first
        .generate(&KeySpec::new("web", KeyKind::EcP256))
        .unwrap();
    assert!(first.private_key_access("web").is_ok());
    assert!(second.private_key_access("web").is_err());
}
