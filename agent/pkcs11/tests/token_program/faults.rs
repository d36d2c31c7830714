//! What modules do that SoftHSM does not: the faulty module stands before it.

use std::os::unix::process::ExitStatusExt;

use super::pins::permit_try;
use super::*;

#[test]
fn a_key_that_may_not_sign_is_said_to_be_so() {
    let lab = Lab::new();
    lab.inject("C_GetAttributeValue attribute CKA_SIGN 00");
    let mut program = lab.program();
    let reports = program.opened(lab.open());
    let text = unusable(&reports[0]);
    assert!(text.contains("CKA_SIGN is false"), "{text}");
    assert!(program.end().success());
    assert_eq!(lab.count("C_SignInit"), 0);
}

#[test]
fn no_login_is_made_where_the_token_could_lock() {
    for (flag, expected) in [
        ("CKF_USER_PIN_LOCKED", "is locked"),
        ("CKF_USER_PIN_FINAL_TRY", "one more try"),
    ] {
        let lab = Lab::new();
        lab.inject(&format!("C_GetTokenInfo flags {flag}"));
        let mut program = lab.program();
        let error = refused(&mut program, lab.open());
        assert!(matches!(error, TokenError::PinRejected(_)), "{error:?}");
        for part in [expected, flag, "lab.pin"] {
            assert!(error.to_string().contains(part), "{error}");
        }
        assert_eq!(lab.count("C_Login"), 0);
    }
}

#[test]
fn whatever_a_login_returns_is_a_refusal_unless_it_cannot_be_the_pin() {
    let lab = Lab::new();
    for code in [
        "CKR_PIN_INCORRECT",
        "CKR_PIN_INVALID",
        "CKR_PIN_LEN_RANGE",
        "CKR_PIN_EXPIRED",
        "CKR_PIN_LOCKED",
        "CKR_FUNCTION_FAILED",
        "CKR_DEVICE_ERROR",
        "0x80000042",
    ] {
        let before = lab.count("C_Login");
        lab.inject(&format!("C_Login return {code}"));
        let mut program = lab.program();
        program.ask_to_open(lab.open());
        // The agent permits the try before it is made.
        permit_try(&mut program);
        let answer = program.receive_any();
        let FromToken::Opened(Err(TokenError::PinRejected(text))) = answer else {
            panic!("{code}: {answer:?}");
        };
        let named = code.replace("0x80000042", "CKR_VENDOR_DEFINED + 0x42");
        assert!(text.contains(&named), "{text}");
        assert!(program.end().success());
        assert_eq!(lab.count("C_Login"), before + 1, "{code}");
    }
    for code in [
        "CKR_TOKEN_NOT_PRESENT",
        "CKR_DEVICE_REMOVED",
        "CKR_SESSION_HANDLE_INVALID",
        "CKR_SESSION_CLOSED",
        "CKR_HOST_MEMORY",
        "CKR_SESSION_COUNT",
        "CKR_USER_ANOTHER_ALREADY_LOGGED_IN",
        "CKR_GENERAL_ERROR", // from SoftHSM alone
    ] {
        lab.inject(&format!("C_Login return {code}"));
        let error = refused(&mut lab.program(), lab.open());
        assert!(matches!(error, TokenError::Gone(_)), "{code}: {error:?}");
        assert!(error.to_string().contains(code), "{error}");
    }
}

#[test]
fn a_pin_that_a_signature_finds_refused_is_not_tried_by_another() {
    let lab = Lab::with_key(&["--always-auth"]);
    // The token takes it when it is opened.
    lab.inject("C_Login return CKR_PIN_INCORRECT after 1");
    let mut program = lab.program();
    assert!(program.opened(lab.open())[0].is_ok());
    for _ in 0..4 {
        let error = program.sign(0, ECDSA).unwrap_err();
        assert!(matches!(error, TokenError::PinRejected(_)), "{error:?}");
    }
    assert_eq!(lab.count("C_Login"), 2);
}

#[test]
fn fewer_sessions_than_asked_for_sign_with_a_warning() {
    let lab = Lab::new();
    lab.inject("C_OpenSession limit 2");
    let mut program = lab.program();
    let mut open = lab.open();
    open.token.sessions = 4;
    let reports = program.opened(open);
    let warnings = &reports[0].as_ref().unwrap().warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    for part in ["2 of 4 sessions", "CKR_SESSION_COUNT", "sessions = 2"] {
        assert!(warnings[0].contains(part), "{warnings:?}");
    }
    for _ in 0..4 {
        lab.signs(&mut program);
    }
    assert_eq!(lab.count("C_OpenSession"), 3);
    assert!(program.end().success());

    // Somebody else has them all: that passes.
    lab.inject("C_OpenSession limit 0");
    let error = refused(&mut lab.program(), lab.open());
    assert!(matches!(error, TokenError::Gone(_)), "{error:?}");
}

#[test]
fn a_signature_that_is_longer_than_its_place_is_an_error() {
    let lab = Lab::new();
    let mut program = lab.program();
    assert!(program.opened(lab.open())[0].is_ok());
    lab.inject("C_Sign overlong");
    let error = program.sign(0, ECDSA).unwrap_err();
    assert!(matches!(error, TokenError::Broken(_)), "{error:?}");
    assert!(
        error.to_string().contains("CKR_BUFFER_TOO_SMALL"),
        "{error}"
    );
    lab.inject("");
    lab.signs(&mut program);
}

#[test]
fn a_signature_that_fails_says_by_which_code() {
    let lab = Lab::new();
    let mut program = lab.program();
    assert!(program.opened(lab.open())[0].is_ok());
    for function in ["C_SignInit", "C_Sign"] {
        for code in [
            "CKR_DEVICE_REMOVED",
            "CKR_DEVICE_ERROR",
            "CKR_SESSION_HANDLE_INVALID",
            "CKR_SESSION_CLOSED",
            "CKR_OBJECT_HANDLE_INVALID",
            "CKR_KEY_HANDLE_INVALID",
            "CKR_USER_NOT_LOGGED_IN",
            "CKR_TOKEN_NOT_PRESENT",
            "CKR_HOST_MEMORY",
            "CKR_FUNCTION_FAILED",
            "CKR_GENERAL_ERROR",
            "0x80000042",
        ] {
            lab.inject(&format!("{function} return {code} times 1"));
            let error = program.sign(0, ECDSA).unwrap_err();
            assert!(matches!(error, TokenError::Gone(_)), "{code}: {error:?}");
            let named = code.replace("0x80000042", "CKR_VENDOR_DEFINED + 0x42");
            let expected = format!("{function} returned {named}");
            assert!(error.to_string().contains(&expected), "{error}");
        }
        // Another session would be refused as well.
        lab.inject(&format!("{function} return CKR_FUNCTION_REJECTED times 1"));
        let error = program.sign(0, ECDSA).unwrap_err();
        assert!(matches!(error, TokenError::Unusable(_)), "{error:?}");
    }
    lab.signs(&mut program);
}

#[test]
fn a_token_that_was_away_is_gone_for_the_sessions_of_before() {
    let lab = Lab::new();
    let mut program = lab.program();
    assert!(program.opened(lab.open())[0].is_ok());
    lab.inject("token absent CKR_TOKEN_NOT_PRESENT");
    let error = program.sign(0, ECDSA).unwrap_err();
    assert!(error.to_string().contains("CKR_TOKEN_NOT_PRESENT"));
    let error = refused(&mut lab.program(), lab.open());
    assert!(matches!(error, TokenError::Gone(_)), "{error:?}");
    assert!(error.to_string().contains("shows no token"), "{error}");

    // Its label finds it, wherever it is. What was opened before is not.
    lab.inject("token back shift 1000");
    let error = program.sign(0, ECDSA).unwrap_err();
    assert!(matches!(error, TokenError::Gone(_)), "{error:?}");
    assert!(error.to_string().contains("CKR_SESSION_HANDLE_INVALID"));
    let mut program = lab.program();
    assert!(program.opened(lab.open())[0].is_ok());
    lab.signs(&mut program);
}

#[test]
fn a_module_that_crashes_takes_its_program_along() {
    let lab = Lab::new();
    for (fault, signal) in [("C_Sign segfault", 11), ("C_SignInit abort", 6)] {
        lab.inject("");
        let mut program = lab.program();
        assert!(program.opened(lab.open())[0].is_ok());
        lab.inject(fault);
        program.ask(7, 0, ECDSA);
        let heard: std::io::Result<Option<FromToken>> = link::receive(program.link());
        assert!(!matches!(heard, Ok(Some(_))), "{fault}: {heard:?}");
        assert_eq!(program.end().signal(), Some(signal), "{fault}");
    }
}

/// They free what other libraries' destructors have freed before: SoftHSM's after OpenSSL's.
#[test]
fn destructors_of_a_module_do_not_run() {
    let lab = Lab::new();
    let mut program = lab.program();
    assert!(program.opened(lab.open())[0].is_ok());
    lab.signs(&mut program);
    lab.inject("destructor abort");
    assert_eq!(program.end().code(), Some(0));
    assert_eq!(lab.count("C_Finalize"), 1);
}

/// It may hang when it is closed, too.
#[test]
fn a_module_that_hangs_does_not_keep_its_program_alive() {
    let lab = Lab::new();
    for fault in [
        "C_Sign hang",
        "C_CloseSession hang",
        "C_Finalize hang forever",
    ] {
        lab.inject("");
        let mut program = lab.program();
        assert!(program.opened(lab.open())[0].is_ok());
        lab.inject(fault);
        program.ask(7, 0, ECDSA);
        assert_eq!(program.end().signal(), Some(9), "{fault}");
    }
}

/// A store with the key `web`, and the faulty module before SoftHSM.
pub(super) struct Lab {
    pub(super) store: Store,
    pub(super) module: PathBuf,
    number: std::cell::Cell<u64>,
}

impl Lab {
    pub(super) fn new() -> Lab {
        Lab::with_key(&[])
    }

    pub(super) fn with_key(more: &[&str]) -> Lab {
        let store = Store::new();
        store.generate("EC:prime256v1", "01", "web", more);
        // Cargo builds it for this test, and puts it beside it.
        let own = std::env::current_exe().unwrap();
        Lab {
            store,
            module: own.with_file_name("libroleseal_faulty_module.so"),
            number: std::cell::Cell::new(0),
        }
    }

    /// The one fault from now on, or none.
    pub(super) fn inject(&self, fault: &str) {
        let faults = match fault {
            "" => &[][..],
            fault => &[fault.to_owned()],
        };
        self.inject_all(faults);
    }

    /// These faults from now on.
    pub(super) fn inject_all(&self, faults: &[String]) {
        let mut text = String::new();
        for fault in faults {
            self.number.set(self.number.get() + 1);
            text += &format!("{} {fault}\n", self.number.get());
        }
        let new = self.store.file("faults.new", &text);
        fs::rename(new, self.store.path("faults")).unwrap();
    }

    pub(super) fn open(&self) -> OpenPkcs11 {
        let module = self.module.to_str().unwrap();
        self.store.open_in(module, &["pkcs11:object=web"])
    }

    pub(super) fn program(&self) -> Program {
        Program::start_with(&self.store, &self.environment())
    }

    pub(super) fn environment(&self) -> [(&'static str, String); 4] {
        let path = |name| self.store.path(name).to_str().unwrap().to_owned();
        [
            ("SOFTHSM2_CONF", self.store.conf()),
            (roleseal_faulty_module::TARGET, SOFTHSM.to_owned()),
            (roleseal_faulty_module::CONTROL, path("faults")),
            (roleseal_faulty_module::CALLS, path("calls")),
        ]
    }

    pub(super) fn signs(&self, program: &mut Program) {
        let signature = program.sign(0, ECDSA).unwrap();
        assert!(self.store.verifies("01", ECDSA, &signature));
    }

    pub(super) fn count(&self, function: &str) -> usize {
        let calls = fs::read_to_string(self.store.path("calls")).unwrap_or_default();
        let names = calls.lines().filter_map(|line| line.split(' ').nth(1));
        names.filter(|name| *name == function).count()
    }
}

/// Why the token as a whole cannot be opened.
pub(super) fn refused(program: &mut Program, open: OpenPkcs11) -> TokenError {
    program.ask_to_open(open);
    match program.receive() {
        FromToken::Opened(Err(error)) => error,
        other => panic!("not refused: {other:?}"),
    }
}
