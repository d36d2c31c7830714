//! PINs: tried once, and never where they are exposed.

use super::*;

#[test]
fn an_always_authenticate_key_logs_in_for_each_signature() {
    let store = Store::new();
    store.generate("EC:prime256v1", "01", "piv", &["--always-auth"]);
    let spy = Spy::new(&store);
    let mut program = Program::start_with(&store, &spy.environment);
    let reports = program.opened(store.open_in(&spy.module, &["pkcs11:object=piv"]));
    assert!(reports[0].is_ok(), "{reports:?}");
    let opening = spy.calls();
    for _ in 0..2 {
        let signature = program.sign(0, ECDSA).unwrap();
        assert!(store.verifies("01", ECDSA, &signature));
    }
    let calls = spy.calls();
    let once = ["C_SignInit", "C_Login", "C_Sign"];
    assert_eq!(calls[opening.len()..], [once, once].concat());
}

#[test]
fn a_wrong_pin_is_tried_once() {
    let store = Store::new();
    store.generate("EC:prime256v1", "01", "web", &[]);
    let spy = Spy::new(&store);
    let pin = store.file("wrong.pin", "4321\n");
    let mut open = store.open_in(&spy.module, &["pkcs11:object=web", "pkcs11:id=%01"]);
    open.token.sessions = 4;
    open.token.pin = Some(PinSource::File(pin.clone()));
    let mut program = Program::start_with(&store, &spy.environment);
    program.ask_to_open(open);
    permit_try(&mut program);
    let FromToken::Opened(Err(TokenError::PinRejected(text))) = program.receive_any() else {
        panic!("not refused");
    };
    assert!(text.contains("CKR_PIN_INCORRECT"), "{text}");
    assert!(text.contains("pkcs11:token=lab;serial="), "{text}");
    assert!(text.contains(pin.to_str().unwrap()), "{text}");
    assert!(!text.contains("4321"), "{text}");
    assert!(program.end().success());
    assert_eq!(count(&spy.calls(), "C_Login"), 1);

    // SoftHSM remembers: the next login, with the right PIN, says so.
    let reports = Program::start(&store).opened(store.open(&["pkcs11:object=web"]));
    let warnings = &reports[0].as_ref().unwrap().warnings;
    assert!(
        warnings[0].contains("CKF_USER_PIN_COUNT_LOW"),
        "{warnings:?}"
    );
}

/// Plays the agent until the PIN may be tried.
pub(super) fn permit_try(program: &mut Program) {
    let awaiting = program.receive_any();
    assert!(matches!(awaiting, FromToken::AwaitingTurn { .. }));
    program.send(&ToToken::YourTurn);
    let has_pin = program.receive_any();
    let expected = matches!(
        has_pin,
        FromToken::HasPin {
            key: None,
            failures: Failures::Flagged(false),
            at_once: true,
            ..
        }
    );
    assert!(expected, "{has_pin:?}");
    program.send(&ToToken::Pin(Permission::Try));
}

#[test]
fn a_pin_that_the_agent_forbids_is_not_tried() {
    for permission in [
        Permission::Refused,
        Permission::Unanswered,
        Permission::Unrecorded("the disk is full".to_owned()),
        Permission::TooManyRecords("100 records".to_owned()),
    ] {
        let store = Store::new();
        store.generate("EC:prime256v1", "01", "web", &[]);
        let spy = Spy::new(&store);
        let mut program = Program::start_with(&store, &spy.environment);
        program.ask_to_open(store.open_in(&spy.module, &["pkcs11:object=web"]));
        let mut answer = program.receive_any();
        while let FromToken::AwaitingTurn { .. } | FromToken::HasPin { .. } = answer {
            let is_turn = matches!(answer, FromToken::AwaitingTurn { .. });
            program.send(&match is_turn {
                true => ToToken::YourTurn,
                false => ToToken::Pin(permission.clone()),
            });
            answer = program.receive_any();
        }
        let FromToken::Opened(Err(error)) = answer else {
            panic!("{answer:?}")
        };
        match (permission, error) {
            (Permission::Refused | Permission::Unanswered, TokenError::PinRejected(_)) => {}
            (Permission::Unrecorded(why), TokenError::Wait { text, .. })
            | (Permission::TooManyRecords(why), TokenError::Unusable(text)) => {
                assert!(text.contains(&why), "{text}");
            }
            other => panic!("{other:?}"),
        }
        assert!(program.end().success());
        assert_eq!(count(&spy.calls(), "C_Login"), 0);
    }
}

#[test]
fn a_pin_that_is_missing_or_exposed_is_not_used() {
    let store = Store::new();
    let mut open = store.open(&["pkcs11:object=web"]);
    open.token.pin = None;
    let error = store.refusal(open);
    assert!(matches!(error, TokenError::Unusable(_)), "{error:?}");
    assert!(error.to_string().contains("needs a PIN"), "{error}");

    let mut open = store.open(&["pkcs11:object=web"]);
    let pin = store.file("exposed.pin", PIN);
    fs::set_permissions(&pin, Permissions::from_mode(0o644)).unwrap();
    open.token.pin = Some(PinSource::File(pin));
    let error = store.refusal(open);
    assert!(matches!(error, TokenError::Unusable(_)), "{error:?}");
    assert!(error.to_string().contains("chmod 600"), "{error}");
}
