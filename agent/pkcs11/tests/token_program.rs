//! The token program as the agent runs it: the real binary, on real tokens of SoftHSM.

// clippy.toml allows these in tests, but does not count the helpers of an integration test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

#[path = "token_program/choice.rs"]
mod choice;
#[path = "token_program/faults.rs"]
mod faults;
#[path = "../../token/tests/harness/program.rs"]
mod harness;
#[path = "token_program/operator.rs"]
mod operator;
#[path = "token_program/pins.rs"]
mod pins;
#[path = "token_program/quirks.rs"]
mod quirks;
#[path = "token_program/store.rs"]
mod store;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use harness::*;
use store::*;
use token::link::{
    self, CertificateOnToken, FromToken, KeyReport, OpenKey, OpenPkcs11, Permission, ToToken,
};
use token::{Failures, PinSource, TokenError};

#[test]
fn every_kind_of_key_signs() {
    let store = Store::new();
    let kinds = [
        ("01", "EC -pkeyopt ec_paramgen_curve:P-256", ECDSA),
        ("02", "EC -pkeyopt ec_paramgen_curve:P-384", ECDSA),
        ("03", "EC -pkeyopt ec_paramgen_curve:P-521", ECDSA),
        ("04", "RSA -pkeyopt rsa_keygen_bits:2048", RSA),
        ("05", "RSA -pkeyopt rsa_keygen_bits:3072", RSA),
        ("06", "RSA -pkeyopt rsa_keygen_bits:4096", RSA),
        ("07", "RSA -pkeyopt rsa_keygen_bits:2560", RSA),
    ];
    for (id, kind, _) in kinds {
        store.import(kind, id, &[]);
    }
    let keys = kinds.map(|(id, ..)| format!("pkcs11:token=lab;id=%{id}"));
    let mut program = Program::start(&store);
    for report in program.opened(store.open(&keys)) {
        let report = report.unwrap();
        assert_eq!((report.certificate, report.warnings), (None, vec![]));
    }
    for (key, (id, kind, text)) in kinds.into_iter().enumerate() {
        let signature = program.sign(key, text).unwrap();
        assert!(
            store.verifies(id, text, &signature),
            "{kind}: {signature:02x?}"
        );
        // The other algorithm is not this key's.
        let other = if text == RSA { ECDSA } else { RSA };
        let error = program.sign(key, other).unwrap_err();
        assert!(matches!(error, TokenError::Broken(_)), "{kind}: {error:?}");
    }
    assert!(program.end().success());
}

#[test]
fn sessions_sign_at_the_same_time() {
    let store = Store::new();
    store.import("EC -pkeyopt ec_paramgen_curve:P-256", "01", &[]);
    store.import("EC -pkeyopt ec_paramgen_curve:P-384", "02", &[]);
    let mut program = Program::start(&store);
    let mut open = store.open(&["pkcs11:id=%01", "pkcs11:id=%02"]);
    open.token.sessions = 4;
    assert!(program.opened(open).iter().all(Result::is_ok));
    for id in 0..40 {
        program.ask(id, id as usize % 2, ECDSA);
    }
    let mut answered = Vec::new();
    for _ in 0..40 {
        let FromToken::Signed { id, result } = program.receive() else {
            panic!("not a signature");
        };
        let key = ["01", "02"][id as usize % 2];
        assert!(store.verifies(key, ECDSA, &result.unwrap().0), "{id}");
        answered.push(id);
    }
    answered.sort_unstable();
    assert!(answered.into_iter().eq(0..40));
}

#[test]
fn a_signature_costs_two_calls() {
    let store = Store::new();
    store.generate("EC:prime256v1", "01", "web", &[]);
    store.generate("rsa:2048", "02", "old", &[]);
    let spy = Spy::new(&store);
    let mut program = Program::start_with(&store, &spy.environment);
    let keys = ["pkcs11:token=lab;object=web", "pkcs11:token=lab;object=old"];
    assert!(
        program
            .opened(store.open_in(&spy.module, &keys))
            .iter()
            .all(Result::is_ok)
    );
    let opening = spy.calls();
    assert_eq!(count(&opening, "C_Login"), 1, "{opening:?}");
    assert_eq!(count(&opening, "C_OpenSession"), 2, "{opening:?}");
    eprintln!("opening two keys: {} calls", opening.len());
    for signatures in 1..=5 {
        program.sign(0, ECDSA).unwrap();
        program.sign(1, RSA).unwrap();
        let calls = spy.calls();
        let signing = &calls[opening.len()..];
        assert_eq!(signing.len(), signatures * 4, "{signing:?}");
        assert!(
            signing
                .chunks(2)
                .all(|pair| pair == ["C_SignInit", "C_Sign"]),
            "{signing:?}"
        );
    }
    assert!(program.end().success());
    let calls = spy.calls();
    assert_eq!(count(&calls, "C_CloseSession"), 2, "{calls:?}");
    assert_eq!(calls.last().unwrap(), "C_Finalize");
}

/// SoftHSM's static destructors call OpenSSL, whose own have run by then.
#[test]
fn the_program_ends_in_good_order_every_time() {
    let many_times = || {
        let store = Store::new(); // each thread's own: SoftHSM refuses two logins at a time
        store.generate("EC:prime256v1", "01", "web", &[]);
        for _ in 0..25 {
            let mut program = Program::start(&store);
            let reports = program.opened(store.open(&["pkcs11:token=lab;object=web"]));
            assert!(reports[0].is_ok(), "{reports:?}");
            program.sign(0, ECDSA).unwrap();
            assert_eq!(program.end().code(), Some(0));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(many_times);
        }
    });
}

/// p11-kit-proxy hands out a new instance of itself for each C_GetFunctionList.
#[test]
fn the_default_module_works() {
    let proxy = module("p11-kit-proxy.so", "p11-kit-modules");
    let store = Store::new();
    store.generate("EC:prime256v1", "01", "web", &["--always-auth"]);
    let mut program = Program::start(&store);
    let reports = program.opened(store.open_in(&proxy, &["pkcs11:token=lab;object=web"]));
    assert!(reports[0].is_ok(), "{reports:?}");
    let signature = program.sign(0, ECDSA).unwrap();
    assert!(store.verifies("01", ECDSA, &signature));
    assert!(program.end().success());
}

/// NSS's own token needs no login when its database has no password.
#[test]
fn a_token_without_a_login_signs() {
    let store = Store::new();
    let database = store.nss_database();
    store.file(
        "noise",
        "Any bytes do: the key signs this test's text alone.",
    );
    let key = "-S -n nss -s CN=nss -x -t u,u,u -k ec -q nistp256 -z noise";
    store.certutil(key, &database);
    let (proxy, command) = store.softoken(&database, "flags=readOnly");
    let mut program = Program::spawn(command);
    let mut open = store.open_in(&proxy, &["pkcs11:token=NSS%20Certificate%20DB"]);
    open.token.token = token("pkcs11:token=NSS%20Certificate%20DB");
    open.token.pin = None;
    open.keys[0].certificate = Some(CertificateOnToken::OfTheKey);
    let reports = program.opened(open);
    let certificate = reports[0].as_ref().unwrap().certificate.as_ref();
    fs::write(store.path("nss.der"), &certificate.unwrap().der).unwrap();
    let public = "x509 -inform DER -in nss.der -pubkey -noout -out nss.pem";
    store.run("openssl", "openssl", &public.split(' ').collect::<Vec<_>>());
    let signature = program.sign(0, ECDSA).unwrap();
    assert!(store.verifies("nss", ECDSA, &signature));
}

#[test]
fn a_key_without_a_public_key_object_signs() {
    let store = Store::new();
    let kind = "EC -pkeyopt ec_paramgen_curve:P-256";
    store.import(kind, "0A", &["--no-public-key"]);
    let mut program = Program::start(&store);
    let reports = program.opened(store.open(&["pkcs11:token=lab;id=%0A"]));
    assert!(reports[0].is_ok(), "{reports:?}");
    let signature = program.sign(0, ECDSA).unwrap();
    assert!(store.verifies("0A", ECDSA, &signature));
}

#[test]
fn a_key_that_can_leave_the_token_is_warned_of() {
    let store = Store::new();
    store.generate("EC:prime256v1", "01", "loose", &["--extractable"]);
    let mut program = Program::start(&store);
    let reports = program.opened(store.open(&["pkcs11:object=loose"]));
    let warnings = &reports[0].as_ref().unwrap().warnings;
    assert!(
        warnings[0].contains("can be read out of the token"),
        "{warnings:?}"
    );
    assert_eq!(warnings.len(), 1, "{warnings:?}");
}

#[test]
fn a_module_that_is_absent_is_named() {
    let store = Store::new();
    for (path, remedy) in [
        ("/nowhere/ykcs11-absent.so", "apt install ykcs11"),
        ("/nowhere/opensc-pkcs11.so", "write /usr/"), // it is installed elsewhere
    ] {
        let error = store.refusal(store.open_in(path, &["pkcs11:"]));
        assert!(matches!(error, TokenError::Unusable(_)), "{error:?}");
        assert!(error.to_string().contains(remedy), "{error}");
    }
}

/// SoftHSM does not start without its store's directory.
#[test]
fn a_module_that_does_not_start_is_gone() {
    let store = Store::new();
    let conf = store.file("broken.conf", "directories.tokendir = /nowhere/tokens\n");
    let environment = [("SOFTHSM2_CONF", conf.to_str().unwrap().to_owned())];
    let mut program = Program::start_with(&store, &environment);
    program.ask_to_open(store.open(&["pkcs11:"]));
    let FromToken::Opened(Err(error)) = program.receive() else {
        panic!("opened");
    };
    assert!(matches!(error, TokenError::Gone(_)), "{error:?}");
    assert!(error.to_string().contains("C_Initialize"), "{error}");
}

#[test]
fn nothing_but_a_roles_anywhere_request_is_signed() {
    let store = Store::new();
    store.generate("EC:prime256v1", "01", "web", &[]);
    let spy = Spy::new(&store);
    let mut program = Program::start_with(&store, &spy.environment);
    assert!(program.opened(store.open_in(&spy.module, &["pkcs11:object=web"]))[0].is_ok());
    let others = [
        String::new(),
        ECDSA.replace("rolesanywhere", "s3"),
        ECDSA.replace("X509-ECDSA", "HMAC"),
        format!("{ECDSA}\n"),
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855".to_owned(),
    ];
    for text in others {
        let error = program.sign(0, &text).unwrap_err();
        assert!(matches!(error, TokenError::Broken(_)), "{text}: {error:?}");
    }
    assert_eq!(count(&spy.calls(), "C_SignInit"), 0);
    assert!(program.sign(0, ECDSA).is_ok());
}

/// What the kernel says of a process in a line of its own.
fn status(pid: u32, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap().trim_start_matches(':').trim().to_owned()
}

#[test]
fn it_is_confined_unless_told_otherwise() {
    let store = Store::new();
    store.generate("EC:prime256v1", "01", "web", &[]);
    // A log where modules have no business; pkcs11-spy falls back to standard error.
    let log = format!("/usr/lib/roleseal-test-{}.log", std::process::id());
    for (arguments, seccomp) in [(&[][..], "2"), (&["--unconfined"], "0")] {
        let mut spy = Spy::new(&store);
        let mut command = Command::new(PROGRAM);
        command.args(arguments).env_clear();
        if arguments.is_empty() {
            spy.environment[2].1.clone_from(&log);
        }
        command.envs(spy.environment.clone()).stderr(Stdio::null());
        let mut program = Program::spawn(command);
        let reports = program.opened(store.open_in(&spy.module, &["pkcs11:object=web"]));
        assert!(reports[0].is_ok(), "{reports:?}");
        let signature = program.sign(0, ECDSA).unwrap();
        assert!(store.verifies("01", ECDSA, &signature));
        let pid = program.child.id();
        assert_eq!(status(pid, "Seccomp"), seccomp, "{arguments:?}");
        assert_eq!(status(pid, "NoNewPrivs"), "1");
        assert_eq!(status(pid, "Umask"), "0077");
    }
    let written = fs::exists(&log).unwrap();
    let _ = fs::remove_file(&log);
    assert!(!written, "{log} was written");
}

#[test]
fn by_hand_it_says_what_it_is() {
    for (argument, code) in [
        (Some("--help"), 0),
        (Some("--version"), 0),
        (Some("--other"), 2),
        (Some("--unconfined"), 2),
        (None, 2),
    ] {
        let output = Command::new(PROGRAM)
            .args(argument)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(code), "{argument:?}");
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("for roleseal-agent"), "{text}");
        assert!(text.lines().count() <= 2, "{text}");
    }
}
