//! The agent's worker with this program and a TPM: what recovers by itself, and what must not.

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use config::certificate::{CertificateSource, LeafSource};
use roleseal_agent::launcher::Launcher;
use roleseal_agent::token_worker::{
    Caller, KeyOwner, KeyState, NotSigned, PinTries, Predecessors, TokenWorker,
};
use token::link::{Open, OpenTpm, OpenTpmKey};
use token::{StringToSign, Tcti, TokenError};

use crate::harness::ECDSA;
use crate::program::{PROGRAM, pin};
use crate::swtpm::Swtpm;

/// A CreateSession call has as long.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) fn start(tpm: &Swtpm, keys: &[(&str, OpenTpmKey)]) -> TokenWorker {
    start_by(tpm, tpm.tcti(), keys)
}

/// By another way to this TPM.
pub(crate) fn start_by(tpm: &Swtpm, tcti: Tcti, keys: &[(&str, OpenTpmKey)]) -> TokenWorker {
    let owner = |(name, _): &(&str, OpenTpmKey)| {
        tpm.make_certificate(name);
        KeyOwner {
            identity: (*name).to_owned(),
            certificate: CertificateSource {
                leaf: LeafSource::File(tpm.path(&format!("{name}.crt"))),
                chain: None,
            },
        }
    };
    let owners = keys.iter().map(owner).collect();
    let open = Open::Tpm(OpenTpm {
        tcti,
        keys: keys.iter().map(|(_, key)| Some(key.clone())).collect(),
        left_sessions: vec![],
    });
    let programs = Path::new(PROGRAM).parent().unwrap();
    let launcher = Launcher::in_thread(programs.to_owned()).unwrap();
    let programs = launcher.token_programs(true);
    let heritage = Predecessors {
        ends: Vec::new(),
        pin_tries: PinTries::in_memory().unwrap(),
    };
    TokenWorker::start(programs, open, owners, heritage).unwrap()
}

pub(crate) fn settled(worker: &TokenWorker, key: usize) -> KeyState {
    worker.settled_state(key, Instant::now() + DEADLINE)
}

/// Waits until the key signs.
pub(crate) fn wait_until_ready(worker: &TokenWorker, key: usize) {
    let deadline = Instant::now() + DEADLINE;
    while worker.state(key).certificate().is_none() {
        assert!(Instant::now() < deadline, "{:?}", worker.state(key));
        thread::yield_now();
    }
}

pub(crate) fn sign(worker: &TokenWorker, key: usize) -> Result<(), NotSigned> {
    let KeyState::Ready { certificate, .. } = settled(worker, key) else {
        panic!("{:?}", worker.state(key));
    };
    let text: StringToSign = ECDSA.parse().unwrap();
    let signature = worker.sign(key, &text, Caller::user(0), Instant::now() + DEADLINE)?;
    assert!(certificate.verifies(ECDSA, &signature));
    Ok(())
}

pub(crate) fn with_pin(tpm: &Swtpm, name: &str, value: &str) -> OpenTpmKey {
    let mut key = tpm.file(name);
    key.pin = pin(value);
    key
}

pub(crate) fn close(worker: &TokenWorker) {
    worker.close();
    worker.end().wait(Instant::now() + DEADLINE);
}

/// Each of 100 clients asks for the key with the wrong auth value, then the TPM is lost and comes back: one
/// failed authorization, and the other key signs all along.
#[test]
fn a_refused_pin_closes_its_key_alone_and_for_good() {
    let mut tpm = Swtpm::start();
    tpm.make_parent("");
    tpm.raise_lockout_limit();
    // Not counted for the lockout, so that the TPM asks for no retry.
    let attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign|noda";
    tpm.make("right", &format!("-G ecc256:null:null -a {attributes}"));
    tpm.make("wrong", "-G ecc256 -p key-secret");
    let keys = [
        ("right", tpm.file("right")),
        ("wrong", with_pin(&tpm, "wrong", "guess")),
    ];
    let worker = Arc::new(start(&tpm, &keys));
    let KeyState::Failed {
        error: TokenError::PinRejected(_),
        retry_at: None,
    } = settled(&worker, 1)
    else {
        panic!("{:?}", worker.state(1));
    };
    let text: StringToSign = ECDSA.parse().unwrap();
    let clients: Vec<_> = (0..100)
        .map(|_| {
            let (worker, text) = (Arc::clone(&worker), text.clone());
            thread::spawn(move || worker.sign(1, &text, Caller::user(0), Instant::now() + DEADLINE))
        })
        .collect();
    sign(&worker, 0).unwrap();
    for client in clients {
        let result = client.join().unwrap();
        let rejected = matches!(&result, Err(NotSigned::Token(TokenError::PinRejected(_))));
        assert!(rejected, "{result:?}");
    }
    assert_eq!(tpm.lockout_counter(), 1);
    let before = tpm.signatures();
    tpm.restart();
    sign(&worker, 0).unwrap();
    assert!(matches!(
        worker.state(1),
        KeyState::Failed {
            error: TokenError::PinRejected(_),
            ..
        }
    ));
    // What was lost, the new proof and the signature: the wrong key's program did not begin to try it.
    assert_eq!(tpm.signatures(), before + 3);
    close(&worker);
    assert_eq!(tpm.handles(), "");
}

/// Other programs fill the TPM, so that it opens again and again: the refused PIN is not tried each time.
#[test]
fn a_refused_pin_is_remembered_while_nothing_opens() {
    let tpm = Swtpm::start();
    tpm.make_counting_parent("parent-secret");
    tpm.make("wrong", "-G ecc256 -P parent-secret");
    tpm.make("right", "-G ecc256 -P parent-secret");
    let mut wrong = tpm.file("wrong");
    wrong.parent_pin = pin("guess");
    let mut right = tpm.file("right");
    right.parent_pin = pin("parent-secret");
    // Leaves room for the parent, and none for a key under it.
    tpm.fill(2);
    let worker = start(&tpm, &[("wrong", wrong), ("right", right)]);
    for _ in 0..2 {
        let deadline = Instant::now() + DEADLINE;
        let opened = tpm.commands().len();
        let gone = |state: &KeyState| {
            matches!(state, KeyState::Failed { error: TokenError::Gone(text), .. }
                if text.contains("TPM_RC_OBJECT_MEMORY"))
        };
        while !gone(&worker.state(1)) || tpm.commands().len() == opened {
            assert!(Instant::now() < deadline, "{:?}", worker.state(1));
            thread::yield_now();
        }
    }
    tpm.make_room(2);
    let deadline = Instant::now() + DEADLINE;
    while worker.state(1).certificate().is_none() {
        assert!(Instant::now() < deadline, "{:?}", worker.state(1));
        thread::yield_now();
    }
    sign(&worker, 1).unwrap();
    let KeyState::Failed {
        error: TokenError::PinRejected(_),
        ..
    } = worker.state(0)
    else {
        panic!("{:?}", worker.state(0));
    };
    close(&worker);
    assert_eq!(tpm.lockout_counter(), 1);
}

/// A restarted swtpm, then a reset one: the next signature succeeds without anybody's help.
#[test]
fn a_lost_tpm_comes_back_by_itself() {
    let mut tpm = Swtpm::start();
    tpm.make_parent("");
    tpm.raise_lockout_limit();
    tpm.make("empty", "-G ecc256");
    tpm.make("auth", "-G ecc256 -p key-secret");
    let keys = [
        ("empty", tpm.file("empty")),
        ("auth", with_pin(&tpm, "auth", "key-secret")),
    ];
    let worker = start(&tpm, &keys);
    for key in [0, 1] {
        sign(&worker, key).unwrap();
        tpm.restart();
        sign(&worker, key).unwrap();
        tpm.reset();
        sign(&worker, key).unwrap();
    }
    close(&worker);
    assert_eq!(tpm.handles(), "");
}

#[test]
fn a_lockout_ends_by_itself() {
    let tpm = Swtpm::start();
    tpm.make_parent("");
    tpm.tool("tpm2_dictionarylockout -Q --setup-parameters --max-tries=2 --recovery-time=1");
    tpm.flush();
    tpm.make("web", "-G ecc256 -p key-secret");
    tpm.load("web", "");
    for _ in 0..2 {
        tpm.output(
            "tpm2_sign",
            &["-c", "web.ctx", "-p", "guess", "-o", "s", "web.tss"],
        );
        tpm.flush();
    }
    let worker = start(&tpm, &[("web", with_pin(&tpm, "web", "key-secret"))]);
    let first = settled(&worker, 0);
    let waits = matches!(
        &first,
        KeyState::Failed {
            error: TokenError::Wait { .. },
            retry_at: Some(_)
        }
    );
    assert!(
        waits || matches!(first, KeyState::Ready { .. }),
        "{first:?}"
    );
    let deadline = Instant::now() + DEADLINE;
    while worker.state(0).certificate().is_none() {
        assert!(Instant::now() < deadline, "{:?}", worker.state(0));
        thread::yield_now();
    }
    sign(&worker, 0).unwrap();
    close(&worker);
}

/// Twelve identities, no resource manager, all at once.
#[test]
fn twelve_identities_sign_at_the_same_time() {
    let tpm = Swtpm::start();
    tpm.make_parent("");
    let names: Vec<String> = (0..12).map(|number| format!("key{number}")).collect();
    let mut keys = Vec::new();
    for name in &names {
        tpm.make(name, "-G ecc256 -p key-secret");
        keys.push((name.as_str(), with_pin(&tpm, name, "key-secret")));
    }
    let worker = start(&tpm, &keys);
    thread::scope(|scope| {
        for key in 0..12 {
            let worker = &worker;
            scope.spawn(move || {
                for _ in 0..20 {
                    sign(worker, key).unwrap();
                }
            });
        }
    });
    close(&worker);
    assert_eq!(tpm.handles(), "");
}
