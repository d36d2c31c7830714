//! The owner of one token: one thread, which starts the token program, hands it what is to be signed,
//! and recovers. What the token can do is in [`KeyState`]s that everyone may read.
//!
//! Recovery is here alone, and once a request: when the token is gone or hung, its program is ended
//! and started again, and what was not signed is given to the new one, a second time and no third. A
//! refused PIN is not tried again.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use token::link::{FromToken, KeyReport, Open, ToToken};
use token::{AmzDate, Signature, StringToSign, TokenError};

use crate::audit;
use crate::certificate::Certificate;
use crate::token_process::{self, TokenProcess};

/// What one key of a token can do now.
#[derive(Debug, Clone)]
pub enum KeyState {
    /// The token is being opened.
    Opening,
    /// It signs for this certificate.
    Ready {
        /// The certificate that a signature of the key has proved to be its own.
        certificate: Arc<Certificate>,
        /// What works, but should not stay so.
        warnings: Vec<String>,
    },
    /// It does not sign, and why. Only [`TokenError::Gone`] and [`TokenError::Hung`] pass by themselves.
    Failed {
        /// Why.
        error: TokenError,
        /// When the token is tried again, if it is.
        retry_at: Option<Instant>,
    },
}

impl KeyState {
    /// The certificate that it signs for.
    pub fn certificate(&self) -> Option<&Arc<Certificate>> {
        match self {
            KeyState::Ready { certificate, .. } => Some(certificate),
            _ => None,
        }
    }
}

/// Where a key's certificate comes from, given what the token has. Asked each time the token opens.
pub type Certify = Box<dyn Fn(Option<Vec<u8>>) -> Result<Certificate, String> + Send>;

/// Why nothing was signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotSigned {
    /// The token's fault.
    Token(TokenError),
    /// Too many are waiting for this token.
    Busy,
    /// It was not signed in time.
    Late,
}

/// A handle on the thread that owns a token.
#[derive(Debug)]
pub struct Keeper {
    events: Sender<Event>,
    shared: Arc<Shared>,
    /// Its sender ends with the thread.
    ended: Mutex<Receiver<()>>,
}

#[derive(Debug)]
struct Shared {
    states: Mutex<Vec<KeyState>>,
    /// Told when a state changes.
    changed: Condvar,
    /// Requests that wait or are being signed.
    pending: AtomicUsize,
}

#[derive(Debug)]
enum Event {
    Sign(Job),
    /// From the token program of that generation; `None` when it is gone.
    Answer(u64, Option<FromToken>),
    /// It signed wrongly, and is to be opened again.
    Distrust,
    Close,
}

#[derive(Debug)]
struct Job {
    key: usize,
    text: String,
    deadline: Instant,
    /// It was lost with a token program before.
    again: bool,
    answer: SyncSender<Result<Signature, TokenError>>,
}

/// Enough for the callers of a large host at once; what waits beyond that on a token that signs ten a
/// second would not be signed in time anyway.
const PENDING_LIMIT: usize = 512;

/// For a login and a search over a slow network HSM.
const OPEN_DEADLINE: Duration = Duration::from_secs(30);

/// For one signature. RSA-4096 on the slowest smart card takes 3 s.
const SIGN_DEADLINE: Duration = Duration::from_secs(8);

/// Between attempts to open a token that is away: doubled each time, from the first to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

impl Keeper {
    /// Starts to open the token. `certify` has one entry for each of `open.keys`.
    pub fn start(program: PathBuf, open: Open, certify: Vec<Certify>) -> std::io::Result<Keeper> {
        let (events, inbox) = mpsc::channel();
        let shared = Arc::new(Shared {
            states: Mutex::new(vec![KeyState::Opening; open.keys.len()]),
            changed: Condvar::new(),
            pending: AtomicUsize::new(0),
        });
        let thread = Thread {
            program,
            open,
            certify,
            inbox,
            events: events.clone(),
            shared: Arc::clone(&shared),
            generation: 0,
            failures: 0,
            waiting: VecDeque::new(),
            in_flight: HashMap::new(),
            next_id: 0,
        };
        let (running, ended) = mpsc::channel();
        let run = move || {
            thread.run();
            drop(running);
        };
        std::thread::Builder::new()
            .name("keeper".to_owned())
            .spawn(run)?;
        Ok(Keeper {
            events,
            shared,
            ended: Mutex::new(ended),
        })
    }

    /// What the key can do now.
    pub fn state(&self, key: usize) -> KeyState {
        self.shared.state(&self.shared.lock(), key)
    }

    /// What the key can do, after the token's opening, which it waits for until `deadline`.
    pub fn settled_state(&self, key: usize, deadline: Instant) -> KeyState {
        let mut states = self.shared.lock();
        loop {
            let state = self.shared.state(&states, key);
            let left = deadline.saturating_duration_since(Instant::now());
            if !matches!(state, KeyState::Opening) || left.is_zero() {
                return state;
            }
            (states, _) = self
                .shared
                .changed
                .wait_timeout(states, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Has the text signed.
    pub fn sign(
        &self,
        key: usize,
        text: &StringToSign,
        deadline: Instant,
    ) -> Result<Signature, NotSigned> {
        let pending = Pending::enter(&self.shared.pending).ok_or(NotSigned::Busy)?;
        let (answer, result) = mpsc::sync_channel(1);
        let job = Job {
            key,
            text: text.to_string(),
            deadline,
            again: false,
            answer,
        };
        let closed = |_| NotSigned::Token(token_process::ended());
        self.events.send(Event::Sign(job)).map_err(closed)?;
        let left = deadline.saturating_duration_since(Instant::now());
        let result = match result.recv_timeout(left) {
            Ok(result) => result.map_err(NotSigned::Token),
            Err(RecvTimeoutError::Timeout) => Err(NotSigned::Late),
            Err(RecvTimeoutError::Disconnected) => Err(NotSigned::Token(token_process::ended())),
        };
        drop(pending);
        result
    }

    /// Says that a signature of the key did not verify with this certificate: the token is opened and
    /// proved again, once for all who found it out.
    pub fn distrust(&self, key: usize, certificate: &Arc<Certificate>) {
        let mut states = self.shared.lock();
        match states.get_mut(key) {
            Some(state)
                if state
                    .certificate()
                    .is_some_and(|own| Arc::ptr_eq(own, certificate)) =>
            {
                *state = KeyState::Opening;
                let _ = self.events.send(Event::Distrust); // no use any more once it is closed
            }
            _ => {}
        }
    }

    /// Asks the token to be closed. What waits is refused.
    pub fn close(&self) {
        let _ = self.events.send(Event::Close); // it may be closed already
    }

    /// Waits until the token is closed.
    pub fn wait_closed(&self, deadline: Instant) {
        let left = deadline.saturating_duration_since(Instant::now());
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = ended.recv_timeout(left); // nothing is sent: it ends with the thread
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Vec<KeyState>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self, states: &[KeyState], key: usize) -> KeyState {
        states.get(key).cloned().unwrap_or(KeyState::Opening)
    }
}

/// A place among the pending requests, given back on drop.
struct Pending<'a>(&'a AtomicUsize);

impl Pending<'_> {
    fn enter(count: &AtomicUsize) -> Option<Pending<'_>> {
        if count.fetch_add(1, Ordering::Relaxed) < PENDING_LIMIT {
            return Some(Pending(count));
        }
        count.fetch_sub(1, Ordering::Relaxed);
        None
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The thread that owns the token.
struct Thread {
    program: PathBuf,
    open: Open,
    certify: Vec<Certify>,
    inbox: Receiver<Event>,
    events: Sender<Event>,
    shared: Arc<Shared>,
    /// Which token program is the current one: answers of earlier ones are of no account.
    generation: u64,
    /// Attempts to open in a row that failed.
    failures: u32,
    waiting: VecDeque<Job>,
    in_flight: HashMap<u64, (Job, Instant)>,
    next_id: u64,
}

/// What the thread does next.
enum Next {
    Open,
    /// Refuse everything, and open again at that time, if there is one.
    Refuse(TokenError, Option<Instant>),
    Close,
}

impl Thread {
    fn run(mut self) {
        let mut next = Next::Open;
        loop {
            next = match next {
                Next::Open => self.open_and_serve(),
                Next::Refuse(error, until) => self.refuse(&error, until),
                Next::Close => return,
            };
        }
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

    fn open_token(&mut self) -> Result<TokenProcess, TokenError> {
        self.generation += 1;
        let deadline = Instant::now() + OPEN_DEADLINE;
        let (mut process, reports) =
            TokenProcess::start(&self.program, self.open.clone(), deadline)?;
        let mut states = Vec::new();
        for (key, report) in reports.into_iter().enumerate() {
            states.push(match self.prove(&mut process, key, report, deadline) {
                Ok(ready) => ready,
                // This key's fault alone; anything else is the token's.
                Err(error @ (TokenError::Unusable(_) | TokenError::Broken(_))) => {
                    KeyState::Failed {
                        error,
                        retry_at: None,
                    }
                }
                Err(error) => return Err(error),
            });
        }
        let generation = self.generation;
        process.read_into(self.events.clone(), move |answer| {
            Event::Answer(generation, answer)
        })?;
        self.set_states(states);
        Ok(process)
    }

    /// Whether the key is its certificate's: it signs a text of today that belongs to no request, and
    /// the certificate verifies it. So every open proves every key anew, whatever its handle says.
    fn prove(
        &self,
        process: &mut TokenProcess,
        key: usize,
        report: KeyReport,
        deadline: Instant,
    ) -> Result<KeyState, TokenError> {
        let opened = report?;
        let certificate = match self.certify.get(key) {
            Some(certify) => certify(opened.certificate).map_err(TokenError::Unusable)?,
            None => return Err(TokenError::Unusable("it has no certificate".to_owned())),
        };
        let text = proof(&certificate).map_err(TokenError::Broken)?;
        let signature = process.sign_and_wait(key, &text, deadline)?;
        if !certificate.verifies(&text.to_string(), &signature) {
            return Err(TokenError::Unusable(format!(
                "the certificate (serial {}, {}) is not of this key: its public key does not verify \
                 what the key signs; install the certificate that was issued for this key",
                certificate.serial, certificate.subject
            )));
        }
        Ok(KeyState::Ready {
            certificate: Arc::new(certificate),
            warnings: opened.warnings,
        })
    }

    fn failed_to_open(&mut self, error: TokenError) -> Next {
        let passing = match error {
            TokenError::Gone(_) | TokenError::Hung(_) | TokenError::Broken(_) => true,
            TokenError::PinRejected(_) | TokenError::Unusable(_) => false,
        };
        let retry_at = passing.then(|| Instant::now() + backoff(self.failures));
        self.failures = self.failures.saturating_add(1);
        audit::warn(&format!("{}: {error}", self.open.token));
        let state = KeyState::Failed {
            error: error.clone(),
            retry_at,
        };
        self.set_states(vec![state; self.open.keys.len()]);
        for job in self.waiting.drain(..) {
            answer(job, Err(error.clone()));
        }
        Next::Refuse(error, retry_at)
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
                Ok(Event::Answer(..) | Event::Distrust) => {}
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
                Ok(Some(Event::Close)) => {
                    process.close();
                    return Next::Close;
                }
                Ok(None) => return Next::Close,
                Err(lost) => lost,
            };
            drop(process);
            return self.lost(lost);
        }
    }

    /// Gives the token program as much as it can work on.
    fn hand_out(&mut self, process: &mut TokenProcess) -> Result<(), TokenError> {
        while self.in_flight.len() < self.open.sessions {
            let Some(job) = self.waiting.pop_front() else {
                break;
            };
            if job.deadline <= Instant::now() {
                continue; // its caller has given up
            }
            self.next_id += 1;
            let message = ToToken::Sign {
                id: self.next_id,
                key: job.key,
                text: job.text.clone(),
            };
            let sent = process.send(&message);
            self.in_flight
                .insert(self.next_id, (job, Instant::now() + SIGN_DEADLINE));
            sent?;
        }
        Ok(())
    }

    /// The next event; an error when the token program hangs.
    fn next_event(&self) -> Result<Option<Event>, TokenError> {
        let hung_at = self.in_flight.values().map(|(_, hung_at)| *hung_at).min();
        let Some(hung_at) = hung_at else {
            return Ok(self.inbox.recv().ok());
        };
        let left = hung_at.saturating_duration_since(Instant::now());
        match self.inbox.recv_timeout(left) {
            Ok(event) => Ok(Some(event)),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => Err(TokenError::Hung(format!(
                "the token did not sign within {} s",
                SIGN_DEADLINE.as_secs()
            ))),
        }
    }

    /// Passes an answer on; an error when it shows that the token is lost.
    fn take_answer(
        &mut self,
        id: u64,
        result: Result<Signature, TokenError>,
    ) -> Result<(), TokenError> {
        let Some((job, hung_at)) = self.in_flight.remove(&id) else {
            return Ok(());
        };
        match result {
            Err(lost @ (TokenError::Gone(_) | TokenError::Hung(_))) => {
                self.in_flight.insert(id, (job, hung_at)); // `lost` gives it its second try
                Err(lost)
            }
            // A context-specific login was refused: nothing on this token is tried again.
            Err(rejected @ TokenError::PinRejected(_)) => {
                answer(job, Err(rejected.clone()));
                Err(rejected)
            }
            result => {
                answer(job, result);
                Ok(())
            }
        }
    }

    /// The token program was ended. What it had not signed gets its second try, or its error.
    fn lost(&mut self, error: TokenError) -> Next {
        audit::warn(&format!("{}: {error}; opening it again", self.open.token));
        if let TokenError::PinRejected(_) = error {
            self.waiting
                .extend(self.in_flight.drain().map(|(_, (job, _))| job));
            return self.failed_to_open(error);
        }
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
        Next::Open
    }

    fn set_states(&self, states: Vec<KeyState>) {
        *self.shared.lock() = states;
        self.shared.changed.notify_all();
    }
}

fn answer(job: Job, result: Result<Signature, TokenError>) {
    let _ = job.answer.send(result); // its caller may have given up
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

fn backoff(failures: u32) -> Duration {
    let (first, longest) = BACKOFF;
    let full = first.saturating_mul(1 << failures.min(16)).min(longest);
    full.mul_f64(0.75 + fastrand::f64() / 4.0) // so that many hosts do not come back at once
}
