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
    assert_eq!(operator.done(Task::Delete { key: report.uri }).len(), 3);
    assert!(operator.program.end().success());
}
