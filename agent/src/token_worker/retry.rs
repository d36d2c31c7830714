//! What becomes of a token that was lost or cannot be opened, of its keys that fail alone, and of the
//! requests that it has not signed.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use token::TokenError;

use super::process::TokenProcess;
use super::thread::{BACKOFF, Next, Thread, answer};
use super::{Job, KeyState};
use crate::log;
use crate::panics::INTERNAL_ERROR;

/// So often in a row a token that was lost is opened again at once; then only after a [`BACKOFF`].
const QUICK_REOPENINGS: u32 = 5;

/// A token that can be opened but is lost again and again is tried every few seconds all the same: it serves
/// in between.
const LOSS_DOUBLINGS: u32 = 2;

/// A token that served so long before it was lost starts a new row.
const STABLE: Duration = Duration::from_secs(30);

impl Thread {
    /// The token does not sign any more. Its program may have it again, if it still answers.
    pub(super) fn lost(&mut self, error: TokenError, process: TokenProcess) -> Next {
        match &error {
            TokenError::Gone(_) => match self.lost_for_good(error) {
                Next::Open(_) => Next::Open(Some(process)),
                next => next,
            },
            TokenError::Hung(_) => {
                drop(process);
                self.lost_for_good(error)
            }
            // It lies, or must not go on: politely, while it answers. What a killed program had in a TPM
            // would stay there.
            _ => {
                process.close();
                self.sessions.1.clear();
                self.lost_for_good(error)
            }
        }
    }

    /// What was not signed gets its second try, or its error.
    pub(super) fn lost_for_good(&mut self, error: TokenError) -> Next {
        let mut jobs: Vec<_> = self.in_flight.drain().collect();
        jobs.sort_by_key(|(id, _)| *id);
        for (_, (job, _)) in jobs {
            self.try_again(job, &error);
        }
        if self.opened_at.elapsed() >= STABLE {
            self.losses = 0;
        }
        self.losses += 1;
        if matches!(error, TokenError::PinRejected(_)) || self.losses > QUICK_REOPENINGS {
            return self.failed_to_open(error);
        }
        log::warn(&format!("{}: {error}; opening it again", self.open));
        self.set_opening(|state| matches!(state, KeyState::Ready { .. }));
        Next::Open(None)
    }

    pub(super) fn try_again(&mut self, mut job: Job, error: &TokenError) {
        if job.again {
            answer(job, Err(error.clone()));
        } else {
            job.again = true;
            self.queue.push_again(job);
        }
    }

    /// Answers everything that waits.
    pub(super) fn refuse_all(&mut self, error: &TokenError) {
        let in_flight = self.in_flight.drain().map(|(_, (job, _))| job);
        for job in in_flight.chain(self.queue.drain()) {
            answer(job, Err(error.clone()));
        }
        self.count_waiting();
    }

    /// The state of a key that failed alone. Comes back as the error where it is the token's.
    pub(super) fn failed_key(
        &mut self,
        key: usize,
        error: TokenError,
    ) -> Result<KeyState, TokenError> {
        let retry_at = match &error {
            TokenError::Unusable(_) => None,
            // Somebody may end the wait: to look costs no try.
            TokenError::Wait { seconds, .. } => {
                let wait = Duration::from_secs(*seconds);
                self.reopen_in(wait.min(BACKOFF.1));
                Some(Instant::now() + wait)
            }
            // The other keys go on, and seldom wait for another try of this one.
            TokenError::Gone(_) | TokenError::Hung(_) | TokenError::Broken(_) => {
                Some(self.reopen_in(BACKOFF.1))
            }
            TokenError::PinRejected(_) if self.open.set_aside(key) => {
                self.judge_pin(Some(key), &error);
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

    /// A bug of ours: the token program was killed with it. What waits is refused, and the token opened again
    /// after a while, unless a PIN may have been tried whose fate nobody knows now.
    pub(super) fn after_panic(&mut self) -> Next {
        let error = TokenError::Gone(INTERNAL_ERROR.to_owned());
        let error = self.lose_pins(error);
        self.failed_to_open(error)
    }

    pub(super) fn failed_to_open(&mut self, error: TokenError) -> Next {
        self.judge_pins(&error);
        let wait = match &error {
            TokenError::Gone(_) | TokenError::Hung(_) | TokenError::Broken(_) => Some(backoff(
                self.failures.max(
                    self.losses
                        .saturating_sub(QUICK_REOPENINGS)
                        .min(LOSS_DOUBLINGS),
                ),
            )),
            TokenError::Wait { seconds, .. } => Some(Duration::from_secs(*seconds)),
            TokenError::PinRejected(_) | TokenError::Unusable(_) => None,
        };
        let retry_at = wait.map(|wait| Instant::now() + wait);
        self.failures = self.failures.saturating_add(1);
        let mut own_errors = std::mem::take(&mut self.own_errors);
        let state = |key| match self.refused.get(&key) {
            Some(refused) => KeyState::Failed {
                error: refused.clone(),
                retry_at: None,
            },
            None => KeyState::Failed {
                error: own_errors.remove(&key).unwrap_or_else(|| error.clone()),
                retry_at,
            },
        };
        let states: Vec<KeyState> = (0..self.open.key_count()).map(state).collect();
        self.log_states(&states);
        self.set_states(states);
        self.refuse_all(&error);
        Next::Refuse(error, retry_at)
    }
}

/// A failure that passes, where no key can sign: then it is the token's.
pub(super) fn failure_of_all(states: &[KeyState]) -> Option<TokenError> {
    let mut passing = None;
    for state in states {
        match state {
            KeyState::Failed {
                error: error @ (TokenError::Gone(_) | TokenError::Hung(_) | TokenError::Broken(_)),
                ..
            } => passing = Some(error.clone()),
            KeyState::Failed { .. } => {}
            KeyState::Opening | KeyState::Ready { .. } => return None,
        }
    }
    passing
}

/// The errors of keys that failed, each with its own.
pub(super) fn own_errors(states: Vec<KeyState>) -> HashMap<usize, TokenError> {
    let states = states.into_iter().enumerate();
    let errors = states.filter_map(|(key, state)| match state {
        KeyState::Failed { error, .. } => Some((key, error)),
        KeyState::Opening | KeyState::Ready { .. } => None,
    });
    errors.collect()
}

fn backoff(failures: u32) -> Duration {
    let (first, longest) = BACKOFF;
    let full = first.saturating_mul(1 << failures.min(16)).min(longest);
    full.mul_f64(0.75 + fastrand::f64() / 4.0) // so that many hosts do not come back at once
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_times_grow_to_a_minute() {
        for (failures, longest) in [(0, 1), (1, 2), (5, 32), (6, 60), (u32::MAX, 60)] {
            let wait = backoff(failures);
            assert!(wait <= Duration::from_secs(longest), "{wait:?}");
            assert!(wait >= Duration::from_millis(longest * 750), "{wait:?}");
        }
    }
}
