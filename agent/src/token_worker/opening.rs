//! How a token is opened: its program started, each of its keys proved by a signature, and what
//! becomes of those that fail.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use token::link::{FromToken, KeyReport, Open, ToToken};
use token::{Algorithm, AmzDate, Signature, StringToSign, TokenError};

use super::process::{self, TokenProcess};
use super::retry::{failure_of_all, own_errors};
use super::thread::{SIGN_LIMIT, Thread, ending};
use super::{Event, KeyOwner, KeyState};
use crate::log::{self, Fields, Level};
use config::certificate::Certificate;
use token::Program;

/// For a login over a slow network HSM; and then for each key, which a slow TPM takes half a second to
/// load.
const OPEN_LIMIT: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(1));

/// For a program that had the token open before, beyond three times what it took then.
const RECONNECT_LIMIT: Duration = Duration::from_secs(2);

impl Thread {
    /// Opens the token: by the program that had it, and by a new one where that does not do.
    pub(super) fn open_token(
        &mut self,
        running: Option<TokenProcess>,
    ) -> Result<TokenProcess, TokenError> {
        let limit = self.opening_limit();
        if let Some(process) = running {
            // As long as it took before, and then some: a new program has to fit into the deadline, too.
            let quick = (RECONNECT_LIMIT + self.opening_took.saturating_mul(3)).min(limit);
            match self.open_with(process, quick) {
                Err(TokenError::Gone(why) | TokenError::Hung(why) | TokenError::Broken(why))
                    if !self.closing =>
                {
                    let token = &self.open;
                    log::warn(&format!("{token}: {why}; starting another token program"));
                }
                result => return result,
            }
        }
        self.generation += 1;
        self.shared.starts.fetch_add(1, Ordering::Relaxed);
        let generation = self.generation;
        let program = match self.open {
            Open::Pkcs11(_) => Program::Pkcs11,
            Open::Tpm(_) => Program::Tpm,
        };
        let event = move |answer, unread| Event::Answer(generation, answer, unread);
        let process = TokenProcess::start(&self.programs, program, self.events.clone(), event)?;
        self.open_with(process, limit)
    }

    fn opening_limit(&self) -> Duration {
        let (login, each) = OPEN_LIMIT;
        let keys = u32::try_from(self.open.key_count()).unwrap_or(u32::MAX);
        login + each.saturating_mul(keys)
    }

    /// Has this program open the token, and proves each key. One that fails is ended.
    fn open_with(
        &mut self,
        mut process: TokenProcess,
        limit: Duration,
    ) -> Result<TokenProcess, TokenError> {
        match self.open_and_prove(&mut process, limit) {
            Ok(()) => Ok(process),
            // It may be logging in. SoftHSM writes its token anew there: killed meanwhile, it leaves an empty one.
            Err(error) if self.closing => {
                process.close();
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    fn open_and_prove(
        &mut self,
        process: &mut TokenProcess,
        limit: Duration,
    ) -> Result<(), TokenError> {
        let start = Instant::now();
        self.reopen_at = None;
        let reports = self.ask_to_open(process, limit)?;
        // Before anything else can fail: what was refused must not be tried by the next token program.
        for (key, report) in reports.iter().enumerate() {
            match report {
                Err(error @ TokenError::PinRejected(_)) => {
                    self.failed_key(key, error.clone())?;
                }
                Err(lost @ (TokenError::Gone(_) | TokenError::Hung(_))) => {
                    self.lose_pin(Some(key), lost.clone());
                }
                Err(error) => self.judge_pin(Some(key), error),
                Ok(_) => {}
            }
        }
        let owners = self.shared.owners();
        let mut states = Vec::new();
        for (key, report) in reports.into_iter().enumerate() {
            let proved = match self.refused.get(&key) {
                Some(error) => Err(error.clone()),
                None => self.prove(process, key, owners.get(key), report)?,
            };
            states.push(match proved {
                Ok(ready) => ready,
                Err(error) => self.failed_key(key, error)?,
            });
        }
        if let Some(error) = failure_of_all(&states) {
            self.own_errors = own_errors(states);
            return Err(error);
        }
        self.opened_at = Instant::now();
        self.opening_took = start.elapsed();
        self.log_states(&states);
        self.set_states(states);
        Ok(())
    }

    /// Whether the key is its certificate's: it signs a text of today that belongs to no request, and
    /// the certificate verifies it. So every open proves every key anew, whatever its handle says. The
    /// outer error means that the program is lost.
    fn prove(
        &mut self,
        process: &mut TokenProcess,
        key: usize,
        owner: Option<&KeyOwner>,
        report: KeyReport,
    ) -> Result<Result<KeyState, TokenError>, TokenError> {
        if self.closing {
            return Err(ending()); // which waited for a try that has its answer now
        }
        match &report {
            Ok(opened) if opened.logs_in => self.logs_in.insert(key),
            _ => self.logs_in.remove(&key),
        };
        let last = self.shared.proved(key);
        let (certificate, warnings, text) = match prepare_proof(owner, report, last.as_ref()) {
            Ok(prepared) => prepared,
            Err(error) => return Ok(Err(error)),
        };
        self.begin_try(Some(key));
        let signature = match self.sign_and_wait(process, key, text.to_string()) {
            Ok(Ok(signature)) => signature,
            Ok(Err(lost @ (TokenError::Gone(_) | TokenError::Hung(_)))) => {
                return Ok(Err(self.lose_pin(Some(key), lost)));
            }
            Ok(Err(error)) => {
                self.judge_pin(Some(key), &error);
                return Ok(Err(error));
            }
            Err(lost) => {
                if let error @ TokenError::PinRejected(_) = self.lose_pin(Some(key), lost.clone()) {
                    self.failed_key(key, error)?;
                }
                return Err(lost);
            }
        };
        self.accept_pin(Some(key));
        let certificate = match (check_proof(&certificate, &text, &signature), last) {
            (Ok(()), _) => certificate,
            // A new certificate of another key: the one of before is still right.
            (Err(error), Some(last)) if check_proof(&last, &text, &signature).is_ok() => {
                owner.inspect(|owner| stays_in_use(&owner.identity, &error));
                last
            }
            // It was the key's before: the token signs wrongly, or with another key, and may mend.
            (Err(error), Some(last)) if last.spki == certificate.spki => {
                return Ok(Err(TokenError::Gone(error)));
            }
            (Err(error), _) => return Ok(Err(TokenError::Unusable(error))),
        };
        self.shared.prove(key, &certificate);
        Ok(Ok(KeyState::Ready {
            certificate,
            warnings,
        }))
    }

    fn sign_and_wait(
        &mut self,
        process: &mut TokenProcess,
        key: usize,
        text: String,
    ) -> Result<Result<Signature, TokenError>, TokenError> {
        let id = self.next_id();
        self.proof_id = id;
        process.send(&ToToken::Sign { id, key, text })?;
        match self.hear(Instant::now() + SIGN_LIMIT, SIGN_LIMIT)? {
            FromToken::Signed { result, .. } => Ok(result),
            _ => Err(process::nonsense()),
        }
    }

    pub(super) fn log_states(&self, states: &[KeyState]) {
        let owners = self.shared.owners();
        for (owner, state) in owners.iter().zip(states) {
            let identity = &owner.identity;
            match state {
                KeyState::Opening => {}
                KeyState::Ready {
                    certificate,
                    warnings,
                } => {
                    let (serial, until) = (&certificate.serial, certificate.not_after);
                    let fields = vec![
                        ("identity", identity.as_str().into()),
                        ("serial", serial.as_str().into()),
                        ("until", until.to_string().into()),
                    ];
                    log::event(Level::Info, "ready", fields);
                    for warning in warnings {
                        log::event(Level::Warn, "warning", about(identity, warning));
                    }
                }
                KeyState::Failed { error, .. } => {
                    let why = error.to_string();
                    log::event(Level::Warn, "failed", about(identity, &why));
                }
            }
        }
    }
}

fn about(identity: &str, message: &str) -> Fields {
    vec![("identity", identity.into()), ("message", message.into())]
}

fn prepare_proof(
    owner: Option<&KeyOwner>,
    report: KeyReport,
    last: Option<&Arc<Certificate>>,
) -> Result<(Arc<Certificate>, Vec<String>, StringToSign), TokenError> {
    let opened = report?;
    let owner = owner.ok_or_else(|| TokenError::Unusable("it has no certificate".to_owned()))?;
    let certificate = match (owner.certificate.load(opened.certificate), last) {
        (Ok(certificate), last) => valid_now(Arc::new(certificate), last, owner),
        (Err(error), Some(last)) => {
            stays_in_use(&owner.identity, &error);
            Arc::clone(last)
        }
        (Err(error), None) => return Err(TokenError::Unusable(error)),
    };
    let certificate = of_this_type(certificate, opened.algorithm, last, owner)?;
    let text = proof(&certificate).map_err(TokenError::Broken)?;
    Ok((certificate, opened.warnings, text))
}

/// The certificate, or the previous one where that alone is for a key of this type.
fn of_this_type(
    certificate: Arc<Certificate>,
    algorithm: Algorithm,
    last: Option<&Arc<Certificate>>,
    owner: &KeyOwner,
) -> Result<Arc<Certificate>, TokenError> {
    if certificate.algorithm() == algorithm {
        return Ok(certificate);
    }
    let error = format!(
        "the certificate (serial {}, {}) is for a key of another type ({}): this key signs {algorithm}; install \
         the certificate that was issued for this key",
        certificate.serial,
        certificate.subject,
        certificate.key_algorithm()
    );
    match last.filter(|last| last.algorithm() == algorithm) {
        Some(last) => {
            stays_in_use(&owner.identity, &error);
            Ok(Arc::clone(last))
        }
        None => Err(TokenError::Unusable(error)),
    }
}

/// The certificate, or the one of before where that alone is valid now.
fn valid_now(
    certificate: Arc<Certificate>,
    last: Option<&Arc<Certificate>>,
    owner: &KeyOwner,
) -> Arc<Certificate> {
    let now = Timestamp::now();
    match (certificate.check_validity(now), last) {
        (Err(error), Some(last)) if last.check_validity(now).is_ok() => {
            stays_in_use(&owner.identity, &error.to_string());
            Arc::clone(last)
        }
        _ => certificate,
    }
}

/// Says that a certificate was not taken over, and why.
pub fn stays_in_use(identity: &str, why: &str) {
    let text = format!("{why}; the certificate of before stays in use");
    let fields = vec![("identity", identity.into()), ("reason", text.into())];
    log::event(Level::Warn, "not renewed", fields);
}

/// Whether the key that signed the text is the certificate's.
pub fn check_proof(
    certificate: &Certificate,
    text: &StringToSign,
    signature: &Signature,
) -> Result<(), String> {
    if certificate.verifies(&text.to_string(), signature) {
        return Ok(());
    }
    Err(format!(
        "the certificate (serial {}, {}) is not of this key: its public key does not verify \
         what the key signs; install the certificate that was issued for this key",
        certificate.serial, certificate.subject
    ))
}

/// A text to prove a key with: of now, for a request that does not exist, in a region that does not either.
pub fn proof(certificate: &Certificate) -> Result<StringToSign, String> {
    Ok(StringToSign {
        algorithm: certificate.algorithm(),
        date: AmzDate::from(Timestamp::now()),
        region: "proof-of-possession-0".parse()?,
        request_hash: [0; 32],
    })
}

#[cfg(test)]
mod tests;
