//! The owner of one token: one thread, which starts the token program, hands it what is to be signed,
//! and recovers. What the token can do is in [`KeyState`]s that everyone may read.
//!
//! Recovery is here alone, and once a request: when the token is gone or hung, its program is ended
//! and started again, and what was not signed is given to the new one, a second time and no third. A
//! refused PIN is not tried again: a token's PIN closes the token, a key's own PIN that key alone.

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
    /// It does not sign, and why. What has a `retry_at` may pass by itself.
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

/// Finds a certificate, given the one on the token as DER.
pub type Certify = Box<dyn Fn(Option<Vec<u8>>) -> Result<Certificate, String> + Send>;

/// Whose key it is.
pub struct KeyOwner {
    /// The identity's name, for the log.
    pub identity: String,
    /// The key's certificate, given the one on the token. Asked each time the token opens.
    pub certify: Certify,
}

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
    /// A key has waited long enough. Nobody sends this: its time comes.
    Reopen,
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

/// For a login over a slow network HSM; and then for each key, which a slow TPM takes half a second to
/// load.
const OPEN_LIMIT: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(1));

/// For one signature. RSA-4096 on the slowest smart card takes 3 s.
const SIGN_LIMIT: Duration = Duration::from_secs(8);

/// For one signature while others come: the token may do one at a time.
const QUEUED_SIGN_LIMIT: Duration = Duration::from_secs(24);

/// Between attempts to open a token that is away: doubled each time, from the first to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// So often in a row a token that was lost is opened again at once; then only after a [`BACKOFF`].
const QUICK_REOPENINGS: u32 = 5;

/// A token that served so long before it was lost starts a new row.
const STABLE: Duration = Duration::from_secs(30);

impl Keeper {
    /// Starts to open the token. `owners` has one entry for each key of `open`.
    pub fn start(program: PathBuf, open: Open, owners: Vec<KeyOwner>) -> std::io::Result<Keeper> {
        let (events, inbox) = mpsc::channel();
        let shared = Arc::new(Shared {
            states: Mutex::new(vec![KeyState::Opening; open.key_count()]),
            changed: Condvar::new(),
            pending: AtomicUsize::new(0),
        });
        let thread = Thread {
            program,
            open,
            owners,
            inbox,
            events: events.clone(),
            shared: Arc::clone(&shared),
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
    owners: Vec<KeyOwner>,
    inbox: Receiver<Event>,
    events: Sender<Event>,
    shared: Arc<Shared>,
    /// Which token program is the current one: answers of earlier ones are of no account.
    generation: u64,
    /// Attempts to open in a row that failed.
    failures: u32,
    /// Times in a row that an open token was lost.
    losses: u32,
    opened_at: Instant,
    /// The token has taken it once.
    pin_is_good: bool,
    last_answer: Instant,
    /// Keys whose own PIN was refused: they are set aside, in this token program and in all later ones.
    refused: HashMap<usize, TokenError>,
    /// When to open the token again for a key that has to wait, while others sign.
    reopen_at: Option<Instant>,
    waiting: VecDeque<Job>,
    /// By id, with when it was sent.
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
        self.reopen_at = None;
        let (login, each) = OPEN_LIMIT;
        let keys = u32::try_from(self.owners.len()).unwrap_or(u32::MAX);
        let limit = login + each.saturating_mul(keys);
        let (mut process, reports) =
            TokenProcess::start(&self.program, self.open.clone(), limit, self.pin_is_good)?;
        self.pin_is_good = true;
        // Before anything else can fail: what was refused must not be tried by the next token program.
        for (key, report) in reports.iter().enumerate() {
            if let Err(error @ TokenError::PinRejected(_)) = report {
                self.failed_key(key, error.clone())?;
            }
        }
        let mut states = Vec::new();
        for (key, report) in reports.into_iter().enumerate() {
            let proved = match self.refused.get(&key) {
                Some(error) => Err(error.clone()),
                None => self.prove(&mut process, key, report)?,
            };
            states.push(match proved {
                Ok(ready) => ready,
                Err(error) => self.failed_key(key, error)?,
            });
        }
        if let Some(error) = failure_of_all(&states) {
            return Err(error);
        }
        let generation = self.generation;
        process.read_into(self.events.clone(), move |answer| {
            Event::Answer(generation, answer)
        })?;
        self.opened_at = Instant::now();
        self.log_states(&states);
        self.set_states(states);
        Ok(process)
    }

    /// Whether the key is its certificate's: it signs a text of today that belongs to no request, and
    /// the certificate verifies it. So every open proves every key anew, whatever its handle says. The
    /// outer error means that the program is lost.
    fn prove(
        &self,
        process: &mut TokenProcess,
        key: usize,
        report: KeyReport,
    ) -> Result<Result<KeyState, TokenError>, TokenError> {
        let (certificate, warnings, text) = match self.prepare_proof(key, report) {
            Ok(prepared) => prepared,
            Err(error) => return Ok(Err(error)),
        };
        let signature = match process.sign_and_wait(key, &text, SIGN_LIMIT)? {
            Ok(signature) => signature,
            Err(error) => return Ok(Err(error)),
        };
        if !certificate.verifies(&text.to_string(), &signature) {
            return Ok(Err(TokenError::Unusable(format!(
                "the certificate (serial {}, {}) is not of this key: its public key does not verify \
                 what the key signs; install the certificate that was issued for this key",
                certificate.serial, certificate.subject
            ))));
        }
        Ok(Ok(KeyState::Ready {
            certificate: Arc::new(certificate),
            warnings,
        }))
    }

    fn prepare_proof(
        &self,
        key: usize,
        report: KeyReport,
    ) -> Result<(Certificate, Vec<String>, StringToSign), TokenError> {
        let opened = report?;
        let certificate = match self.owners.get(key) {
            Some(owner) => (owner.certify)(opened.certificate).map_err(TokenError::Unusable)?,
            None => return Err(TokenError::Unusable("it has no certificate".to_owned())),
        };
        let text = proof(&certificate).map_err(TokenError::Broken)?;
        Ok((certificate, opened.warnings, text))
    }

    fn log_states(&self, states: &[KeyState]) {
        for (owner, state) in self.owners.iter().zip(states) {
            let identity = &owner.identity;
            match state {
                KeyState::Opening => {}
                KeyState::Ready {
                    certificate,
                    warnings,
                } => {
                    let (serial, until) = (&certificate.serial, certificate.not_after);
                    audit::info(&format!(
                        "ready identity={identity} serial={serial} until={until}"
                    ));
                    for warning in warnings {
                        audit::warn(&format!("warning identity={identity} {warning:?}"));
                    }
                }
                KeyState::Failed { error, .. } => {
                    audit::warn(&format!(
                        "failed identity={identity} reason={:?}",
                        error.to_string()
                    ));
                }
            }
        }
    }

    /// The state of a key that failed alone. Comes back as the error where it is the token's.
    fn failed_key(&mut self, key: usize, error: TokenError) -> Result<KeyState, TokenError> {
        let retry_at = match &error {
            TokenError::Unusable(_) | TokenError::Broken(_) => None,
            TokenError::Wait { seconds, .. } => Some(self.reopen_in(Duration::from_secs(*seconds))),
            // The other keys go on, and seldom wait for another try of this one.
            TokenError::Gone(_) | TokenError::Hung(_) => Some(self.reopen_in(BACKOFF.1)),
            TokenError::PinRejected(_) if self.open.set_aside(key) => {
                self.refused.insert(key, error.clone());
                None
            }
            TokenError::PinRejected(_) => return Err(error),
        };
        Ok(KeyState::Failed { error, retry_at })
    }

    /// Has the token opened again then, or earlier.
    fn reopen_in(&mut self, wait: Duration) -> Instant {
        let retry_at = Instant::now() + wait;
        self.reopen_at = Some(self.reopen_at.map_or(retry_at, |at| at.min(retry_at)));
        retry_at
    }

    fn failed_to_open(&mut self, error: TokenError) -> Next {
        let wait = match &error {
            TokenError::Gone(_) | TokenError::Hung(_) | TokenError::Broken(_) => Some(backoff(
                self.failures
                    .max(self.losses.saturating_sub(QUICK_REOPENINGS)),
            )),
            TokenError::Wait { seconds, .. } => Some(Duration::from_secs(*seconds)),
            TokenError::PinRejected(_) | TokenError::Unusable(_) => None,
        };
        let retry_at = wait.map(|wait| Instant::now() + wait);
        self.failures = self.failures.saturating_add(1);
        let state = |key| match self.refused.get(&key) {
            Some(refused) => KeyState::Failed {
                error: refused.clone(),
                retry_at: None,
            },
            None => KeyState::Failed {
                error: error.clone(),
                retry_at,
            },
        };
        let states: Vec<KeyState> = (0..self.owners.len()).map(state).collect();
        self.log_states(&states);
        self.set_states(states);
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
            if let Some(refused) = self.refused.get(&job.key) {
                let refused = refused.clone();
                answer(job, Err(refused));
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

    fn set_states(&self, states: Vec<KeyState>) {
        *self.shared.lock() = states;
        self.shared.changed.notify_all();
    }
}

fn answer(job: Job, result: Result<Signature, TokenError>) {
    let _ = job.answer.send(result); // its caller may have given up
}

/// A failure that passes, where no key can sign: then it is the token's.
fn failure_of_all(states: &[KeyState]) -> Option<TokenError> {
    let mut passing = None;
    for state in states {
        match state {
            KeyState::Failed {
                error: error @ (TokenError::Gone(_) | TokenError::Hung(_)),
                ..
            } => passing = Some(error.clone()),
            KeyState::Failed { .. } => {}
            KeyState::Opening | KeyState::Ready { .. } => return None,
        }
    }
    passing
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use token::Pkcs11Uri;
    use token::link::{OpenKey, OpenPkcs11};

    /// A token program in shell. Its standard input is the link; each start leaves a line in `starts`.
    struct Script(tempfile::TempDir);

    impl Script {
        fn new(body: &str) -> Script {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("program");
            let text = format!("#!/bin/sh\necho >> \"${{0%/*}}/starts\"\n{body}\n");
            // Not written by this process: while a file is open for writing in one that forks, it cannot
            // be executed.
            let written = Command::new("sh")
                .args(["-c", "printf %s \"$2\" > \"$1\"; chmod 755 \"$1\"", "sh"])
                .arg(&path)
                .arg(text)
                .status();
            assert!(written.unwrap().success());
            Script(directory)
        }

        fn keeper(&self) -> Keeper {
            let open = Open::Pkcs11(Box::new(OpenPkcs11 {
                module: "/module.so".into(),
                token: Pkcs11Uri::default(),
                pin: None,
                sessions: 1,
                keys: vec![OpenKey {
                    uri: Pkcs11Uri::default(),
                    certificate: None,
                }],
            }));
            let owner = KeyOwner {
                identity: "web".to_owned(),
                certify: Box::new(|_| Err("there is none".to_owned())),
            };
            Keeper::start(self.0.path().join("program"), open, vec![owner]).unwrap()
        }

        fn starts(&self) -> usize {
            let starts = std::fs::read_to_string(self.0.path().join("starts")).unwrap();
            starts.lines().count()
        }
    }

    fn settled(keeper: &Keeper) -> (TokenError, Option<Instant>) {
        match keeper.settled_state(0, Instant::now() + Duration::from_secs(20)) {
            KeyState::Failed { error, retry_at } => (error, retry_at),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_program_that_dies_while_it_tries_the_first_pin_is_not_started_again() {
        let script = Script::new(r#"printf '\000\000\000\013"TryingPin"' >&0; kill -SEGV $$"#);
        let keeper = script.keeper();
        let (error, retry_at) = settled(&keeper);
        assert!(matches!(error, TokenError::PinRejected(_)), "{error:?}");
        assert_eq!(retry_at, None);
        // A keeper that is closed has done all that it will ever do.
        keeper.close();
        keeper.wait_closed(Instant::now() + Duration::from_secs(20));
        assert_eq!(script.starts(), 1);
    }

    #[test]
    fn a_program_that_dies_before_it_tries_a_pin_is_tried_again_later() {
        let (error, retry_at) = settled(&Script::new("exit 1").keeper());
        assert!(matches!(error, TokenError::Gone(_)), "{error:?}");
        assert!(retry_at.is_some());
    }

    #[test]
    fn an_answer_that_makes_no_sense_is_no_crash() {
        for garbage in [
            r"\000\000\000\001x",
            r"\377\377\377\377",
            r#"\000\000\000\002{}"#,
        ] {
            let script = Script::new(&format!("printf '{garbage}' >&0; cat >/dev/null <&0"));
            let (error, _) = settled(&script.keeper());
            assert!(
                matches!(error, TokenError::Gone(_) | TokenError::Broken(_)),
                "{error:?}"
            );
        }
    }

    #[test]
    fn waiting_times_grow_to_a_minute() {
        for (failures, longest) in [(0, 1), (1, 2), (5, 32), (6, 60), (u32::MAX, 60)] {
            let wait = backoff(failures);
            assert!(wait <= Duration::from_secs(longest), "{wait:?}");
            assert!(wait >= Duration::from_millis(longest * 750), "{wait:?}");
        }
    }
}
