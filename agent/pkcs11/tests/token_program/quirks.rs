//! What some vendors' modules do otherwise than others.

use super::faults::{Lab, refused};
use super::*;

/// AWS CloudHSM, in some versions.
#[test]
fn a_token_without_read_only_sessions_signs() {
    let lab = Lab::new();
    for code in ["CKR_FUNCTION_FAILED", "CKR_SESSION_READ_ONLY"] {
        lab.inject(&format!("C_OpenSession read-only {code}"));
        let before = lab.count("C_OpenSession");
        let mut program = lab.program();
        let mut open = lab.open();
        open.token.sessions = 3;
        let reports = program.opened(open);
        let warnings = &reports[0].as_ref().unwrap().warnings;
        assert_eq!(warnings, &Vec::<String>::new());
        for _ in 0..4 {
            lab.signs(&mut program);
        }
        // It is found out once.
        assert_eq!(lab.count("C_OpenSession"), before + 1 + 3);
    }
}

#[test]
fn a_session_that_no_token_is_there_for_is_asked_for_once() {
    let lab = Lab::new();
    for (code, calls) in [
        ("CKR_TOKEN_NOT_PRESENT", 1),
        ("CKR_DEVICE_REMOVED", 1),
        ("CKR_SESSION_COUNT", 1),
        ("CKR_FUNCTION_FAILED", 2),
    ] {
        lab.inject(&format!("C_OpenSession return {code}"));
        let before = lab.count("C_OpenSession");
        let error = refused(&mut lab.program(), lab.open());
        assert!(matches!(error, TokenError::Gone(_)), "{error:?}");
        assert!(error.to_string().contains(code), "{error}");
        assert_eq!(lab.count("C_OpenSession"), before + calls, "{code}");
    }
}

/// AWS CloudHSM's module was seen without that flag.
#[test]
fn a_pin_is_tried_where_the_token_does_not_tell_that_it_has_one() {
    let lab = Lab::new();
    lab.inject("C_GetTokenInfo no-flags CKF_USER_PIN_INITIALIZED");
    let mut program = lab.program();
    assert!(program.opened(lab.open())[0].is_ok());
    lab.signs(&mut program);
}

#[test]
fn a_token_without_a_user_pin_is_said_to_be_so() {
    let store = Store::new();
    let init = ["--module", SOFTHSM, "--init-token", "--slot-index", "1"];
    let so = ["--label", "bare", "--so-pin", "5678"];
    store.run("pkcs11-tool", "opensc", &[&init[..], &so].concat());
    let spy = Spy::new(&store);
    let mut open = store.open_in(&spy.module, &["pkcs11:object=web"]);
    open.token.token = token("pkcs11:token=bare");
    let error = refused(&mut Program::start_with(&store, &spy.environment), open);
    assert!(matches!(error, TokenError::Unusable(_)), "{error:?}");
    for part in ["token=bare", "no user PIN yet", "--init-pin"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    assert_eq!(count(&spy.calls(), "C_Login"), 1);
}

/// PIV: what verifies the PIN for a signature is undone by any command before that is made.
#[test]
fn nothing_comes_between_a_login_and_its_signature() {
    let lab = Lab::with_key(&["--always-auth"]);
    lab.store.generate("EC:prime256v1", "02", "once", &[]);
    // So that everybody is there when one of them signs.
    lab.inject_all(&["C_Login verify", "C_Login sleep 3", "C_Sign sleep 3"].map(str::to_owned));
    let mut program = lab.program();
    let module = lab.module.to_str().unwrap();
    let mut open = lab
        .store
        .open_in(module, &["pkcs11:object=web", "pkcs11:object=once"]);
    open.token.sessions = 4;
    assert!(program.opened(open).iter().all(Result::is_ok));
    for id in 0..24 {
        program.ask(id, usize::from(id % 3 == 2), ECDSA);
    }
    // All of them first: while a program logs in, SoftHSM's token is hidden from others, and so from pkcs11-tool.
    let answers: Vec<FromToken> = (0..24).map(|_| program.receive()).collect();
    for answer in answers {
        let FromToken::Signed { id, result } = answer else {
            panic!("not a signature");
        };
        let key = if id % 3 == 2 { "02" } else { "01" };
        let signature = result.unwrap_or_else(|error| panic!("{id}: {error}"));
        assert!(lab.store.verifies(key, ECDSA, &signature.0), "{id}");
    }
    assert_eq!(lab.count("C_Login"), 1 + 16);
    assert_eq!(lab.count("C_SignInit"), 24);
}

/// As libykcs11 shows attestations. Where nothing else has the id, they are what is meant.
#[test]
fn certificates_that_are_not_stored_do_not_compete_with_one_that_is() {
    let lab = Lab::new();
    let web = lab.store.certificate("web");
    let attestation = lab.store.certificate("attestation");
    lab.store.write_certificate("web.der", "01", "web", &[]);
    lab.store
        .write_certificate("attestation.der", "09", "attestation", &[]);
    lab.store.generate("EC:prime256v1", "02", "bare", &[]);
    let mut open = lab.open();
    let read = |lab: &Lab, open: &OpenPkcs11| {
        let report = lab.program().opened(open.clone()).remove(0);
        report.unwrap().certificate.unwrap()
    };
    open.keys[0].certificate = Some(CertificateOnToken::OfTheKey);
    lab.inject("C_OpenSession copy attestation 01");
    assert_eq!(read(&lab, &open).der, web);
    lab.inject("C_FindObjectsInit unknown CKA_TOKEN");
    assert_eq!(read(&lab, &open).der, web);
    lab.inject("C_OpenSession copy attestation 02");
    open.keys[0].uri = "pkcs11:object=bare".parse().unwrap();
    assert_eq!(read(&lab, &open).der, attestation);
}

/// p11-kit-client with no token behind it has no room for a list of none.
#[test]
fn a_module_without_tokens_is_said_to_have_none() {
    let lab = Lab::new();
    lab.inject_all(
        &[
            "token absent",
            "C_GetSlotList return CKR_BUFFER_TOO_SMALL after 1",
        ]
        .map(str::to_owned),
    );
    let error = refused(&mut lab.program(), lab.open());
    assert!(matches!(error, TokenError::Gone(_)), "{error:?}");
    assert!(error.to_string().contains("shows no token"), "{error}");
    // A token that comes while the slots are listed.
    lab.inject("C_GetSlotList return CKR_BUFFER_TOO_SMALL after 1 times 1");
    assert!(lab.program().opened(lab.open())[0].is_ok());
}

#[test]
fn a_key_signs_by_the_mechanism_that_it_allows() {
    let store = Store::new();
    let allowed = |mechanism| ["--allowed-mechanisms", mechanism];
    store.generate("RSA:2048", "01", "raw", &allowed("RSA-PKCS"));
    store.generate("RSA:2048", "02", "hashed", &allowed("SHA256-RSA-PKCS"));
    store.generate("RSA:2048", "03", "pss", &allowed("SHA256-RSA-PKCS-PSS"));
    let keys = ["raw", "hashed", "pss"].map(|label| format!("pkcs11:object={label}"));
    let mut program = Program::start(&store);
    let reports = program.opened(store.open(&keys));
    for (key, id) in [(0, "01"), (1, "02")] {
        assert!(reports[key].is_ok(), "{reports:?}");
        let signature = program.sign(key, RSA).unwrap();
        assert!(store.verifies(id, RSA, &signature));
    }
    let text = unusable(&reports[2]);
    assert!(text.contains("CKM_SHA256_RSA_PKCS_PSS"), "{text}");
}

/// Cards whose modules do not look for certificates by their subject.
#[test]
fn issuers_are_found_without_a_search_by_name() {
    let lab = Lab::new();
    let store = &lab.store;
    let openssl = |text: &str| {
        store.run("openssl", "openssl", &text.split(' ').collect::<Vec<_>>());
    };
    openssl(
        "req -x509 -newkey rsa:2048 -nodes -keyout root.key -out root.pem -subj /CN=root -days 9",
    );
    openssl("req -newkey rsa:2048 -nodes -keyout ca.key -out ca.csr -subj /CN=ca");
    openssl(
        "x509 -req -in ca.csr -CA root.pem -CAkey root.key -CAcreateserial -out ca.pem -days 9",
    );
    openssl("req -newkey rsa:2048 -nodes -keyout web.key -out web.csr -subj /CN=web");
    openssl("x509 -req -in web.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out web.pem -days 9");
    for (name, id) in [("web", "01"), ("ca", "0A"), ("root", "0B")] {
        openssl(&format!("x509 -in {name}.pem -outform DER -out {name}.der"));
        store.write_certificate(&format!("{name}.der"), id, name, &[]);
    }
    let ca = fs::read(store.path("ca.der")).unwrap();
    for fault in ["", "C_FindObjectsInit unknown CKA_SUBJECT"] {
        lab.inject(fault);
        let mut open = lab.open();
        open.keys[0].certificate = Some(CertificateOnToken::OfTheKey);
        let reports = lab.program().opened(open);
        let found = reports[0].as_ref().unwrap().certificate.as_ref().unwrap();
        assert_eq!(found.issuers, std::slice::from_ref(&ca), "{fault}");
    }
}
