use super::*;
use std::path::PathBuf;
use std::process::Command;

use openssl::nid::Nid;
use token::link::{Open, OpenKey, OpenPkcs11};
use token::{Pkcs11Token, Pkcs11Uri, TokenMatch};

use crate::launcher::Launcher;
use crate::token_worker::{PinTries, Predecessors, TokenWorker};
use config::certificate::{CertificateSource, LeafSource, test_support};

/// Of a token that does not tell how it counts.
const HAS_PIN: &str = r#"{"HasPin":{"key":null,"token":"lab","fingerprint":"0000000000000000000000000000000000000000000000000000000000000000","failures":"Untold","at_once":true}}"#;

/// Takes one message, whose length is in front of it.
const RECEIVE: &str = "receive() { head -c \"$(head -c 4 | od -An -tu1 | { read -r a b c d; \
                       echo $((((a * 256 + b) * 256 + c) * 256 + d)); })\" >/dev/null; }";

/// Sends a message of at most 255 bytes.
fn say(message: &str) -> String {
    let length = u8::try_from(message.len()).unwrap();
    format!(r"printf '\000\000\000\{length:03o}%s' '{message}' >&0")
}

/// A token program in shell. Its standard input is the link; each start leaves a line in `starts`.
struct Script(tempfile::TempDir);

impl Script {
    fn new(body: &str) -> Script {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("roleseal-pkcs11");
        let greeting = format!(r#"{{"version":"{}"}}"#, env!("CARGO_PKG_VERSION"));
        let greet = format!(
            r"printf '\000\000\000\{:03o}%s' '{greeting}' >&0",
            greeting.len()
        );
        let text = format!(
            "#!/bin/sh\necho >> \"${{0%/*}}/starts\"\ngreet() {{ {greet}; }}\n{RECEIVE}\n{body}\n"
        );
        // Not written by this process: while a file is open for writing in one that forks, it cannot
        // be executed.
        let written = Command::new("sh")
            .args(["-c", "printf %s \"$2\" > \"$1\"; chmod 755 \"$1\"", "sh"])
            .arg(&path)
            .arg(text)
            .status();
        assert!(written.unwrap().success());
        Script(directory)
    }

    fn worker(&self) -> TokenWorker {
        self.worker_with(&PinTries::in_memory().unwrap(), "/nowhere/web.pem".into())
    }

    fn worker_with(&self, pin_tries: &PinTries, certificate: PathBuf) -> TokenWorker {
        let open = Open::Pkcs11(Box::new(OpenPkcs11 {
            token: Pkcs11Token {
                network: None,
                module: "/module.so".into(),
                token: TokenMatch::default(),
                pin: None,
                sessions: 1,
            },
            keys: vec![OpenKey {
                uri: Pkcs11Uri::default(),
                certificate: None,
                public_key: None,
            }],
        }));
        let owner = KeyOwner {
            identity: "web".to_owned(),
            certificate: CertificateSource {
                leaf: LeafSource::File(certificate),
                chain: None,
            },
        };
        let launcher = Launcher::in_thread(self.0.path().to_owned()).unwrap();
        let programs = launcher.token_programs(true);
        let heritage = Predecessors {
            ends: Vec::new(),
            pin_tries: pin_tries.clone(),
        };
        TokenWorker::start(programs, open, vec![owner], heritage).unwrap()
    }

    /// Waits until the program has made this file.
    fn wait_for(&self, file: &str) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.0.path().join(file).exists() {
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        }
    }

    fn starts(&self) -> usize {
        let starts = std::fs::read_to_string(self.0.path().join("starts")).unwrap();
        starts.lines().count()
    }
}

fn settled(worker: &TokenWorker) -> (TokenError, Option<Instant>) {
    match worker.settled_state(0, Instant::now() + Duration::from_secs(20)) {
        KeyState::Failed { error, retry_at } => (error, retry_at),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_program_that_dies_while_it_tries_the_first_pin_is_not_started_again() {
    let script = Script::new(&format!(
        "greet; receive; {}; receive; kill -SEGV $$",
        say(HAS_PIN)
    ));
    let worker = script.worker();
    let (error, retry_at) = settled(&worker);
    assert!(matches!(error, TokenError::PinRejected(_)), "{error:?}");
    assert_eq!(retry_at, None);
    // A worker that is closed has done all that it will ever do.
    worker.close();
    worker.end().wait(Instant::now() + Duration::from_secs(20));
    assert_eq!(script.starts(), 1);
}

/// SoftHSM writes its token anew at a login: a program that is killed meanwhile takes the keys with it.
#[test]
fn a_program_that_opens_its_token_may_finish_when_the_agent_ends() {
    let script = Script::new(
        r#"greet; head -c 4 >/dev/null; echo > "${0%/*}/opening"; cat >/dev/null <&0
        sleep 0.3; echo > "${0%/*}/finished""#,
    );
    let worker = script.worker();
    script.wait_for("opening");
    worker.close();
    worker.end().wait(Instant::now() + Duration::from_secs(20));
    assert!(script.0.path().join("finished").exists());
}

/// Also of a TPM key, whose PIN is tried by its first signature.
#[test]
fn a_try_that_is_under_way_when_the_agent_ends_is_heard() {
    let certificate = tempfile::NamedTempFile::new().unwrap();
    let key = test_support::ec(Nid::X9_62_PRIME256V1);
    let base64 = test_support::certificate(&key, 0).x509;
    let lines: Vec<_> = base64
        .as_bytes()
        .chunks(64)
        .map(String::from_utf8_lossy)
        .collect();
    let pem = format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        lines.join("\n")
    );
    std::fs::write(certificate.path(), pem).unwrap();
    let of_key = HAS_PIN.replace("\"key\":null", "\"key\":0");
    let at_first_signature = of_key.replace("true", "false");
    let opened = r#"{"Opened":{"Ok":[{"Ok":{"algorithm":"EcdsaSha256","certificate":null,"warnings":[],"logs_in":false}}]}}"#;
    let signing = format!("receive; {}; receive", say(opened));
    for (has_pin, until_tried, answer) in [
        (
            HAS_PIN,
            "receive",
            r#"{"Opened":{"Err":{"Unusable":"no"}}}"#,
        ),
        (
            &at_first_signature,
            &signing,
            r#"{"Signed":{"id":1,"result":{"Err":{"Unusable":"no"}}}}"#,
        ),
    ] {
        let script = Script::new(&format!(
            r#"greet; receive; {}; {until_tried}; echo > "${{0%/*}}/trying"
            while [ ! -e "${{0%/*}}/go" ]; do sleep 0.01; done; {}; cat >/dev/null <&0"#,
            say(has_pin),
            say(answer)
        ));
        let tries = PinTries::in_memory().unwrap();
        let worker = script.worker_with(&tries, certificate.path().to_owned());
        script.wait_for("trying");
        let end = worker.end();
        worker.close();
        drop(worker);
        assert!(tries.wait_for_answers(Instant::now()));
        std::fs::write(script.0.path().join("go"), "").unwrap();
        end.wait(Instant::now() + Duration::from_secs(20));
        assert!(!tries.is_recorded("web"));
        assert!(!tries.wait_for_answers(Instant::now()));
    }
}

#[test]
fn a_program_that_dies_before_it_tries_a_pin_is_tried_again_later() {
    let (error, retry_at) = settled(&Script::new("exit 1").worker());
    assert!(matches!(error, TokenError::Gone(_)), "{error:?}");
    assert!(retry_at.is_some());
}

#[test]
fn a_program_that_talks_without_end_is_not_heard_out() {
    let other_key = HAS_PIN.replace("null", "1").replace("true", "false");
    let awaiting = r#"{"AwaitingTurn":{"token":"lab"}}"#;
    let no_sessions = r#"{"Sessions":[]}"#;
    for said in [HAS_PIN, awaiting, no_sessions] {
        let script = Script::new(&format!("greet; receive; while {}; do :; done", say(said)));
        let (error, _) = settled(&script.worker());
        let expected = match said {
            HAS_PIN => matches!(error, TokenError::PinRejected(_)), // the first was sound
            _ => matches!(error, TokenError::Broken(_)),
        };
        assert!(expected, "{said}: {error:?}");
    }
    let tries = PinTries::in_memory().unwrap();
    let script = Script::new(&format!(
        "greet; receive; {}; cat >/dev/null <&0",
        say(&other_key)
    ));
    let (error, _) = settled(&script.worker_with(&tries, PathBuf::new()));
    assert!(matches!(error, TokenError::Broken(_)), "{error:?}");
}

#[test]
fn an_answer_that_makes_no_sense_is_no_crash() {
    for garbage in [
        r"\000\000\000\001x",
        r"\377\377\377\377",
        r#"\000\000\000\002{}"#,
    ] {
        for first in ["", "greet; "] {
            let body = format!("{first}printf '{garbage}' >&0; cat >/dev/null <&0");
            let (error, _) = settled(&Script::new(&body).worker());
            assert!(
                matches!(error, TokenError::Gone(_) | TokenError::Broken(_)),
                "{error:?}"
            );
        }
    }
}

/// A bug of ours costs what waits, and the token is opened again.
#[test]
fn a_panic_of_the_keeper_does_not_end_it() {
    let script = Script::new("exit 1");
    let worker = script.worker();
    let (first, _) = settled(&worker);
    worker.panic();
    let deadline = Instant::now() + Duration::from_secs(20);
    while settled(&worker).0 == first {
        assert!(Instant::now() < deadline, "{first:?}");
        std::thread::yield_now();
    }
    let starts = script.starts();
    worker.retry();
    while script.starts() == starts {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
}
