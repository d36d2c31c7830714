//! PINs: one login a link, and one try.

use super::*;

#[test]
fn a_link_logs_in_once() {
    let store = Store::new();
    let spy = Spy::new(&store);
    let mut operator = Operator::with(&store, &spy.module, &spy.environment);
    let report = operator.generate("pkcs11:token=lab;object=web", KeyType::EcP256);
    operator.request(&report, "web");
    // The PIN is not even read again.
    fs::remove_file(store.path("lab.pin")).unwrap();
    operator.key("pkcs11:object=web");
    operator.pin = None;
    assert!(operator.list("pkcs11:token=lab")[0].logged_in);
    assert_eq!(operator.delete(&report.uri).len(), 2);
    assert!(operator.program.end().success());
    let calls = spy.calls();
    assert_eq!(count(&calls, "C_Login"), 1, "{calls:?}");
    assert_eq!(count(&calls, "C_Initialize"), 1);
    assert_eq!(
        count(&calls, "C_OpenSession"),
        count(&calls, "C_CloseSession")
    );
    assert_eq!(calls.last().unwrap(), "C_Finalize");
}

#[test]
fn a_wrong_pin_is_tried_once_whatever_the_tasks() {
    let store = Store::new();
    store.generate("EC:prime256v1", "01", "web", &[]);
    let spy = Spy::new(&store);
    let mut operator = Operator::with(&store, &spy.module, &spy.environment);
    let key = uri("pkcs11:token=lab;object=web");
    let deletion = Operator::new(&store).deletion(&key);
    let right = operator.pin.take();
    let wrong = store.file("wrong.pin", "4321\n");
    operator.pin = Some(PinSource::File(wrong));
    let tasks = [
        Task::List {
            token: uri("pkcs11:token=lab"),
        },
        Task::Key { key },
        generate("pkcs11:token=lab;object=new", KeyType::EcP256),
        deletion,
    ];
    for task in tasks.clone().into_iter().chain(tasks) {
        let error = operator.ask(task).unwrap_err();
        assert!(matches!(error, TokenError::PinRejected(_)), "{error:?}");
        let text = error.to_string();
        assert!(
            text.contains("CKR_PIN_INCORRECT") && !text.contains("4321"),
            "{text}"
        );
        assert!(text.contains("start the command again"), "{text}");
    }
    // Nor another one: whoever changes their mind starts again.
    operator.pin = right;
    assert!(
        operator
            .ask(Task::List {
                token: uri("pkcs11:token=lab")
            })
            .is_err()
    );
    assert_eq!(count(&spy.calls(), "C_Login"), 1);
}

#[test]
fn no_pin_is_tried_where_the_token_could_lock() {
    let lab = super::super::faults::Lab::new();
    for (flag, expected) in [
        ("CKF_USER_PIN_LOCKED", "is locked"),
        ("CKF_USER_PIN_FINAL_TRY", "one more try"),
    ] {
        lab.inject(&format!("C_GetTokenInfo flags {flag}"));
        let mut operator = super::faults::operator(&lab);
        let text = operator.refusal(generate("pkcs11:token=lab;object=new", KeyType::EcP256));
        assert!(text.contains(expected), "{text}");
    }
    assert_eq!(lab.count("C_Login"), 0);
}

/// A key that asks for the PIN each time gets it; a wrong one once.
#[test]
fn a_signature_that_needs_the_pin_tries_it_once() {
    let lab = super::super::faults::Lab::with_key(&["--always-auth"]);
    let mut operator = super::faults::operator(&lab);
    let report = operator.key("pkcs11:token=lab;object=web");
    assert_eq!(report.attributes.always_authenticate, Some(true));
    operator.request(&report, "web");
    operator.request(&report, "web");
    assert_eq!(lab.count("C_Login"), 3);
    lab.inject("C_Login return CKR_PIN_INCORRECT");
    for _ in 0..3 {
        let error = operator.ask(Task::SignRequest {
            key: report.uri.clone(),
            info: Der(request_info(report.public_key.as_ref().unwrap(), "web")),
        });
        assert!(
            matches!(error, Err(TokenError::PinRejected(_))),
            "{error:?}"
        );
    }
    assert_eq!(lab.count("C_Login"), 4);
}
