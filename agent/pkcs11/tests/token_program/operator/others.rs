//! Beside other processes at the same token.

use crate::pins::permit_try;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};

use super::super::faults::Lab;
use super::*;

const KEY: &str = "pkcs11:token=lab;object=web";

fn key() -> Task {
    Task::Key { key: uri(KEY) }
}

/// The directory of the one token.
fn token_directory(lab: &Lab) -> PathBuf {
    let mut entries = fs::read_dir(lab.store.path("tokens")).unwrap();
    entries.next().unwrap().unwrap().path()
}

fn is_locked(lab: &Lab) -> bool {
    let directory = fs::File::open(token_directory(lab)).unwrap();
    flock(&directory, FlockOperation::NonBlockingLockExclusive).is_err()
}

fn until_called(lab: &Lab, function: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while lab.count(function) == 0 {
        assert!(Instant::now() < deadline, "{function}");
        std::thread::yield_now();
    }
}

#[test]
fn the_token_is_locked_while_it_is_read_and_logged_in_to() {
    for function in ["C_Initialize", "C_GetTokenInfo", "C_Login"] {
        let lab = Lab::new();
        lab.inject(&format!("{function} hang"));
        let mut operator = super::faults::operator(&lab);
        operator.send(key());
        until_called(&lab, function);
        assert!(is_locked(&lab), "{function}");
        lab.inject("");
        assert!(matches!(operator.receive(), Ok(Some(Ok(Answer::Key(_))))));
        assert!(!is_locked(&lab), "{function}");
    }
    // By the agent's program, too.
    let lab = Lab::new();
    lab.inject("C_Login hang");
    let mut program = lab.program();
    program.send_open(link::Open::Pkcs11(Box::new(lab.open())));
    permit_try(&mut program);
    until_called(&lab, "C_Login");
    assert!(is_locked(&lab));
    lab.inject("");
    assert!(matches!(program.receive(), FromToken::Opened(Ok(_))));
    assert!(!is_locked(&lab));
}

/// SoftHSM shows an empty token for a moment while another process logs in.
#[test]
fn a_token_that_another_process_logs_in_to_is_looked_for_again() {
    let lab = Lab::new();
    for fault in [
        "C_Login return CKR_GENERAL_ERROR times 5",
        "C_Login return CKR_USER_PIN_NOT_INITIALIZED times 5",
        "C_GetTokenInfo return CKR_GENERAL_ERROR times 20",
        "C_OpenSession return CKR_TOKEN_NOT_RECOGNIZED times 5",
    ] {
        lab.inject(fault);
        assert_eq!(
            super::faults::operator(&lab).key(KEY).uri.to_string(),
            KEY,
            "{fault}"
        );
    }
    lab.inject("C_GetTokenInfo return CKR_GENERAL_ERROR times 20");
    assert_eq!(
        super::faults::operator(&lab).list("pkcs11:token=lab")[0]
            .keys
            .len(),
        1
    );
}

#[test]
fn what_is_not_there_is_looked_for_once() {
    let lab = Lab::new();
    let mut operator = super::faults::operator(&lab);
    let key = uri("pkcs11:token=elsewhere;object=web");
    operator.refusal(Task::Key { key });
    lab.inject("C_GetTokenInfo no-flags CKF_USER_PIN_INITIALIZED");
    let calls = lab.count("C_Login");
    lab.inject_all(&[
        "C_GetTokenInfo no-flags CKF_USER_PIN_INITIALIZED".to_owned(),
        "C_Login return CKR_USER_PIN_NOT_INITIALIZED".to_owned(),
    ]);
    let error = operator.ask(self::key());
    assert!(matches!(error, Err(TokenError::Unusable(_))), "{error:?}");
    assert_eq!(lab.count("C_Login"), calls + 1);
    assert_eq!(lab.count("C_Initialize"), 1);
}

#[test]
fn many_commands_at_once_all_find_their_key() {
    let store = Store::new();
    store.generate("EC:prime256v1", "01", "web", &[]);
    let mut operators: Vec<Operator> = (0..30).map(|_| Operator::new(&store)).collect();
    for operator in &mut operators {
        operator.send(key());
    }
    for operator in &mut operators {
        let answer = operator.receive();
        assert!(matches!(answer, Ok(Some(Ok(Answer::Key(_))))), "{answer:?}");
    }
}

/// A process that ends while SoftHSM writes its token anew takes all keys with it.
#[test]
fn a_signal_does_not_break_off_a_login() {
    let lab = Lab::new();
    let token = token_directory(&lab);
    let written = || {
        fs::metadata(token.join("token.object"))
            .unwrap()
            .modified()
            .unwrap()
    };
    lab.inject("C_Login hang");
    for signal in [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT] {
        let before = written();
        let calls = lab.count("C_Login");
        let mut operator = super::faults::operator(&lab);
        operator.send(key());
        while lab.count("C_Login") == calls {
            std::thread::yield_now();
        }
        kill_process(Pid::from_child(&operator.program.child), signal).unwrap();
        lab.inject("");
        let status = operator.program.child.wait().unwrap();
        assert_eq!(status.signal(), Some(signal.as_raw()));
        assert_ne!(written(), before, "{signal:?}");
        lab.inject("C_Login hang");
    }
    lab.inject("");
    super::faults::operator(&lab).key(KEY);
}
