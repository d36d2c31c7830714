//! Certificate requests, and nothing else, are signed.

use token::operator::KeyType;

use super::{Operator, fault, new_key};
use crate::keys::ECDSA;
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
        std::fs::write(tpm.path("info"), &info).unwrap();
        std::fs::write(tpm.path("signature"), &signature).unwrap();
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
