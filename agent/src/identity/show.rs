//! What a caller is shown of an identity: its state and its certificate.

use std::time::Instant;

use jiff::Timestamp;
use token::TokenError;
use wire::{Refusal, State};

use super::{Identities, Identity};
use crate::peer::Peer;
use crate::token_worker::KeyState;
use config::certificate::Certificate;

impl Identities {
    /// What the caller may see: what it may use; everything for root and the agent's own user.
    pub fn shown_to(&self, peer: &Peer) -> impl Iterator<Item = &Identity> {
        self.iter()
            .filter(|identity| identity.policy.shows_to(peer))
    }

    /// Whether the caller is root, the agent's own user, or named by a rule of any identity.
    pub fn know(&self, peer: &Peer) -> bool {
        self.shown_to(peer).next().is_some()
    }

    /// Returns whether a rule of any identity names a group.
    pub(crate) fn name_groups(&self) -> bool {
        { self.identities.iter() }.any(|identity| identity.policy.names_groups())
    }

    /// Returns whether a rule of any identity names a unit.
    pub(crate) fn name_units(&self) -> bool {
        { self.identities.iter() }.any(|identity| identity.policy.names_units())
    }
}

impl Identity {
    /// As `GetCertificate` shows it: base64 of DER, the leaf first. Without a token, what its files say is the
    /// next best: who asks wants to know what is wrong.
    pub fn shown_certificate(&self, deadline: Instant) -> Result<Vec<String>, Refusal> {
        if let Some(certificate) = self.worker.state(self.key).certificate() {
            return Ok(certificate.chain());
        }
        if let Some(read) = self.certificate.load_files() {
            return read
                .map(|certificate| certificate.chain())
                .map_err(|fault| self.unusable(&fault));
        }
        Ok(self.settled_certificate(deadline)?.chain())
    }

    /// As `ListIdentities` shows it, but for what was counted.
    pub fn describe(&self, now: Timestamp) -> wire::Identity {
        let state = self.worker.state(self.key);
        let certificate = state.certificate().cloned();
        let (state, message, mut warnings) = match state {
            KeyState::Opening => (State::Opening, None, Vec::new()),
            KeyState::Ready {
                certificate,
                warnings,
            } => match certificate.check_validity(now) {
                Ok(()) => (State::Ready, None, warnings),
                Err(error) => (
                    State::Unusable,
                    Some(format!("its certificate: {error}")),
                    warnings,
                ),
            },
            KeyState::Failed { error, .. } => {
                let state = match error {
                    TokenError::PinRejected(_) => State::PinRejected,
                    TokenError::Unusable(_) => State::Unusable,
                    _ => State::Unavailable,
                };
                (state, Some(error.shortened().to_string()), Vec::new())
            }
        };
        if let Some(renewal) = &self.renewal {
            warnings.extend(renewal.warnings(now));
        }
        let of = |field: fn(&Certificate) -> String| certificate.as_deref().map(field);
        wire::Identity {
            name: self.name.clone(),
            key_algorithm: of(|certificate| certificate.key_algorithm()),
            subject: of(|certificate| certificate.subject.clone()),
            issuer: of(|certificate| certificate.issuer.clone()),
            serial: of(|certificate| certificate.serial.clone()),
            not_before: of(|certificate| certificate.not_before.to_string()),
            not_after: of(|certificate| certificate.not_after.to_string()),
            key_uri: self.key_uri.clone(),
            state,
            message,
            warnings,
            pin_source: self.pin_source,
            signatures: None,
            last_signed: None,
        }
    }
}
