use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

const READY: CK_FLAGS = CKF_TOKEN_INITIALIZED | CKF_USER_PIN_INITIALIZED;

fn file() -> PinSource {
    PinSource::File("/etc/lab.pin".into())
}

fn with_pin(flags: CK_FLAGS) -> Result<bool, TokenError> {
    let source = file();
    source_for(&Token::with_flags(flags), Some(&source), User::Agent).map(|source| source.is_some())
}

fn without_pin(flags: CK_FLAGS) -> Result<bool, TokenError> {
    source_for(&Token::with_flags(flags), None, User::Agent).map(|source| source.is_some())
}

#[test]
fn a_login_is_made_where_it_is_asked_for() {
    assert_eq!(with_pin(READY), Ok(true));
    assert_eq!(with_pin(READY | CKF_LOGIN_REQUIRED), Ok(true));
    assert_eq!(with_pin(READY | CKF_USER_PIN_COUNT_LOW), Ok(true));
    assert_eq!(
        with_pin(CKF_TOKEN_INITIALIZED | CKF_LOGIN_REQUIRED),
        Ok(true)
    );
    assert_eq!(
        with_pin(READY | CKF_PROTECTED_AUTHENTICATION_PATH),
        Ok(true)
    );
    assert_eq!(without_pin(READY), Ok(false));
    assert_eq!(
        without_pin(READY | CKF_PROTECTED_AUTHENTICATION_PATH),
        Ok(false)
    );
}

#[test]
fn a_missing_pin_is_the_configurations_fault() {
    for (flags, expected) in [
        (READY | CKF_LOGIN_REQUIRED, "set pin = { file = "),
        (
            READY | CKF_LOGIN_REQUIRED | CKF_PROTECTED_AUTHENTICATION_PATH,
            "PIN pad",
        ),
    ] {
        let error = without_pin(flags).unwrap_err();
        assert!(matches!(error, TokenError::Unusable(_)));
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn a_token_that_could_lock_is_left_alone() {
    for (flag, expected) in [
        (CKF_USER_PIN_LOCKED, "is locked"),
        (CKF_USER_PIN_FINAL_TRY, "one more try"),
    ] {
        let error = with_pin(READY | CKF_LOGIN_REQUIRED | flag).unwrap_err();
        assert!(matches!(error, TokenError::PinRejected(_)));
        assert!(error.to_string().contains(expected), "{error}");
        assert!(error.to_string().contains("/etc/lab.pin"), "{error}");
    }
}

#[test]
fn a_refused_pin_is_told_with_its_remedy() {
    let refused = |code, source| {
        let function = "C_Login";
        let remedy = User::Agent.put_right(&source);
        refusal(
            Failure { function, code },
            "pkcs11:token=lab",
            &remedy,
            false,
        )
    };
    for code in [
        CKR_PIN_INCORRECT,
        CKR_PIN_LOCKED,
        CKR_GENERAL_ERROR,
        CKR_VENDOR_DEFINED + 3,
    ] {
        let error = refused(code, file());
        assert!(matches!(error, TokenError::PinRejected(_)), "{error}");
        for part in ["token=lab", "C_Login", "tried once", "/etc/lab.pin"] {
            assert!(error.to_string().contains(part), "{error}");
        }
    }
    let error = refused(
        CKR_PIN_INCORRECT,
        PinSource::Value("7531".to_owned().into()),
    );
    assert!(error.to_string().contains("pin-value"), "{error}");
    assert!(!error.to_string().contains("7531"), "{error}");
    let error = refused(CKR_PIN_EXPIRED, PinSource::Credential("lab".to_owned()));
    assert!(error.to_string().contains("credential \"lab\""), "{error}");
    for code in [
        CKR_DEVICE_REMOVED,
        CKR_SESSION_COUNT,
        CKR_USER_ANOTHER_ALREADY_LOGGED_IN,
        CKR_USER_TOO_MANY_TYPES,
        CKR_SESSION_READ_ONLY_EXISTS,
    ] {
        assert!(matches!(refused(code, file()), TokenError::Gone(_)));
    }
    let error = refused(CKR_USER_TYPE_INVALID, file());
    assert!(matches!(error, TokenError::Unusable(_)), "{error}");
    let error = refused(CKR_USER_PIN_NOT_INITIALIZED, file());
    assert!(matches!(error, TokenError::Unusable(_)), "{error}");
    assert!(error.to_string().contains("no user PIN yet"), "{error}");
    // What modules say for want of a better code may have been a try.
    for code in [
        CKR_GENERAL_ERROR,
        CKR_FUNCTION_FAILED,
        CKR_DEVICE_ERROR,
        CKR_ARGUMENTS_BAD,
    ] {
        assert!(matches!(refused(code, file()), TokenError::PinRejected(_)));
    }
}

#[test]
fn a_pin_that_one_worker_finds_refused_is_tried_by_no_other() {
    let login = ContextLogin {
        pin: Pin::from("1234".to_owned()),
        remedy: User::Operator.put_right(&file()),
        user: User::Operator,
        token: "pkcs11:token=lab".to_owned(),
        is_softhsm: false,
        refused: RwLock::new(None),
    };
    let function = "C_Login";
    let tried = AtomicUsize::new(0);
    let answer = |code| {
        let mut signature = login.alone()?;
        tried.fetch_add(1, Ordering::SeqCst);
        signature.latch(
            "pkcs11:object=piv",
            accepted(Err(Failure { function, code })),
        )
    };
    assert_eq!(answer(CKR_USER_ALREADY_LOGGED_IN), Ok(()));
    assert!(matches!(
        answer(CKR_DEVICE_REMOVED),
        Err(TokenError::Gone(_))
    ));
    tried.store(0, Ordering::SeqCst);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let error = answer(CKR_PIN_INCORRECT).unwrap_err();
                assert!(matches!(error, TokenError::PinRejected(_)));
                assert!(
                    error
                        .to_string()
                        .contains("/etc/lab.pin and start the command again")
                );
            });
        }
    });
    assert_eq!(tried.load(Ordering::SeqCst), 1);
    assert!(login.alone().is_err());
}
