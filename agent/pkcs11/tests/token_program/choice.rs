//! Which token, key and certificate a URI names.

use super::*;

#[test]
fn several_tokens_are_listed() {
    let store = Store::new();
    store.token("lab");
    store.token("other");
    let mut open = store.open(&["pkcs11:token=lab;object=web"]);
    open.token.token = token("pkcs11:token=lab");
    let error = store.refusal(open);
    assert!(matches!(error, TokenError::Unusable(_)), "{error:?}");
    // Each of the two that are listed names one token: its keys are looked for.
    let text = error.to_string();
    let candidates: Vec<&str> = text.rsplit_once(": ").unwrap().1.split(", ").collect();
    assert_eq!(candidates.len(), 2, "{text}");
    for candidate in candidates {
        let mut open = store.open(&["pkcs11:object=web"]);
        open.token.token = token(candidate);
        let reports = Program::start(&store).opened(open);
        let text = unusable(&reports[0]);
        assert!(text.contains("shows none at all"), "{text}");
    }
}

#[test]
fn an_absent_token_is_gone() {
    let store = Store::new();
    let mut open = store.open(&["pkcs11:object=web"]);
    open.token.token = token("pkcs11:token=elsewhere");
    let error = store.refusal(open);
    assert!(matches!(error, TokenError::Gone(_)), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("pkcs11:token=elsewhere"), "{text}");
    assert!(
        text.contains("there are: pkcs11:token=lab;serial="),
        "{text}"
    );
}

#[test]
fn one_bad_key_leaves_the_others_alone() {
    let store = Store::new();
    store.generate("EC:prime256v1", "01", "web", &[]);
    store.generate("EC:prime256v1", "02", "web", &[]);
    store.generate("EC:prime256v1", "03", "api", &[]);
    store.generate("EC:secp256k1", "04", "coin", &[]);
    store.generate("rsa:1024", "05", "short", &[]);
    let mut program = Program::start(&store);
    let reports = program.opened(store.open(&[
        "pkcs11:token=lab;object=web",
        "pkcs11:token=lab;object=absent",
        "pkcs11:token=lab;object=api",
        "pkcs11:token=lab;object=api;type=public",
        "pkcs11:token=lab;object=coin",
        "pkcs11:token=lab;object=short",
    ]));
    let text = unusable(&reports[0]);
    assert!(
        text.contains("pkcs11:token=lab;object=web;id=%01"),
        "{text}"
    );
    assert!(
        text.contains("pkcs11:token=lab;object=web;id=%02"),
        "{text}"
    );
    assert!(!text.contains("object=api"), "{text}");
    let text = unusable(&reports[1]);
    assert!(
        text.contains("there are: pkcs11:token=lab;object="),
        "{text}"
    );
    assert!(
        text.contains("pkcs11:token=lab;object=api;id=%03"),
        "{text}"
    );
    assert!(reports[2].is_ok(), "{reports:?}");
    for (report, expected) in [
        (&reports[3], "type=private"),
        (&reports[4], "P-256, P-384 or P-521"),
        (&reports[5], "1024 bits"),
    ] {
        let text = unusable(report);
        assert!(text.contains(expected), "{text}");
    }
    assert!(program.sign(2, ECDSA).is_ok());
    let error = program.sign(0, ECDSA).unwrap_err();
    assert!(matches!(error, TokenError::Unusable(_)), "{error:?}");
}

#[test]
fn certificates_are_read_from_the_token() {
    let store = Store::new();
    for (id, label) in [("01", "web"), ("02", "bare"), ("03", "twice")] {
        store.generate("EC:prime256v1", id, label, &[]);
    }
    let web = store.certificate("web");
    let other = store.certificate("other");
    store.write_certificate("web.der", "01", "web", &["--private"]);
    store.write_certificate("web.der", "03", "copy", &[]);
    store.write_certificate("other.der", "03", "second", &[]);
    let named = |uri: &str| CertificateOnToken::Named(Box::new(uri.parse().unwrap()));
    let asked = [
        ("web", CertificateOnToken::OfTheKey),
        ("bare", named("pkcs11:token=lab;object=second")),
        // Two objects, one certificate.
        ("bare", named("pkcs11:object=web")),
        ("bare", CertificateOnToken::OfTheKey),
        ("twice", CertificateOnToken::OfTheKey),
        ("bare", named("pkcs11:token=elsewhere;object=web")),
        ("bare", named("pkcs11:object=web;type=data")),
    ];
    let keys = asked.map(|(label, certificate)| OpenKey {
        uri: format!("pkcs11:token=lab;object={label}").parse().unwrap(),
        certificate: Some(certificate),
        public_key: None,
    });
    store.write_certificate("web.der", "07", "web", &[]);
    let mut open = store.open::<&str>(&[]);
    open.keys = keys.to_vec();
    let reports = Program::start(&store).opened(open);
    let der = |report: &KeyReport| {
        let certificate = report.as_ref().unwrap().certificate.clone();
        certificate.unwrap().der
    };
    assert_eq!(der(&reports[0]), web);
    assert_eq!(der(&reports[1]), other);
    assert_eq!(der(&reports[2]), web);
    for (report, expected) in [
        (&reports[3], "no certificate matches"),
        (&reports[4], "several certificates match"),
        (&reports[5], "another token"),
        (&reports[6], "type=cert"),
    ] {
        let text = unusable(report);
        assert!(text.contains(expected), "{text}");
    }
    let text = unusable(&reports[4]);
    assert!(text.contains("object=copy;id=%03"), "{text}");
    assert!(text.contains("object=second;id=%03"), "{text}");
    assert!(text.contains("certificate = \"FILE\""), "{text}");
}
