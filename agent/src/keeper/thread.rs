//! The thread that owns a token: opens it, hands out what is to be signed until the token is lost, and
//! opens it again, or refuses.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use token::link::{FromToken, Open, ToToken};
use token::{Signature, TokenError};

use super::{Event, Job, KeyOwner, KeyState, Shared};
use crate::audit;
use crate::launcher::TokenPrograms;
use crate::token_process::{self, TokenProcess};

/// The thread that owns the token.
pub(super) struct Thread {
    pub(super) programs: TokenPrograms,
    pub(super) open: Open,
    pub(super) owners: Vec<KeyOwner>,
    inbox: Receiver<Event>,
    pub(super) events: Sender<Event>,
    shared: Arc<Shared>,
    /// Which token program is the current one: answers of earlier ones are of no account.
    pub(super) generation: u64,
    /// Attempts to open in a row that failed.
    pub(super) failures: u32,
    /// Times in a row that an open token was lost.
    pub(super) losses: u32,
    pub(super) opened_at: Instant,
    /// The token has taken its PIN once.
    pub(super) pin_is_good: bool,
    last_answer: Instant,
    /// Keys whose own PIN was refused: they are set aside, in this token program and in all later ones.
    pub(super) refused: HashMap<usize, TokenError>,
    /// When to open the token again for a key that has to wait, while others sign.
    pub(super) reopen_at: Option<Instant>,
    pub(super) waiting: VecDeque<Job>,
    /// By id, with when it was sent.
    in_flight: HashMap<u64, (Job, Instant)>,
    next_id: u64,
}

/// What the thread does next.
pub(super) enum Next {
    Open,
    /// Refuse everything, and open again at that time, if there is one.
    Refuse(TokenError, Option<Instant>),
    Close,
}

/// For one signature. RSA-4096 on the slowest smart card takes 3 s.
pub(super) const SIGN_LIMIT: Duration = Duration::from_secs(8);

/// For one signature while others come: the token may do one at a time.
const QUEUED_SIGN_LIMIT: Duration = Duration::from_secs(24);

/// Between attempts to open a token that is away: doubled each time, from the first to the second.
pub(super) const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// So often in a row a token that was lost is opened again at once; then only after a [`BACKOFF`].
pub(super) const QUICK_REOPENINGS: u32 = 5;

/// A token that served so long before it was lost starts a new row.
const STABLE: Duration = Duration::from_secs(30);

impl Thread {
    pub(super) fn new(
        programs: TokenPrograms,
        open: Open,
        owners: Vec<KeyOwner>,
        inbox: Receiver<Event>,
        events: Sender<Event>,
        shared: Arc<Shared>,
    ) -> Thread {
        Thread {
            programs,
            open,
            owners,
            inbox,
            events,
            shared,
            generation: 0,
            failures: 0,
            losses: 0,
            opened_at: Instant::now(),
            pin_is_good: false,
            last_answer: Instant::now(),
            refused: HashMap::new(),
            reopen_at: None,
            waiting: VecDeque::new(),
            in_flight: HashMap::new(),
            next_id: 0,
        }
    }

    pub(super) fn run(mut self) {
        let mut next = Next::Open;
        loop {
            next = match next {
                Next::Open => self.open_and_serve(),
                Next::Refuse(error, until) => self.refuse(&error, until),
                Next::Close => break,
            };
        }
        let error = TokenError::Gone("the agent is ending".to_owned());
        let ended = KeyState::Failed {
            error,
            retry_at: None,
        };
        self.set_states(vec![ended; self.owners.len()]);
    }

    /// Opens the token and serves until it is lost.
    fn open_and_serve(&mut self) -> Next {
        match self.open_token() {
            Ok(process) => {
                self.failures = 0;
                self.serve(process)
            }
            Err(error) => self.failed_to_open(error),
        }
    }

    /// Refuses everything, until then or for ever.
    fn refuse(&mut self, error: &TokenError, until: Option<Instant>) -> Next {
        loop {
            let event = match until {
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    self.inbox.recv_timeout(left)
                }
                None => self
                    .inbox
                    .recv()
                    .map_err(|_| RecvTimeoutError::Disconnected),
            };
            match event {
                Ok(Event::Sign(job)) => answer(job, Err(error.clone())),
                Ok(Event::Answer(..) | Event::Distrust | Event::Reopen) => {}
                Err(RecvTimeoutError::Timeout) => return Next::Open,
                Ok(Event::Close) | Err(RecvTimeoutError::Disconnected) => return Next::Close,
            }
        }
    }

    /// Hands out what is to be signed until the token is lost.
    fn serve(&mut self, mut process: TokenProcess) -> Next {
        loop {
            let lost = match self.hand_out(&mut process).and_then(|()| self.next_event()) {
                Ok(Some(Event::Sign(job))) => {
                    self.waiting.push_back(job);
                    continue;
                }
                Ok(Some(Event::Answer(generation, _))) if generation != self.generation => continue,
                Ok(Some(Event::Answer(_, Some(FromToken::Signed { id, result })))) => {
                    match self.take_answer(id, result) {
                        Ok(()) => continue,
                        Err(lost) => lost,
                    }
                }
                Ok(Some(Event::Answer(..))) => token_process::ended(),
                Ok(Some(Event::Distrust)) => TokenError::Broken("it signed wrongly".to_owned()),
                Ok(Some(Event::Reopen)) => {
                    process.close();
                    return Next::Open;
                }
                Ok(Some(Event::Close)) => {
                    process.close();
                    return Next::Close;
                }
                Ok(None) => return Next::Close,
                Err(lost) => lost,
            };
            match lost {
                TokenError::Gone(_) | TokenError::Hung(_) => drop(process),
                // Politely while it answers: what a killed program had in a TPM would stay there.
                _ => process.close(),
            }
            return self.lost(lost);
        }
    }

    /// Gives the token program as much as it can work on.
    fn hand_out(&mut self, process: &mut TokenProcess) -> Result<(), TokenError> {
        let reopen = self.reopen_at.is_some_and(|at| at <= Instant::now());
        while self.in_flight.len() < self.open.sessions() && !reopen {
            let Some(job) = self.waiting.pop_front() else {
                break;
            };
            if job.deadline <= Instant::now() {
                continue; // its caller has given up
            }
            if let KeyState::Failed { error, .. } = self.shared.state(&self.shared.lock(), job.key)
            {
                answer(job, Err(error)); // it failed while the job waited
                continue;
            }
            self.next_id += 1;
            let message = ToToken::Sign {
                id: self.next_id,
                key: job.key,
                text: job.text.clone(),
            };
            let sent = process.send(&message);
            self.in_flight.insert(self.next_id, (job, Instant::now()));
            sent?;
        }
        Ok(())
    }

    /// The next event; an error when the token program hangs.
    fn next_event(&self) -> Result<Option<Event>, TokenError> {
        let hung_at = self.hung_at();
        let Some(until) = hung_at.or(self.reopen_at) else {
            return Ok(self.inbox.recv().ok());
        };
        let left = until.saturating_duration_since(Instant::now());
        match self.inbox.recv_timeout(left) {
            Ok(event) => Ok(Some(event)),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) if hung_at.is_none() => Ok(Some(Event::Reopen)),
            Err(RecvTimeoutError::Timeout) => Err(TokenError::Hung(format!(
                "the token did not sign within {} s",
                SIGN_LIMIT.as_secs()
            ))),
        }
    }

    /// When what is in flight has taken too long: the token has done nothing for so long, or this one
    /// thing is stuck while others pass it.
    fn hung_at(&self) -> Option<Instant> {
        let oldest = self.in_flight.values().map(|(_, sent)| *sent).min()?;
        let idle = oldest.max(self.last_answer) + SIGN_LIMIT;
        Some(idle.min(oldest + QUEUED_SIGN_LIMIT))
    }

    /// Passes an answer on; an error when it shows that the token is lost.
    fn take_answer(
        &mut self,
        id: u64,
        result: Result<Signature, TokenError>,
    ) -> Result<(), TokenError> {
        self.last_answer = Instant::now();
        let Some((job, sent)) = self.in_flight.remove(&id) else {
            return Ok(());
        };
        match result {
            Err(lost @ (TokenError::Gone(_) | TokenError::Hung(_))) => {
                self.in_flight.insert(id, (job, sent)); // `lost` gives it its second try
                Err(lost)
            }
            // Nothing with this PIN is tried again, or not yet: the key's own, or the token's, which was
            // refused in a context-specific login.
            Err(error @ (TokenError::PinRejected(_) | TokenError::Wait { .. })) => {
                let key = job.key;
                answer(job, Err(error.clone()));
                let state = self.failed_key(key, error)?;
                self.set_state(key, state);
                Ok(())
            }
            // Such as a policy that holds no longer. Opening it again tells whether that lasts.
            Err(error @ TokenError::Unusable(_)) => {
                let retry_at = Some(self.reopen_in(BACKOFF.1));
                let key = job.key;
                answer(job, Err(error.clone()));
                self.set_state(key, KeyState::Failed { error, retry_at });
                Ok(())
            }
            result => {
                answer(job, result);
                Ok(())
            }
        }
    }

    /// The token program was ended. What it had not signed gets its second try, or its error.
    fn lost(&mut self, error: TokenError) -> Next {
        let mut jobs: Vec<_> = self.in_flight.drain().collect();
        jobs.sort_by_key(|(id, _)| std::cmp::Reverse(*id)); // the oldest comes to the front last
        for (_, (mut job, _)) in jobs {
            if job.again {
                answer(job, Err(error.clone()));
            } else {
                job.again = true;
                self.waiting.push_front(job);
            }
        }
        if self.opened_at.elapsed() >= STABLE {
            self.losses = 0;
        }
        self.losses += 1;
        if matches!(error, TokenError::PinRejected(_)) || self.losses > QUICK_REOPENINGS {
            return self.failed_to_open(error);
        }
        audit::warn(&format!("{}: {error}; opening it again", self.open));
        for state in self.shared.lock().iter_mut() {
            if let KeyState::Ready { .. } = state {
                *state = KeyState::Opening; // whoever comes now waits for the new one
            }
        }
        Next::Open
    }

    fn set_state(&self, key: usize, state: KeyState) {
        if let Some(place) = self.shared.lock().get_mut(key) {
            *place = state;
        }
        self.shared.changed.notify_all();
    }

    pub(super) fn set_states(&self, states: Vec<KeyState>) {
        *self.shared.lock() = states;
        self.shared.changed.notify_all();
    }
}

pub(super) fn answer(job: Job, result: Result<Signature, TokenError>) {
    let _ = job.answer.send(result); // its caller may have given up
}

pub(super) fn backoff(failures: u32) -> Duration {
    let (first, longest) = BACKOFF;
    let full = first.saturating_mul(1 << failures.min(16)).min(longest);
    full.mul_f64(0.75 + fastrand::f64() / 4.0) // so that many hosts do not come back at once
}
