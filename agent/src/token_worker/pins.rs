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
                self.shared.pin_tries.forget(&pin.pin);
            }
            self.good_pins.insert(key, pin.pin.clone());
        }
    }

    /// An error that came in a try of this PIN, or instead of it: the program's own answer.
    pub(super) fn judge_pin(&mut self, key: Option<usize>, error: &TokenError) {
        let Some(pin) = self.pins.get(&key) else {
            return;
        };
        let tries = &self.shared.pin_tries;
        match (pin.state, error) {
            (PinState::Announced, _) => tries.cancel(&pin.pin),
            (_, TokenError::PinRejected(_)) => {
                tries.refuse(&pin.pin, &pin.owner);
                self.good_pins.remove(&key);
            }
            (PinState::Tried, _) => tries.forget(&pin.pin),
            (PinState::Good, _) => return,
        }
        self.pins.remove(&key);
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
