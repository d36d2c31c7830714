//! Modules other than SoftHSM's own.

use super::*;

#[test]
fn p11_kit_proxy_does_all_tasks() {
    let proxy = module("p11-kit-proxy.so", "p11-kit-modules");
    let store = Store::new();
    let mut operator = Operator::with(&store, &proxy, &[("SOFTHSM2_CONF", store.conf())]);
    let report = operator.generate("pkcs11:token=lab;object=web", KeyType::EcP256);
    assert_eq!(report.warnings, Vec::<String>::new());
    let request = operator.request(&report, "web");
    let certificate = Der(store.certify(&request, "web"));
    let key = report.uri.clone();
    operator.done(Task::ImportCertificate { key, certificate });
    // Among the other modules' tokens that this machine may have.
    let tokens = operator.list("pkcs11:token=lab");
    assert_eq!(tokens[0].keys.len(), 1);
    assert_eq!(tokens[0].keys[0].certificates.len(), 1);
    assert_eq!(operator.delete(&report.uri).len(), 3);
    assert!(operator.program.end().success());
}

/// NSS's own token without a password: no PIN, and attributes in its own ways.
#[test]
fn nss_softoken_does_all_tasks() {
    let store = Store::new();
    let database = store.nss_database();
    let (proxy, mut command) = store.softoken(&database, "");
    command.arg(token::operator::ARGUMENT);
    let mut operator = Operator {
        program: Program::spawn(command),
        module: proxy.into(),
        pin: None,
    };
    let token = "pkcs11:token=NSS%20Certificate%20DB";
    for key_type in [KeyType::EcP256, KeyType::EcP384, KeyType::Rsa2048] {
        let key = format!("{token};object={key_type}");
        let report = operator.generate(&key, key_type);
        assert_eq!(report.warnings, Vec::<String>::new());
        let request = operator.request(&report, key_type.name());
        let certificate = Der(store.certify(&request, key_type.name()));
        store.openssl("req -inform DER -in request.der -verify -noout");
        let key = report.uri.clone();
        operator.done(Task::ImportCertificate { key, certificate });
        assert_eq!(operator.key(&key_of(&report)).certificates.len(), 1);
    }
    let tokens = operator.list(token);
    assert_eq!(tokens[0].keys.len(), 3, "{tokens:?}");
    for key in &tokens[0].keys {
        operator.delete(&key.uri);
    }
    assert!(operator.list(token)[0].keys.is_empty());
    assert!(operator.program.end().success());
}

fn key_of(report: &KeyReport) -> String {
    report.uri.to_string()
}

/// Wherever p11-kit is, so are its tokens with the system's CA certificates.
#[test]
fn certificates_of_cas_are_not_listed() {
    let trust = module("pkcs11/p11-kit-trust.so", "p11-kit-modules");
    let store = Store::new();
    let mut operator = Operator::with(&store, &trust, &[]);
    operator.pin = None;
    let tokens = operator.list("pkcs11:");
    assert!(!tokens.is_empty());
    for token in tokens {
        assert_eq!(token.model, "PKCS#11 Kit p11-kit-trust");
        assert!(token.keys.is_empty() && token.certificates.is_empty());
    }
}
