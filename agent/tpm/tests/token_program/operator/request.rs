//! Certificate requests, and nothing else, are signed.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use token::PinSource;
use token::operator::KeyType;

use super::{Operator, fault, new_key, refused_pin};
use crate::harness::ECDSA;
use crate::swtpm::Swtpm;

#[test]
fn a_request_for_the_key_is_signed_and_nothing_else() {
    let tpm = Swtpm::start();
    let mut operator = Operator::on(&tpm);
    for key_type in [KeyType::EcP256, KeyType::EcP384, KeyType::Rsa2048] {
        let name = key_type.name();
        let report = operator.generate(new_key(key_type)).unwrap();
        tpm.keep(name, &report);
        let key = tpm.file(name);
        let info = tpm.request_info(name);
        let signature = operator.sign_request(&key, &info).unwrap();
        fs::write(tpm.path("info"), &info).unwrap();
        fs::write(tpm.path("signature"), &signature).unwrap();
        tpm.tool(&format!(
            "openssl dgst -sha256 -verify {name}.pem -signature signature info"
        ));
        let signed = tpm.signatures();
        let other = tpm.request_info(KeyType::EcP256.name());
        let mut refused = vec![ECDSA.as_bytes(), &info[..info.len() - 1]];
        if name != KeyType::EcP256.name() {
            refused.push(&other);
        }
        for message in refused {
            let text = fault(operator.sign_request(&key, message));
            assert!(
                text.contains("refused to sign: not a certificate request"),
                "{text}"
            );
        }
        assert_eq!(tpm.signatures(), signed);
    }
    operator.end();
}

/// A person would be asked again each time.
#[test]
fn each_pin_is_read_once_for_all_tasks() {
    let tpm = Swtpm::start();
    let path = tpm.path("pin");
    let write = |pin: &str| {
        fs::write(&path, pin).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    };
    write("key-secret");
    let mut operator = Operator::on(&tpm);
    let mut new = new_key(KeyType::EcP256);
    new.pin = Some(PinSource::File(path.clone()));
    tpm.keep("web", &operator.generate(new.clone()).unwrap());
    write("another");
    let mut web = tpm.file("web");
    web.pin = new.pin;
    let info = tpm.request_info("web");
    operator.sign_request(&web, &info).unwrap();
    operator.end();
    let text = refused_pin(Operator::on(&tpm).sign_request(&web, &info));
    assert!(
        text.contains("its auth value (--pin-file, --pin-prompt …)"),
        "{text}"
    );
}
