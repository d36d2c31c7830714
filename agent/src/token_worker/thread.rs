//! The thread that owns a token: opens it, hands out what is to be signed until the token is lost, and
//! opens it again, or refuses.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use token::link::{FromToken, Open, ToToken};
use token::{PinFingerprint, Signature, TokenError};

use super::pin_tries::KeyPin;
use super::process::{self, TokenProcess};
use super::queue::Queue;
use super::{ClosedSignal, Event, Job, KeyOwner, KeyState, NotSigned, Shared};
use crate::launcher::TokenPrograms;
use crate::panics::contain;
use crate::sync::left;
use config::certificate::LeafSource;

/// The thread that owns the token.
pub(super) struct Thread {
    pub(super) programs: TokenPrograms,
    /// As it was asked for.
    original: Open,
    /// As it is opened: without the keys whose PIN was refused.
    pub(super) open: Open,
    pub(super) inbox: Receiver<Event>,
    pub(super) events: Sender<Event>,
    pub(super) shared: Arc<Shared>,
    /// Which token program is the current one: answers of earlier ones are of no account.
    pub(super) generation: u64,
    /// Attempts to open in a row that failed.
    pub(super) failures: u32,
    /// Times in a row that an open token was lost.
    pub(super) losses: u32,
    pub(super) opened_at: Instant,
    /// How long that took.
    pub(super) opening_took: Duration,
    /// The PINs that the token was opened with, by key; `None` for its own.
    pub(super) pins: HashMap<Option<usize>, KeyPin>,
    /// Those that the token has accepted once.
    pub(super) good_pins: HashMap<Option<usize>, PinFingerprint>,
    /// Keys whose signatures each try the token's PIN again.
    pub(super) logs_in: HashSet<usize>,
    /// The sessions that a token program had in the TPM when it last told, and its generation.
    pub(super) sessions: (u64, Vec<u32>),
    last_answer: Instant,
    /// Keys whose own PIN was refused: they are set aside, in this token program and in all later ones.
    pub(super) refused: HashMap<usize, TokenError>,
    /// What failed of each key when none could sign: taken up by the next states.
    pub(super) own_errors: HashMap<usize, TokenError>,
    /// When to open the token again for a key that has to wait, while others sign.
    pub(super) reopen_at: Option<Instant>,
    pub(super) queue: Queue,
    /// By id, with when it was sent.
    pub(super) in_flight: HashMap<u64, (Job, Instant)>,
    last_id: u64,
    /// The id of the last proof of a key.
    pub(super) proof_id: u64,
    /// An operator asked for another look while the token was being opened.
    pub(super) retry: bool,
    /// The agent wants no more.
    pub(super) closing: bool,
}

/// What the thread does next.
pub(super) enum Next {
    /// Open the token, by the token program that had it, or by a new one.
    Open(Option<TokenProcess>),
    /// Refuse everything, and open again at that time, if there is one.
    Refuse(TokenError, Option<Instant>),
    Close,
}

/// Between attempts to open a token that is away: doubled each time, from the first to the second.
pub(super) const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// For one signature. RSA-4096 on the slowest smart card takes 3 s.
pub(super) const SIGN_LIMIT: Duration = Duration::from_secs(8);

/// For one signature while others come: the token may do one at a time.
const QUEUED_SIGN_LIMIT: Duration = Duration::from_secs(24);

/// How long an earlier token program for the same token may take to finish what it was asked, and to close.
const PREDECESSOR_LIMIT: Duration = Duration::from_secs(30);

impl Thread {
    pub(super) fn new(
        programs: TokenPrograms,
        open: Open,
        inbox: Receiver<Event>,
        events: Sender<Event>,
        shared: Arc<Shared>,
    ) -> Thread {
        Thread {
            programs,
            original: open.clone(),
            open,
            inbox,
            events,
            shared,
            generation: 0,
            failures: 0,
            losses: 0,
            opened_at: Instant::now(),
            opening_took: Duration::ZERO,
            pins: HashMap::new(),
            good_pins: HashMap::new(),
            logs_in: HashSet::new(),
            sessions: (0, Vec::new()),
            last_answer: Instant::now(),
            refused: HashMap::new(),
            own_errors: HashMap::new(),
            reopen_at: None,
            queue: Queue::default(),
            in_flight: HashMap::new(),
            last_id: 0,
            proof_id: 0,
            retry: false,
            closing: false,
        }
    }

    /// Owns the token until the agent wants no more of it; begins when the `predecessors` have closed it.
    pub(super) fn run(mut self, predecessors: &[Arc<ClosedSignal>]) {
        let deadline = Instant::now() + PREDECESSOR_LIMIT;
        for predecessor in predecessors {
            predecessor.wait(deadline);
        }
        let mut next = Next::Open(None);
        loop {
            let step = contain(|| match next {
                Next::Open(running) => Some(self.open_and_serve(running)),
                Next::Refuse(error, until) => Some(self.refuse(&error, until)),
                Next::Close => None,
            });
            next = match step {
                Some(Some(next)) => next,
                Some(None) => break,
                None => self.after_panic(),
            };
        }
        let error = ending();
        self.lose_pins(error.clone());
        let ended = KeyState::Failed {
            error: error.clone(),
            retry_at: None,
        };
        self.refuse_all(&error);
        self.set_states(vec![ended; self.original.key_count()]);
        self.shared.end.tell();
    }

    /// Opens the token and serves until it is lost.
    fn open_and_serve(&mut self, running: Option<TokenProcess>) -> Next {
        let opened = self.open_token(running);
        if self.closing {
            match opened {
                Ok(process) => process.close(),
                Err(error) => self.judge_pins(&error),
            }
            return Next::Close;
        }
        match opened {
            Ok(process) => {
                self.failures = 0;
                if std::mem::take(&mut self.retry) {
                    self.look_again_soon();
                }
                self.serve(process)
            }
            Err(error) => self.failed_to_open(error),
        }
    }

    /// Refuses everything, until then or for ever.
    fn refuse(&mut self, error: &TokenError, until: Option<Instant>) -> Next {
        loop {
            if std::mem::take(&mut self.retry) {
                self.take_refused_back();
                self.set_opening(|_| true);
                return Next::Open(None);
            }
            let event = match until {
                Some(until) => self.inbox.recv_timeout(left(until)),
                None => self
                    .inbox
                    .recv()
                    .map_err(|_| RecvTimeoutError::Disconnected),
            };
            match event {
                Ok(Event::Sign(job)) => {
                    let own = match self.shared.state(&self.shared.lock(), job.key) {
                        KeyState::Failed { error, .. } => error,
                        _ => error.clone(),
                    };
                    answer(job, Err(own));
                }
                Ok(Event::Retry) => self.retry = true,
                Ok(Event::Answer(..) | Event::Turn | Event::Distrust | Event::Reopen) => {}
                #[cfg(test)]
                Ok(Event::Panic) => panic!("in a test"),
                Err(RecvTimeoutError::Timeout) => return Next::Open(None),
                Ok(Event::Close) | Err(RecvTimeoutError::Disconnected) => return Next::Close,
            }
        }
    }

    /// Has the token opened again for keys that may have been mended or replaced, and for certificates on it, as soon
    /// as what it signs now is signed.
    fn look_again_soon(&mut self) {
        let owners = self.shared.owners();
        let on_token = |owner: &KeyOwner| matches!(owner.certificate.leaf, LeafSource::Token(_));
        if self.has_state(is_failed) || owners.iter().any(on_token) || self.open.has_pin_at_handle()
        {
            self.take_refused_back();
            self.set_opening(is_failed);
            self.reopen_at = Some(Instant::now());
        }
    }

    /// What is refused once more stays so.
    fn take_refused_back(&mut self) {
        for (key, _) in self.refused.drain() {
            self.open.take_back(key, &self.original);
        }
        self.losses = 0;
    }

    /// Whoever asks for these keys waits.
    pub(super) fn set_opening(&self, which: impl Fn(&KeyState) -> bool) {
        for state in self.shared.lock().iter_mut() {
            if which(state) {
                *state = KeyState::Opening;
            }
        }
    }

    /// Hands out what is to be signed until the token is lost.
    fn serve(&mut self, mut process: TokenProcess) -> Next {
        loop {
            let event = match self.hand_out(&mut process).and_then(|()| self.next_event()) {
                Ok(Some(event)) => event,
                Ok(None) => return Next::Close,
                Err(lost) => return self.lost(lost, process),
            };
            let lost = match event {
                Event::Sign(job) => {
                    self.enqueue(job);
                    continue;
                }
                Event::Answer(generation, ..) if generation != self.generation => continue,
                Event::Answer(_, Some(FromToken::Signed { id, result }), _) => {
                    match self.take_answer(id, result) {
                        Ok(()) => continue,
                        Err(lost) => lost,
                    }
                }
                Event::Answer(_, answer, _) => {
                    drop(process);
                    let lost = match answer {
                        None => process::ended(),
                        Some(_) => process::nonsense(),
                    };
                    return self.lost_for_good(lost);
                }
                Event::Turn => continue,
                // One that was found out before the token was opened again is settled.
                Event::Distrust if !self.has_state(|state| matches!(state, KeyState::Opening)) => {
                    continue;
                }
                Event::Distrust => TokenError::Broken("it signed wrongly".to_owned()),
                Event::Retry => {
                    self.look_again_soon();
                    continue;
                }
                Event::Reopen => return Next::Open(Some(process)),
                #[cfg(test)]
                Event::Panic => panic!("in a test"),
                Event::Close => {
                    process.close();
                    return Next::Close;
                }
            };
            return self.lost(lost, process);
        }
    }

    pub(super) fn enqueue(&mut self, job: Job) {
        if let Some(refused) = self.queue.push(job) {
            let _ = refused.answer.send(Err(NotSigned::Busy)); // its caller may have given up
        }
        self.count_waiting();
    }

    /// Gives the token program as much as it can work on.
    fn hand_out(&mut self, process: &mut TokenProcess) -> Result<(), TokenError> {
        let reopen = self.reopen_at.is_some_and(|at| at <= Instant::now());
        while self.in_flight.len() < self.open.at_once() && !reopen {
            let Some(job) = self.queue.pop(Instant::now()) else {
                break;
            };
            if let KeyState::Failed { error, .. } = self.shared.state(&self.shared.lock(), job.key)
            {
                answer(job, Err(error)); // it failed while the job waited
                continue;
            }
            if let Some(error) = self.refused_elsewhere(job.key) {
                answer(job, Err(error.clone()));
                return Err(error);
            }
            let id = self.next_id();
            let message = ToToken::Sign {
                id,
                key: job.key,
                text: job.text.clone(),
            };
            let sent = process.send(&message);
            self.in_flight.insert(id, (job, Instant::now()));
            sent?;
        }
        self.count_waiting();
        Ok(())
    }

    pub(super) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// The next event; an error when the token program hangs.
    fn next_event(&self) -> Result<Option<Event>, TokenError> {
        let hung_at = self.hung_at();
        let Some(until) = hung_at.or(self.reopen_at) else {
            return Ok(self.inbox.recv().ok());
        };
        match self.inbox.recv_timeout(left(until)) {
            Ok(event) => Ok(Some(event)),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) if hung_at.is_none() => Ok(Some(Event::Reopen)),
            Err(RecvTimeoutError::Timeout) => Err(process::hung(SIGN_LIMIT)),
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
    pub(super) fn take_answer(
        &mut self,
        id: u64,
        result: Result<Signature, TokenError>,
    ) -> Result<(), TokenError> {
        self.last_answer = Instant::now();
        let Some((job, _)) = self.in_flight.remove(&id) else {
            return Ok(());
        };
        match result {
            Err(lost @ (TokenError::Gone(_) | TokenError::Hung(_))) => {
                self.try_again(job, &lost);
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

    pub(super) fn count_waiting(&self) {
        let waiting = self.queue.len();
        self.shared.waiting.store(waiting, Ordering::Relaxed);
    }

    fn has_state(&self, of: impl Fn(&KeyState) -> bool) -> bool {
        self.shared.lock().iter().any(of)
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

fn is_failed(state: &KeyState) -> bool {
    matches!(state, KeyState::Failed { .. })
}

/// The error of a token whose agent ends.
pub(super) fn ending() -> TokenError {
    TokenError::Gone("the agent is ending".to_owned())
}

pub(super) fn answer(job: Job, result: Result<Signature, TokenError>) {
    let _ = job.answer.send(result.map_err(NotSigned::Token)); // its caller may have given up
}
