//! How a token is opened: its program started, each of its keys proved by a signature, and what
//! becomes of those that fail.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use token::link::KeyReport;
use token::{AmzDate, StringToSign, TokenError};

use super::thread::{BACKOFF, Next, QUICK_REOPENINGS, SIGN_LIMIT, Thread, answer, backoff};
use super::{Event, KeyState};
use crate::audit;
use crate::certificate::Certificate;
use crate::token_process::{self, TokenProcess};

/// For a login over a slow network HSM; and then for each key, which a slow TPM takes half a second to
/// load.
const OPEN_LIMIT: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(1));

impl Thread {
    pub(super) fn open_token(&mut self) -> Result<TokenProcess, TokenError> {
        self.generation += 1;
        self.reopen_at = None;
        let (login, each) = OPEN_LIMIT;
        let keys = u32::try_from(self.owners.len()).unwrap_or(u32::MAX);
        let limit = login + each.saturating_mul(keys);
        let (mut process, reports) =
            TokenProcess::start(&self.programs, self.open.clone(), limit, self.pin_is_good)?;
        self.pin_is_good = true;
        // Before anything else can fail: what was refused must not be tried by the next token program.
        for (key, report) in reports.iter().enumerate() {
            if let Err(error @ TokenError::PinRejected(_)) = report {
                self.failed_key(key, error.clone())?;
            }
        }
        let mut states = Vec::new();
        for (key, report) in reports.into_iter().enumerate() {
            let proved = match self.refused.get(&key) {
                Some(error) => Err(error.clone()),
                None => self.prove(&mut process, key, report)?,
            };
            states.push(match proved {
                Ok(ready) => ready,
                Err(error) => self.failed_key(key, error)?,
            });
        }
        if let Some(error) = failure_of_all(&states) {
            return Err(error);
        }
        let generation = self.generation;
        process.read_into(self.events.clone(), move |answer| {
            Event::Answer(generation, answer)
        })?;
        self.opened_at = Instant::now();
        self.log_states(&states);
        self.set_states(states);
        Ok(process)
    }

    /// Whether the key is its certificate's: it signs a text of today that belongs to no request, and
    /// the certificate verifies it. So every open proves every key anew, whatever its handle says. The
    /// outer error means that the program is lost.
    fn prove(
        &mut self,
        process: &mut TokenProcess,
        key: usize,
        report: KeyReport,
    ) -> Result<Result<KeyState, TokenError>, TokenError> {
        let (certificate, warnings, text) = match self.prepare_proof(key, report) {
            Ok(prepared) => prepared,
            Err(error) => return Ok(Err(error)),
        };
        let signature = match process.sign_and_wait(key, &text, SIGN_LIMIT) {
            Ok(Ok(signature)) => signature,
            Ok(Err(error)) => return Ok(Err(error)),
            Err(lost) => {
                if self.open.tries_pin(key) {
                    self.failed_key(key, token_process::lost_while_trying(lost.clone()))?;
                }
                return Err(lost);
            }
        };
        self.open.pins_are_good(key);
        if !certificate.verifies(&text.to_string(), &signature) {
            return Ok(Err(TokenError::Unusable(format!(
                "the certificate (serial {}, {}) is not of this key: its public key does not verify \
                 what the key signs; install the certificate that was issued for this key",
                certificate.serial, certificate.subject
            ))));
        }
        Ok(Ok(KeyState::Ready {
            certificate: Arc::new(certificate),
            warnings,
        }))
    }

    fn prepare_proof(
        &self,
        key: usize,
        report: KeyReport,
    ) -> Result<(Certificate, Vec<String>, StringToSign), TokenError> {
        let opened = report?;
        let certificate = match self.owners.get(key) {
            Some(owner) => (owner.certify)(opened.certificate).map_err(TokenError::Unusable)?,
            None => return Err(TokenError::Unusable("it has no certificate".to_owned())),
        };
        let text = proof(&certificate).map_err(TokenError::Broken)?;
        Ok((certificate, opened.warnings, text))
    }

    fn log_states(&self, states: &[KeyState]) {
        for (owner, state) in self.owners.iter().zip(states) {
            let identity = &owner.identity;
            match state {
                KeyState::Opening => {}
                KeyState::Ready {
                    certificate,
                    warnings,
                } => {
                    let (serial, until) = (&certificate.serial, certificate.not_after);
                    audit::info(&format!(
                        "ready identity={identity} serial={serial} until={until}"
                    ));
                    for warning in warnings {
                        audit::warn(&format!("warning identity={identity} {warning:?}"));
                    }
                }
                KeyState::Failed { error, .. } => {
                    audit::warn(&format!(
                        "failed identity={identity} reason={:?}",
                        error.to_string()
                    ));
                }
            }
        }
    }

    /// The state of a key that failed alone. Comes back as the error where it is the token's.
    pub(super) fn failed_key(
        &mut self,
        key: usize,
        error: TokenError,
    ) -> Result<KeyState, TokenError> {
        let retry_at = match &error {
            TokenError::Unusable(_) | TokenError::Broken(_) => None,
            // Somebody may end the wait: to look costs no try.
            TokenError::Wait { seconds, .. } => {
                let wait = Duration::from_secs(*seconds);
                self.reopen_in(wait.min(BACKOFF.1));
                Some(Instant::now() + wait)
            }
            // The other keys go on, and seldom wait for another try of this one.
            TokenError::Gone(_) | TokenError::Hung(_) => Some(self.reopen_in(BACKOFF.1)),
            TokenError::PinRejected(_) if self.open.set_aside(key) => {
                self.refused.insert(key, error.clone());
                None
            }
            TokenError::PinRejected(_) => return Err(error),
        };
        Ok(KeyState::Failed { error, retry_at })
    }

    /// Has the token opened again then, or earlier.
    pub(super) fn reopen_in(&mut self, wait: Duration) -> Instant {
        let retry_at = Instant::now() + wait;
        self.reopen_at = Some(self.reopen_at.map_or(retry_at, |at| at.min(retry_at)));
        retry_at
    }

    pub(super) fn failed_to_open(&mut self, error: TokenError) -> Next {
        let wait = match &error {
            TokenError::Gone(_) | TokenError::Hung(_) | TokenError::Broken(_) => Some(backoff(
                self.failures
                    .max(self.losses.saturating_sub(QUICK_REOPENINGS)),
            )),
            TokenError::Wait { seconds, .. } => Some(Duration::from_secs(*seconds)),
            TokenError::PinRejected(_) | TokenError::Unusable(_) => None,
        };
        let retry_at = wait.map(|wait| Instant::now() + wait);
        self.failures = self.failures.saturating_add(1);
        let state = |key| match self.refused.get(&key) {
            Some(refused) => KeyState::Failed {
                error: refused.clone(),
                retry_at: None,
            },
            None => KeyState::Failed {
                error: error.clone(),
                retry_at,
            },
        };
        let states: Vec<KeyState> = (0..self.owners.len()).map(state).collect();
        self.log_states(&states);
        self.set_states(states);
        for job in self.waiting.drain(..) {
            answer(job, Err(error.clone()));
        }
        Next::Refuse(error, retry_at)
    }
}

/// A failure that passes, where no key can sign: then it is the token's.
fn failure_of_all(states: &[KeyState]) -> Option<TokenError> {
    let mut passing = None;
    for state in states {
        match state {
            KeyState::Failed {
                error: error @ (TokenError::Gone(_) | TokenError::Hung(_)),
                ..
            } => passing = Some(error.clone()),
            KeyState::Failed { .. } => {}
            KeyState::Opening | KeyState::Ready { .. } => return None,
        }
    }
    passing
}

/// A text to prove a key with: of now, for a request that does not exist.
fn proof(certificate: &Certificate) -> Result<StringToSign, String> {
    Ok(StringToSign {
        algorithm: certificate.algorithm(),
        date: AmzDate::from(Timestamp::now()),
        region: "proof-of-possession".parse()?,
        request_hash: [0; 32],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use token::Pkcs11Uri;
    use token::link::{Open, OpenKey, OpenPkcs11};

    use crate::keeper::{Keeper, KeyOwner};
    use crate::launcher::Launcher;

    /// A token program in shell. Its standard input is the link; each start leaves a line in `starts`.
    struct Script(tempfile::TempDir);

    impl Script {
        fn new(body: &str) -> Script {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("roleseal-pkcs11");
            let text = format!("#!/bin/sh\necho >> \"${{0%/*}}/starts\"\n{body}\n");
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

        fn keeper(&self) -> Keeper {
            let open = Open::Pkcs11(Box::new(OpenPkcs11 {
                module: "/module.so".into(),
                token: Pkcs11Uri::default(),
                pin: None,
                sessions: 1,
                keys: vec![OpenKey {
                    uri: Pkcs11Uri::default(),
                    certificate: None,
                }],
            }));
            let owner = KeyOwner {
                identity: "web".to_owned(),
                certify: Box::new(|_| Err("there is none".to_owned())),
            };
            let launcher = Launcher::in_thread(self.0.path().to_owned()).unwrap();
            Keeper::start(launcher.token_programs(true), open, vec![owner]).unwrap()
        }

        fn starts(&self) -> usize {
            let starts = std::fs::read_to_string(self.0.path().join("starts")).unwrap();
            starts.lines().count()
        }
    }

    fn settled(keeper: &Keeper) -> (TokenError, Option<Instant>) {
        match keeper.settled_state(0, Instant::now() + Duration::from_secs(20)) {
            KeyState::Failed { error, retry_at } => (error, retry_at),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_program_that_dies_while_it_tries_the_first_pin_is_not_started_again() {
        let script = Script::new(
            r#"head -c 4 >/dev/null; printf '\000\000\000\013"TryingPin"' >&0; kill -SEGV $$"#,
        );
        let keeper = script.keeper();
        let (error, retry_at) = settled(&keeper);
        assert!(matches!(error, TokenError::PinRejected(_)), "{error:?}");
        assert_eq!(retry_at, None);
        // A keeper that is closed has done all that it will ever do.
        keeper.close();
        keeper.wait_closed(Instant::now() + Duration::from_secs(20));
        assert_eq!(script.starts(), 1);
    }

    #[test]
    fn a_program_that_dies_before_it_tries_a_pin_is_tried_again_later() {
        let (error, retry_at) = settled(&Script::new("exit 1").keeper());
        assert!(matches!(error, TokenError::Gone(_)), "{error:?}");
        assert!(retry_at.is_some());
    }

    #[test]
    fn an_answer_that_makes_no_sense_is_no_crash() {
        for garbage in [
            r"\000\000\000\001x",
            r"\377\377\377\377",
            r#"\000\000\000\002{}"#,
        ] {
            let script = Script::new(&format!("printf '{garbage}' >&0; cat >/dev/null <&0"));
            let (error, _) = settled(&script.keeper());
            assert!(
                matches!(error, TokenError::Gone(_) | TokenError::Broken(_)),
                "{error:?}"
            );
        }
    }

    #[test]
    fn waiting_times_grow_to_a_minute() {
        for (failures, longest) in [(0, 1), (1, 2), (5, 32), (6, 60), (u32::MAX, 60)] {
            let wait = backoff(failures);
            assert!(wait <= Duration::from_secs(longest), "{wait:?}");
            assert!(wait >= Duration::from_millis(longest * 750), "{wait:?}");
        }
    }
}
