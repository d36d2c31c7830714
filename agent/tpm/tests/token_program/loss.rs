//! A TPM that is lost, reset, cleared or missing, and what a program leaves in it.

use rustix::process::{Pid, Signal, kill_process};

use super::*;

#[test]
fn a_lost_tpm_is_gone_and_comes_back() {
    let mut tpm = Swtpm::start();
    tpm.make_parent("");
    tpm.raise_lockout_limit();
    tpm.make("web", "-G ecc256 -p key-secret");
    let mut web = tpm.file("web");
    web.pin = pin("key-secret");
    let (mut program, _) = Program::open(&tpm, vec![web.clone()]);
    program.sign(0, ECDSA).unwrap();
    tpm.kill();
    let error = program.sign(0, ECDSA).unwrap_err();
    assert!(matches!(error, TokenError::Gone(_)), "{error:?}");
    let mut early = Program::start();
    let error = early.try_open(tpm.tcti(), vec![web.clone()]).unwrap_err();
    let TokenError::Gone(text) = error else {
        panic!("{error:?}")
    };
    assert!(text.contains("start swtpm there"), "{text}");
    tpm.restart();
    let (mut program, reports) = Program::open(&tpm, vec![web]);
    assert!(reports[0].is_ok(), "{reports:?}");
    let signature = program.sign(0, ECDSA).unwrap();
    assert!(tpm.verifies("web", ECDSA, &signature));
    assert!(program.end().success());
}

/// The machine was suspended, or the TPM reset: it lost all that was loaded, though it answers.
#[test]
fn a_reset_tpm_is_gone_and_is_started_again() {
    let tpm = Swtpm::start();
    tpm.make_parent("");
    tpm.raise_lockout_limit();
    for (name, auth) in [("empty", ""), ("auth", "-p key-secret")] {
        tpm.make(name, &format!("-G ecc256 {auth}"));
        let mut key = tpm.file(name);
        key.pin = (name == "auth").then(|| pin("key-secret")).flatten();
        let (mut program, _) = Program::open(&tpm, vec![key.clone()]);
        program.sign(0, ECDSA).unwrap();
        tpm.reset();
        let error = program.sign(0, ECDSA).unwrap_err();
        assert!(matches!(error, TokenError::Gone(_)), "{error:?}");
        assert!(program.end().success());
        let (mut program, reports) = Program::open(&tpm, vec![key]);
        assert!(reports[0].is_ok(), "{reports:?}");
        let signature = program.sign(0, ECDSA).unwrap();
        assert!(tpm.verifies(name, ECDSA, &signature));
        assert!(program.end().success());
    }
}

#[test]
fn nothing_stays_in_the_tpm() {
    let tpm = Swtpm::start();
    tpm.make_parent("");
    tpm.make("web", "-G ecc256 -p key-secret");
    tpm.make_with_policy("pcr", "", &[tpm.policy_pcr(&[7])]);
    let mut web = tpm.file("web");
    web.pin = pin("key-secret");
    let keys = vec![web, tpm.file("pcr")];

    let (mut program, _) = Program::open(&tpm, keys.clone());
    program.sign(0, ECDSA).unwrap();
    program.sign(1, ECDSA).unwrap();
    assert!(program.end().success());
    assert_eq!(tpm.handles(), "");

    let (mut program, _) = Program::open(&tpm, keys);
    program.sign(0, ECDSA).unwrap();
    kill_process(Pid::from_child(&program.child), Signal::TERM).unwrap();
    assert!(program.child.wait().unwrap().success());
    assert_eq!(tpm.handles(), "");
}

#[test]
fn what_is_missing_is_gone_with_a_remedy() {
    for (tcti, expected) in [
        ("device:/dev/no-such-tpm", "/dev/no-such-tpm is not there"),
        ("tabrmd:", "libtss2-tcti-tabrmd0"),
        ("mssim:port=1", "start the simulator"),
    ] {
        let mut program = Program::start();
        let error = program.try_open(tcti.parse().unwrap(), vec![]).unwrap_err();
        let TokenError::Gone(text) = error else {
            panic!("{error:?}")
        };
        assert!(text.contains(expected), "{text}");
    }
}

/// PARENT is where make_parent puts it.
#[test]
fn a_cleared_tpm_says_so() {
    let tpm = Swtpm::start();
    tpm.make_parent("");
    tpm.make("web", "-G ecc256");
    tpm.tool("tpm2_clear -c p");
    let (program, reports) = Program::open(&tpm, vec![tpm.file("web")]);
    let text = unusable(&reports[0]);
    assert!(
        text.contains(&format!("no key at handle {PARENT}")),
        "{text}"
    );
    assert!(program.end().success());
}

/// Without a resource manager nobody else flushes what a killed program had loaded.
#[test]
fn a_program_that_is_killed_again_and_again_does_not_fill_the_tpm() {
    let tpm = Swtpm::start();
    tpm.make_parent("");
    tpm.make("web", "-G ecc256");
    tpm.fill(1);
    let others = tpm.handles();
    for _ in 0..5 {
        let (mut program, reports) = Program::open(&tpm, vec![tpm.file("web")]);
        assert!(reports[0].is_ok(), "{reports:?}");
        program.sign(0, ECDSA).unwrap();
        program.child.kill().unwrap();
        program.child.wait().unwrap();
    }
    let (program, reports) = Program::open(&tpm, vec![tpm.file("web")]);
    assert!(reports[0].is_ok(), "{reports:?}");
    assert!(program.end().success());
    assert_eq!(tpm.handles(), others);
}
