//! A certificate that was renewed takes the place of the one before.

use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use token::TokenError;

use super::Identity;
use crate::token_worker::{self, Caller, KeyState, NotSigned};
use config::certificate::Certificate;

/// Why a new certificate is not taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotTaken {
    /// It is not fit to be this identity's.
    Unfit(String),
    /// That cannot be told now, or it is not valid yet.
    NotNow,
}

impl Identity {
    /// Takes over what was read from its certificate's files, if it is another certificate and a signature
    /// of the key proves it. `replaced`: the files have changed since an opening of the token failed.
    pub fn take(
        &self,
        read: Result<Certificate, String>,
        replaced: bool,
        deadline: Instant,
    ) -> Result<Option<Arc<Certificate>>, NotTaken> {
        let old = match self.worker.state(self.key) {
            KeyState::Ready { certificate, .. } => certificate,
            // The certificate may be what was wrong. The worker reads it itself.
            KeyState::Failed {
                error: TokenError::Unusable(_),
                ..
            } => {
                if replaced && read.is_ok() {
                    self.worker.retry();
                }
                return Ok(None);
            }
            _ => return Err(NotTaken::NotNow),
        };
        let new = read.map_err(NotTaken::Unfit)?;
        if new.is_same(&old) {
            return Ok(None);
        }
        let now = Timestamp::now();
        if now < new.not_before {
            return Err(NotTaken::NotNow);
        }
        new.check_validity(now)
            .map_err(|error| NotTaken::Unfit(error.to_string()))?;
        let text = token_worker::proof(&new).map_err(NotTaken::Unfit)?;
        let caller = Caller::user(self.policy.own_uid);
        let signature = match self.worker.sign(self.key, &text, caller, deadline) {
            Ok(signature) => signature,
            Err(NotSigned::Token(TokenError::Broken(error) | TokenError::Unusable(error))) => {
                return Err(NotTaken::Unfit(error));
            }
            Err(_) => return Err(NotTaken::NotNow),
        };
        token_worker::check_proof(&new, &text, &signature).map_err(NotTaken::Unfit)?;
        let new = Arc::new(new);
        match self.worker.replace_certificate(self.key, &old, &new) {
            true => Ok(Some(new)),
            false => Err(NotTaken::NotNow),
        }
    }
}
