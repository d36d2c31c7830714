//! Certificates that are stored beside their keys.

use super::*;

#[test]
fn a_certificate_is_stored_where_the_agent_finds_it() {
    let store = Store::new();
    let mut operator = Operator::new(&store);
    let report = operator.generate("pkcs11:token=lab;object=web", KeyType::Rsa2048);
    let request = operator.request(&report, "web");
    let first = store.certify(&request, "first");
    let second = store.certify(&request, "second");
    let import = |certificate: &[u8]| Task::ImportCertificate {
        key: report.uri.clone(),
        certificate: Der(certificate.to_vec()),
    };
    let written = operator.done(import(&first));
    assert_eq!(written.len(), 1, "{written:?}");
    assert!(
        written[0].starts_with("pkcs11:token=lab;object=web;type=cert;id=%"),
        "{written:?}"
    );
    // Again: nothing changes.
    assert_eq!(operator.done(import(&first)), written);
    let listed = store.tool(&["--list-objects", "--type", "cert"]); // without a login
    assert_eq!(listed.matches("Certificate Object").count(), 1, "{listed}");
    for part in ["X.509", "web"] {
        assert!(listed.contains(part), "{listed}");
    }
    // What replaces it comes first, what it replaces after it.
    let written = operator.done(import(&second));
    assert_eq!(written.len(), 2, "{written:?}");
    let report = operator.key("pkcs11:token=lab;object=web");
    let [CertificateReport { certificate, .. }] = report.certificates.as_slice() else {
        panic!("{report:?}")
    };
    assert_eq!(certificate.0, second);

    // Serial number, subject and issuer are the certificate's own: pkcs11-tool finds it by them.
    let serial = store.openssl("x509 -inform DER -in second.der -noout -serial");
    let serial = serial.trim().strip_prefix("serial=").unwrap();
    let listed = store.tool(&["--list-objects", "--type", "cert"]);
    assert!(listed.contains(&serial[1..]), "{listed} {serial}");

    // The daemon finds it by the key alone.
    let mut daemon = Program::start(&store);
    let mut open = store.open(&["pkcs11:token=lab;object=web"]);
    open.keys[0].certificate = Some(CertificateOnToken::OfTheKey);
    let reports = daemon.opened(open);
    let found = reports[0].as_ref().unwrap().certificate.as_ref();
    assert_eq!(found.unwrap().der, second);
}

#[test]
fn a_certificate_that_is_not_the_keys_is_not_stored() {
    let store = Store::new();
    store.generate("EC:prime256v1", "01", "web", &[]);
    store.generate("EC:prime256v1", "05", "twin", &[]);
    store.generate("EC:prime256v1", "05", "other", &[]);
    store.import(
        "EC -pkeyopt ec_paramgen_curve:P-256",
        "06",
        &["--no-public-key"],
    );
    let foreign = store.certificate("foreign");
    let mut operator = Operator::new(&store);
    let report = operator.key("pkcs11:token=lab;object=web");
    let request = operator.request(&report, "web");
    let own = store.certify(&request, "own");
    let padded = [own.as_slice(), &[0]].concat();
    for (key, certificate, expected) in [
        ("object=web", foreign.as_slice(), "another key's"),
        ("object=web", &padded, "no X.509 certificate"),
        ("object=web", &own[..own.len() - 1], "no X.509 certificate"),
        ("object=web", &[0x30; 20_000], "at most"),
        (
            "object=web",
            b"-----BEGIN CERTIFICATE-----",
            "no X.509 certificate",
        ),
        ("object=twin", &own, "several private keys"),
        ("id=%06", &own, "does not tell the public key"),
        ("object=absent", &own, "no private key matches"),
    ] {
        let text = operator.refusal(Task::ImportCertificate {
            key: uri(&format!("pkcs11:token=lab;{key}")),
            certificate: Der(certificate.to_vec()),
        });
        assert!(text.contains(expected), "{key}: {text}");
    }
    assert_eq!(store.objects("cert"), "");
}

/// A CA's certificate with the key's id, as some tools write it, is not the key's and stays.
#[test]
fn what_is_not_the_keys_stays() {
    let store = Store::new();
    store.generate("EC:prime256v1", "01", "web", &[]);
    store.certificate("foreign");
    store.write_certificate("foreign.der", "01", "CA", &[]);
    let mut operator = Operator::new(&store);
    let report = operator.key("pkcs11:token=lab;object=web");
    let request = operator.request(&report, "web");
    let certificate = Der(store.certify(&request, "own"));
    let written = operator.done(Task::ImportCertificate {
        key: report.uri,
        certificate,
    });
    assert_eq!(written.len(), 1);
    let listed = store.objects("cert");
    assert!(listed.contains("label:      CA"), "{listed}");
    let report = operator.key("pkcs11:token=lab;object=web");
    assert!(
        report.warnings[0].contains("several certificates"),
        "{:?}",
        report.warnings
    );
}
