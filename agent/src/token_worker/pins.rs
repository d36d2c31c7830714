//! The PINs of one token, from the announcement of a try to its end.

use token::link::Permission;
use token::{Failures, PinFingerprint, TokenError};

use super::pin_tries::{KeyPin, PinOwner, PinState};
use super::process;
use super::thread::Thread;

impl Thread {
    /// Whether this PIN of a key may be tried, or of the token for `None`. If so, the try is recorded.
    pub(super) fn announce_pin(
        &mut self,
        key: Option<usize>,
        token: String,
        pin: PinFingerprint,
        failures: Failures,
    ) -> Permission {
        let owners = self.shared.owners();
        let names = owners.iter().map(|owner| owner.identity.clone());
        let identities = match key {
            Some(key) => names.skip(key).take(1).collect(),
            None => names.collect(),
        };
        let owner = PinOwner { token, identities };
        let was_good = self.good_pins.get(&key) == Some(&pin);
        let tries = &self.shared.pin_tries;
        let permission = tries.begin(&pin, &owner, failures, was_good);
        if permission == Permission::Try {
            let state = match was_good {
                true => PinState::Good,
                false => PinState::Announced,
            };
            let pin = KeyPin {
                pin,
                owner,
                failures,
                state,
                under_way: None,
            };
            self.pins.insert(key, pin);
        }
        permission
    }

    pub(super) fn begin_try(&mut self, key: Option<usize>) {
        if let Some(pin) = self.pins.get_mut(&key)
            && pin.state == PinState::Announced
        {
            pin.state = PinState::Tried;
            pin.under_way = Some(self.shared.pin_tries.begin_try());
        }
    }

    /// Whether a PIN is being tried for the first time.
    pub(super) fn is_trying(&self) -> bool {
        let mut pins = self.pins.values();
        pins.any(|pin| pin.state == PinState::Tried)
    }

    pub(super) fn accept_pin(&mut self, key: Option<usize>) {
        if let Some(pin) = self.pins.get_mut(&key) {
            if pin.state != PinState::Good {
                pin.state = PinState::Good;
                self.shared.pin_tries.accept(&pin.pin);
                pin.under_way = None;
            }
            self.good_pins.insert(key, pin.pin.clone());
        }
    }

    /// An error that came in a try of this PIN, or instead of it: the program's own answer.
    pub(super) fn judge_pin(&mut self, key: Option<usize>, error: &TokenError) {
        let is_refusal = matches!(error, TokenError::PinRejected(_));
        let is_over = |pin: &&KeyPin| is_refusal || pin.state != PinState::Good;
        if self.pins.get(&key).filter(is_over).is_none() {
            return;
        }
        let Some(pin) = self.pins.remove(&key) else {
            return;
        };
        let tries = &self.shared.pin_tries;
        if is_refusal && pin.state != PinState::Announced {
            tries.refuse(&pin.pin, &pin.owner);
            self.good_pins.remove(&key);
        } else if !self.has_untried(&pin.pin) {
            tries.cancel(&pin.pin);
        }
    }

    /// Why a signature of this key, which tries the token's PIN again, is not made: another worker, which has the same
    /// token by another name of its module, was refused that PIN.
    pub(super) fn refused_elsewhere(&self, key: usize) -> Option<TokenError> {
        let pin = self.pins.get(&None)?;
        let is_tried = self.logs_in.contains(&key) && pin.state == PinState::Good;
        if !is_tried || !self.shared.pin_tries.is_refused(&pin.pin) {
            return None;
        }
        Some(TokenError::PinRejected(format!(
            "{}: the PIN was refused under another name of its module, and is not tried again: correct it, then reload the \
             agent; if it is right by now: roleseal-admin pin retry IDENTITY",
            self.open
        )))
    }

    /// Whether another key has the same PIN, whose answer is to come.
    fn has_untried(&self, pin: &PinFingerprint) -> bool {
        let mut pins = self.pins.values();
        pins.any(|other| other.pin == *pin && other.state != PinState::Good)
    }

    /// The same for all of them.
    pub(super) fn judge_pins(&mut self, error: &TokenError) {
        let keys: Vec<_> = self.pins.keys().copied().collect();
        for key in keys {
            self.judge_pin(key, error);
        }
    }

    /// The error of a token that was lost while this PIN may have been tried for the first time: it passes where the
    /// token can tell later whether the try counted.
    pub(super) fn lose_pin(&mut self, key: Option<usize>, error: TokenError) -> TokenError {
        let is_answer = matches!(error, TokenError::PinRejected(_));
        match self.pins.get(&key) {
            Some(pin) if pin.state == PinState::Tried && !is_answer => {
                let tries = &self.shared.pin_tries;
                let error = match pin.failures.can_tell() {
                    true => {
                        tries.doubt(&pin.pin);
                        error
                    }
                    false => {
                        tries.refuse(&pin.pin, &pin.owner);
                        process::lost_while_trying(&error)
                    }
                };
                self.pins.remove(&key);
                error
            }
            _ => {
                self.judge_pin(key, &error);
                error
            }
        }
    }

    /// The same for all of them.
    pub(super) fn lose_pins(&mut self, mut error: TokenError) -> TokenError {
        let keys: Vec<_> = self.pins.keys().copied().collect();
        for key in keys {
            let lost = self.lose_pin(key, error.clone());
            if let TokenError::PinRejected(_) = lost {
                error = lost;
            }
        }
        error
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};

    use token::link::{Open, OpenTpm, OpenTpmKey, TpmKeySource};
    use token::{Pin, Tcti};

    use super::*;
    use crate::launcher::Launcher;
    use crate::token_worker::{KeyOwner, PinTries, Shared};
    use config::certificate::{CertificateSource, LeafSource};

    const COUNTED: Failures = Failures::Counted(0);

    /// The thread of a TPM with two keys, before it opens it.
    fn thread() -> Thread {
        let key = |number: u32| OpenTpmKey {
            source: TpmKeySource::Handle(0x8100_0000 + number),
            pin: None,
            parent_pin: None,
            owner_pin: None,
        };
        let open = Open::Tpm(OpenTpm {
            tcti: Tcti::default(),
            keys: [0, 1].map(key).map(Some).to_vec(),
            left_sessions: Vec::new(),
        });
        let owner = |name: &str| KeyOwner {
            identity: name.to_owned(),
            certificate: CertificateSource {
                leaf: LeafSource::File("/nowhere/web.pem".into()),
                chain: None,
            },
        };
        let owners = ["web", "copy"].map(owner).to_vec();
        let shared = Shared::new(&open, owners, PinTries::in_memory().unwrap());
        let (events, inbox) = mpsc::channel();
        let launcher = Launcher::in_thread("/nowhere".into()).unwrap();
        let programs = launcher.token_programs(true);
        Thread::new(programs, open, inbox, events, Arc::new(shared))
    }

    fn announce(thread: &mut Thread, key: Option<usize>) -> Permission {
        let pin = Pin::from("1234".to_owned());
        let pin = PinFingerprint::of(&thread.shared.pin_tries.key(), "lab", &[&pin]);
        thread.announce_pin(key, "lab".to_owned(), pin, COUNTED)
    }

    fn refused() -> TokenError {
        TokenError::PinRejected("refused".to_owned())
    }

    #[test]
    fn a_refusal_outlasts_the_other_keys_with_the_same_pin() {
        for other in [TokenError::Unusable("unfit".to_owned()), refused()] {
            let mut thread = thread();
            for key in [Some(0), Some(1)] {
                assert_eq!(announce(&mut thread, key), Permission::Try);
            }
            thread.begin_try(Some(0));
            thread.judge_pin(Some(0), &refused());
            thread.judge_pin(Some(1), &other); // which was not tried
            assert_eq!(announce(&mut thread, Some(0)), Permission::Refused);
        }
    }

    #[test]
    fn a_refusal_under_another_name_is_no_second_try() {
        let mut thread = thread();
        announce(&mut thread, None);
        thread.begin_try(None);
        thread.accept_pin(None);
        thread.logs_in.insert(0);
        assert_eq!(thread.refused_elsewhere(0), None);
        let pin = thread.pins[&None].pin.clone();
        let other = PinOwner {
            token: "lab".to_owned(),
            identities: vec!["other".to_owned()],
        };
        thread.shared.pin_tries.refuse(&pin, &other);
        let error = thread.refused_elsewhere(0);
        assert!(
            matches!(error, Some(TokenError::PinRejected(_))),
            "{error:?}"
        );
        // One that needs no PIN any more goes on.
        assert_eq!(thread.refused_elsewhere(1), None);
        // An operator finds the record by each of the identities.
        thread.judge_pins(&error.unwrap());
        assert!(thread.shared.pin_tries.is_recorded("web"));
    }

    /// It is on the disk until the last of them has its answer.
    #[test]
    fn a_try_is_recorded_while_another_key_with_the_same_pin_fails() {
        let mut thread = thread();
        for key in [Some(0), Some(1)] {
            announce(&mut thread, key);
        }
        let unfit = TokenError::Unusable("unfit".to_owned());
        thread.judge_pin(Some(1), &unfit);
        thread.begin_try(Some(0));
        assert!(thread.shared.pin_tries.is_recorded("web"));
        thread.judge_pin(Some(0), &unfit);
        assert!(!thread.shared.pin_tries.is_recorded("web"));
    }
}
