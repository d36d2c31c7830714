//! What is said of tokens and keys.

use super::*;

#[test]
fn tokens_and_keys_are_told_by_the_uris_that_find_them() {
    let store = Store::new();
    store.token("other");
    store.generate("EC:prime256v1", "01", "web", &[]);
    store.generate("EC:prime256v1", "02", "api", &[]);
    store.generate("rsa:2048", "03", "api", &["--extractable"]);
    store.generate("rsa:1024", "04", "short", &[]);
    store.generate("EC:prime256v1", "05", "", &[]);
    store.certificate("any");
    store.write_certificate("any.der", "01", "web", &[]);
    store.write_certificate("any.der", "09", "stray", &[]);
    let mut operator = Operator::new(&store);
    let tokens = operator.list("pkcs11:token=lab");
    let [lab] = tokens.as_slice() else {
        panic!("{tokens:?}")
    };
    assert_eq!(lab.uri.to_string(), "pkcs11:token=lab");
    assert!(lab.logged_in);
    assert!(lab.model.contains("SoftHSM"), "{}", lab.model);
    assert!(
        lab.flags.contains(&"CKF_LOGIN_REQUIRED".to_owned()),
        "{:?}",
        lab.flags
    );
    assert_eq!(lab.warnings, Vec::<String>::new());
    let mut keys: Vec<(String, String, usize, String)> = Vec::new();
    for key in &lab.keys {
        assert_eq!(operator.key(&key.uri.to_string()), *key);
        assert!(
            key.public_key.is_some() && key.attributes.private_key,
            "{key:?}"
        );
        let warnings = key.warnings.join("|");
        keys.push((
            key.uri.to_string(),
            key.algorithm.clone(),
            key.certificates.len(),
            warnings,
        ));
    }
    keys.sort();
    let expected = [
        ("pkcs11:token=lab;id=%02", "EC-P-256", 0, ""),
        (
            "pkcs11:token=lab;id=%03",
            "RSA-2048",
            0,
            "CKA_EXTRACTABLE is true",
        ),
        ("pkcs11:token=lab;id=%05", "EC-P-256", 0, ""),
        ("pkcs11:token=lab;object=short", "RSA-1024", 0, "1024 bits"),
        ("pkcs11:token=lab;object=web", "EC-P-256", 1, ""),
    ];
    assert_eq!(keys.len(), expected.len(), "{keys:?}");
    for (key, (uri, algorithm, certificates, warning)) in keys.iter().zip(expected) {
        assert_eq!(
            (key.0.as_str(), key.1.as_str(), key.2),
            (uri, algorithm, certificates)
        );
        assert!(
            key.3.contains(warning) && key.3.is_empty() == warning.is_empty(),
            "{key:?}"
        );
    }
    let certificates = lab.certificates.iter().map(|one| one.uri.to_string());
    let mut certificates: Vec<String> = certificates.collect();
    certificates.sort();
    assert_eq!(
        certificates,
        [
            "pkcs11:token=lab;object=stray;type=cert;id=%09",
            "pkcs11:token=lab;object=web;type=cert;id=%01",
        ]
    );
}

/// SoftHSM always shows one slot that has no token yet.
#[test]
fn every_slot_is_told_of_and_no_pin_is_tried_where_several_match() {
    let store = Store::new();
    store.token("lab");
    store.generate("EC:prime256v1", "01", "web", &[]);
    let spy = Spy::new(&store);
    let mut operator = Operator::with(&store, &spy.module, &spy.environment);
    let tokens = operator.list("pkcs11:");
    assert_eq!(tokens.len(), 3, "{tokens:?}");
    let (new, ready): (Vec<_>, Vec<_>) = tokens
        .iter()
        .partition(|token| !token.flags.contains(&"CKF_TOKEN_INITIALIZED".to_owned()));
    let [new] = new.as_slice() else {
        panic!("{tokens:?}")
    };
    assert_eq!(new.uri.to_string(), format!("pkcs11:slot-id={}", new.slot));
    assert!(
        new.warnings[0].contains("--init-token"),
        "{:?}",
        new.warnings
    );
    for token in ready {
        assert!(
            token
                .uri
                .to_string()
                .starts_with("pkcs11:token=lab;serial=")
        );
        assert!(!token.logged_in);
        assert!(
            token.warnings[0].contains("not logged in"),
            "{:?}",
            token.warnings
        );
        // Without a login: public keys, and no more.
        assert!(token.keys.iter().all(|key| !key.attributes.private_key));
    }
    assert_eq!(count(&spy.calls(), "C_Login"), 0);
    let text = operator.refusal(Task::List {
        token: uri("pkcs11:token=elsewhere"),
    });
    assert!(
        text.contains("there are: pkcs11:token=lab;serial="),
        "{text}"
    );
}

#[test]
fn a_slot_that_cannot_be_read_hides_no_other() {
    let lab = super::super::faults::Lab::new();
    let broken = "C_GetTokenInfo return CKR_TOKEN_NOT_RECOGNIZED times 1 after 1";
    lab.inject(broken);
    let mut operator = super::faults::operator(&lab);
    let tokens = operator.list("pkcs11:");
    assert_eq!(tokens.len(), 2, "{tokens:?}");
    let (broken, others): (Vec<_>, Vec<_>) =
        tokens.iter().partition(|token| token.flags.is_empty());
    assert_eq!(others[0].keys.len(), 1, "{others:?}");
    let [broken] = broken.as_slice() else {
        panic!("{tokens:?}")
    };
    assert!(
        broken.warnings[0].contains("C_GetTokenInfo returned CKR_TOKEN_NOT_RECOGNIZED"),
        "{broken:?}"
    );
}

/// A token that nothing can be done with is told of beside the others.
#[test]
fn a_token_that_gives_no_session_hides_no_other() {
    let lab = super::super::faults::Lab::new();
    lab.store.token("other");
    lab.inject("C_OpenSession return CKR_DEVICE_ERROR times 1");
    let tokens = super::faults::operator(&lab).list("pkcs11:");
    assert_eq!(tokens.len(), 3, "{tokens:?}");
    let faults = tokens.iter().flat_map(|token| &token.warnings);
    let faults = faults.filter(|text| text.contains("CKR_DEVICE_ERROR"));
    assert_eq!(faults.count(), 1, "{tokens:?}");
}

#[test]
fn without_a_pin_public_objects_show_alone() {
    let store = Store::new();
    store.generate("EC:prime256v1", "01", "web", &[]);
    store.certificate("any");
    store.write_certificate("any.der", "01", "web", &[]);
    let mut operator = Operator::new(&store);
    let pin = operator.pin.take();
    let tokens = operator.list("pkcs11:token=lab");
    let [lab] = tokens.as_slice() else {
        panic!("{tokens:?}")
    };
    assert!(!lab.logged_in);
    assert_eq!(lab.certificates.len(), 1);
    let [key] = lab.keys.as_slice() else {
        panic!("{lab:?}")
    };
    assert!(
        !key.attributes.private_key && key.public_key.is_some(),
        "{key:?}"
    );
    assert_eq!(key.uri.to_string(), "pkcs11:token=lab;object=web");
    assert_eq!(key.certificates.len(), 1);
    let text = operator.refusal(Task::Key {
        key: key.uri.clone(),
    });
    assert!(
        text.contains("needs a PIN: have this command ask for it"),
        "{text}"
    );
    // With one, all of it shows.
    operator.pin = pin;
    let tokens = operator.list("pkcs11:token=lab");
    assert_eq!(tokens[0].certificates, lab.certificates);
    assert!(tokens[0].keys.len() == 1 && tokens[0].keys[0].attributes.private_key);
}

#[test]
fn keys_that_cannot_be_told_apart_are_said_to_be_so() {
    let store = Store::new();
    store.generate("EC:prime256v1", "01", "web", &[]);
    store.generate("EC:prime256v1", "01", "web", &[]);
    let tokens = Operator::new(&store).list("pkcs11:token=lab");
    for key in &tokens[0].keys {
        assert!(
            key.warnings[0].contains("no URI names this one alone"),
            "{key:?}"
        );
    }
    assert_eq!(tokens[0].keys.len(), 2);
}

#[test]
fn keys_without_an_id_are_said_to_be_so() {
    let store = Store::new();
    store.generate_without_id("web");
    let tokens = Operator::new(&store).list("pkcs11:token=lab");
    let [key] = tokens[0].keys.as_slice() else {
        panic!("{tokens:?}")
    };
    assert_eq!(key.uri.to_string(), "pkcs11:token=lab;object=web");
    assert!(key.warnings[0].contains("has no CKA_ID"), "{key:?}");
    // It is told of once, although nothing but its label binds its public key to it.
    let from = key.public_key_from.as_ref().unwrap().to_string();
    assert_eq!(from, "pkcs11:token=lab;object=web;type=public");
    let key = key.clone();
    Operator::new(&store).request(&key, "web");
}

/// Searches and other calls that do not grow with the square of the keys.
#[test]
fn searches_do_not_grow_with_the_keys_and_calls_grow_with_each_alike() {
    let lab = super::super::faults::Lab::new();
    lab.store.certificate("any");
    let mut made = 1;
    let mut calls = |number: usize| {
        for more in made..number {
            let id = format!("{more:04x}");
            lab.store.generate("EC:prime256v1", &id, "key", &[]);
        }
        made = number;
        lab.store
            .write_certificate("any.der", &format!("{:04x}", number - 1), "key", &[]);
        let functions = ["C_FindObjectsInit", "C_FindObjects", "C_GetAttributeValue"];
        let before = functions.map(|function| lab.count(function));
        let tokens = super::faults::operator(&lab).list("pkcs11:token=lab");
        assert_eq!(tokens[0].keys.len(), number);
        assert!(tokens[0].keys.iter().all(|key| key.attributes.private_key));
        let after = functions.map(|function| lab.count(function));
        [0, 1, 2].map(|function| after[function] - before[function])
    };
    let (few, more, most) = (calls(4), calls(8), calls(12));
    assert_eq!((few[0], few[0]), (more[0], most[0]));
    assert!(few[0] <= 4, "{few:?}");
    assert!(most[1] <= 2 * most[0], "{most:?}");
    assert_eq!(most[2] - more[2], more[2] - few[2]);
}

/// Results come before the whole is known.
#[test]
fn what_is_known_is_told_before_a_call_hangs() {
    let lab = super::super::faults::Lab::new();
    lab.store.generate("EC:prime256v1", "02", "api", &[]);
    let mut operator = super::faults::operator(&lab);
    let before = lab.count("C_GetAttributeValue");
    operator.list("pkcs11:token=lab");
    let calls = lab.count("C_GetAttributeValue") - before;
    lab.inject(&format!("C_GetAttributeValue hang after {}", calls - 1));
    operator.send(Task::List {
        token: uri("pkcs11:token=lab"),
    });
    let mut keys = 0;
    while keys == 0 {
        let answer = operator.receive().unwrap().expect("the program ended");
        keys += usize::from(matches!(answer.unwrap(), Answer::ListedKey(_)));
    }
    assert_eq!(lab.count("C_FindObjectsFinal") % 2, 0);
    lab.inject("");
    while !matches!(operator.receive(), Ok(Some(Ok(Answer::Listed)))) {}
}

/// Some tokens hide private objects without saying CKF_LOGIN_REQUIRED.
#[test]
fn private_keys_that_need_a_login_all_the_same_are_hinted_at() {
    let lab = super::super::faults::Lab::new();
    lab.inject("C_GetTokenInfo no-flags CKF_LOGIN_REQUIRED");
    let mut operator = super::faults::operator(&lab);
    let needs_pin = |operator: &mut Operator| {
        let token = uri("pkcs11:token=lab");
        operator.ask(Task::NeedsPin { token })
    };
    assert_eq!(needs_pin(&mut operator), Ok(Answer::NeedsPin(false)));
    let pin = operator.pin.take();
    let tokens = operator.list("pkcs11:token=lab");
    assert!(
        tokens[0].warnings.iter().any(|text| text.contains("login")),
        "{tokens:?}"
    );
    let text = operator.refusal(Task::Key {
        key: uri("pkcs11:token=lab;object=web"),
    });
    assert!(text.contains("--pin-file"), "{text}");
    assert_eq!(lab.count("C_Login"), 0);
    operator.pin = pin;
    let mut operator_with_pin = super::faults::operator(&lab);
    operator_with_pin.key("pkcs11:token=lab;object=web");
    let tokens = operator_with_pin.list("pkcs11:token=lab");
    assert_eq!(tokens[0].warnings, Vec::<String>::new());
    lab.inject("");
    assert_eq!(
        needs_pin(&mut super::faults::operator(&lab)),
        Ok(Answer::NeedsPin(true))
    );
}

/// Some middleware writes the same certificate twice, which the agent takes.
#[test]
fn copies_of_a_certificate_are_no_ambiguity() {
    let store = Store::new();
    store.generate("EC:prime256v1", "01", "web", &[]);
    store.certificate("one");
    for label in ["one", "two"] {
        store.write_certificate("one.der", "01", label, &[]);
    }
    let report = Operator::new(&store).key("pkcs11:token=lab;object=web");
    assert_eq!(
        (report.certificates.len(), report.warnings),
        (2, Vec::<String>::new())
    );
}

#[test]
fn a_token_that_may_lock_is_said_to_be_so() {
    let lab = super::super::faults::Lab::new();
    for (flag, expected) in [
        ("CKF_USER_PIN_LOCKED", "is locked"),
        ("CKF_USER_PIN_FINAL_TRY", "one more wrong PIN"),
        ("CKF_USER_PIN_COUNT_LOW", "an old PIN"),
    ] {
        lab.inject(&format!("C_GetTokenInfo flags {flag}"));
        let mut operator = super::faults::operator(&lab);
        operator.pin = None;
        let tokens = operator.list("pkcs11:token=lab");
        assert!(tokens[0].flags.contains(&flag.to_owned()));
        assert!(
            tokens[0].warnings[0].contains(expected),
            "{:?}",
            tokens[0].warnings
        );
    }
}
