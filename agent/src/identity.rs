//! The identities that the agent serves: the certificate of each, and its key's signature.

mod choose;
mod show;
mod start;
mod take;

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rolesanywhere::Endpoint;
use token::{Signature, StringToSign, TokenError};
use wire::Refusal;

use crate::policy::Policy;
use crate::renewal_view::RenewalView;
use crate::sync::left;
use crate::token_worker::{Caller, KeyState, NotSigned, TokenWorker};
use config::Limits;
use config::certificate::{Certificate, CertificateSource, Stamp};
pub use take::NotTaken;

/// All identities of one configuration, and the workers of their tokens.
#[derive(Debug)]
pub struct Identities {
    /// What callers may take of the agent.
    pub limits: Limits,
    identities: Vec<Identity>,
    workers: Vec<Token>,
}

/// A token, and what it was opened for.
#[derive(Debug)]
struct Token {
    worker: Arc<TokenWorker>,
    /// Of the files of its keys, when they were opened.
    key_files: Stamp,
}

/// One identity.
#[derive(Debug)]
pub struct Identity {
    /// Its name in the configuration.
    pub name: String,
    /// What may be called beside AWS's own endpoints.
    pub endpoints: Vec<Endpoint>,
    /// Who may use it, and for what.
    pub policy: Policy,
    certificate: CertificateSource,
    renewal: Option<RenewalView>,
    key_uri: String,
    pin_source: Option<wire::PinSource>,
    worker: Arc<TokenWorker>,
    /// Its key's number with the worker.
    key: usize,
}

impl Identities {
    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Identity> {
        self.identities.iter()
    }

    /// The workers of their tokens.
    pub fn workers(&self) -> impl Iterator<Item = &TokenWorker> {
        self.workers.iter().map(|token| token.worker.as_ref())
    }

    /// Closes all tokens.
    pub fn close(&self, deadline: Instant) {
        for token in &self.workers {
            token.worker.close();
        }
        for token in &self.workers {
            token.worker.end().wait(deadline);
        }
    }
}

impl Identity {
    /// Where its certificate comes from.
    pub fn certificate_source(&self) -> &CertificateSource {
        &self.certificate
    }

    /// Its certificate, once its token is open and while it can sign.
    pub fn certificate(
        &self,
        now: Timestamp,
        deadline: Instant,
    ) -> Result<Arc<Certificate>, Refusal> {
        let certificate = self.settled_certificate(deadline)?;
        certificate
            .check_validity(now)
            .map_err(|error| self.unusable(&format!("its certificate: {error}")))?;
        Ok(certificate)
    }

    fn settled_certificate(&self, deadline: Instant) -> Result<Arc<Certificate>, Refusal> {
        match self.worker.settled_state(self.key, deadline) {
            KeyState::Ready { certificate, .. } => Ok(certificate),
            KeyState::Failed { error, retry_at } => Err(self.refusal(error, retry_at)),
            KeyState::Opening => Err(self.late("its token is still being opened")),
        }
    }

    /// The key's signature over `text`, verified with the certificate; and how long the token took.
    pub fn sign(
        &self,
        text: &StringToSign,
        certificate: &Arc<Certificate>,
        caller: Caller,
        deadline: Instant,
        token_time: &mut Option<Duration>,
    ) -> Result<Signature, Refusal> {
        let asked = Instant::now();
        let signed = self.worker.sign(self.key, text, caller, deadline);
        *token_time = Some(asked.elapsed());
        let signature = match signed {
            Ok(signature) => signature,
            Err(NotSigned::Token(error)) => {
                let retry_at = match self.worker.state(self.key) {
                    KeyState::Failed { retry_at, .. } => retry_at,
                    _ => None,
                };
                return Err(self.refusal(error, retry_at));
            }
            Err(NotSigned::Late) => return Err(self.late("its token did not sign in time")),
            Err(NotSigned::Busy) => {
                return Err(Refusal::Busy {
                    message: self.says("too many requests wait for its token: try again later"),
                });
            }
        };
        if !certificate.verifies(&text.to_string(), &signature) {
            self.worker.distrust(self.key, certificate);
            return Err(Refusal::SignatureInvalid {
                message: self.says(&format!(
                    "the token's signature does not verify with its certificate (serial {}); the token \
                     is opened again, so try again",
                    certificate.serial
                )),
            });
        }
        Ok(signature)
    }

    fn refusal(&self, error: TokenError, retry_at: Option<Instant>) -> Refusal {
        match error.shortened() {
            TokenError::Wait { text, seconds } => Refusal::TokenUnavailable {
                retry_after_seconds: Some(retry_at.map_or(seconds, seconds_until)),
                message: self.says(&text),
            },
            TokenError::PinRejected(why) => Refusal::PinRejected {
                message: self.says(&why),
            },
            TokenError::Unusable(why) => self.unusable(&why),
            TokenError::Gone(why) | TokenError::Hung(why) | TokenError::Broken(why) => {
                Refusal::TokenUnavailable {
                    retry_after_seconds: retry_at.map(seconds_until),
                    message: self.says(&why),
                }
            }
        }
    }

    fn unusable(&self, why: &str) -> Refusal {
        Refusal::IdentityUnusable {
            identity: self.name.clone(),
            message: self.says(why),
        }
    }

    fn late(&self, why: &str) -> Refusal {
        Refusal::DeadlineExceeded {
            message: self.says(&format!("{why}: try again later")),
        }
    }

    fn says(&self, why: &str) -> String {
        format!("identity {:?}: {why}", self.name)
    }

    /// The worker of its token.
    pub fn worker(&self) -> &TokenWorker {
        &self.worker
    }

    /// When its certificate is renewed, if the agent sees to that.
    pub fn renewal(&self) -> Option<&RenewalView> {
        self.renewal.as_ref()
    }

    /// When its certificate expires, if it has one.
    pub fn expiry(&self) -> Option<Timestamp> {
        let state = self.worker.state(self.key);
        state.certificate().map(|certificate| certificate.not_after)
    }
}

/// Rounded up, so that whoever waits that long is not early.
fn seconds_until(time: Instant) -> u64 {
    let left = left(time);
    left.as_secs() + u64::from(left.subsec_nanos() > 0)
}
