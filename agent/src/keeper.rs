//! The owner of one token: one thread, which starts the token program, hands it what is to be signed,
//! and recovers. What the token can do is in [`KeyState`]s that everyone may read.
//!
//! Recovery is here alone, and once a request: when the token is gone or hung, its program is ended
//! and started again, and what was not signed is given to the new one, a second time and no third. A
//! refused PIN is not tried again: a token's PIN closes the token, a key's own PIN that key alone.

mod opening;
mod thread;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use token::link::{FromToken, Open};
use token::{Signature, StringToSign, TokenError};

use crate::certificate::Certificate;
use crate::launcher::TokenPrograms;
use crate::token_process;
use thread::Thread;

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

impl Keeper {
    /// Starts to open the token. `owners` has one entry for each key of `open`.
    pub fn start(
        programs: TokenPrograms,
        open: Open,
        owners: Vec<KeyOwner>,
    ) -> std::io::Result<Keeper> {
        let (events, inbox) = mpsc::channel();
        let shared = Arc::new(Shared {
            states: Mutex::new(vec![KeyState::Opening; open.key_count()]),
            changed: Condvar::new(),
            pending: AtomicUsize::new(0),
        });
        let thread = Thread::new(
            programs,
            open,
            owners,
            inbox,
            events.clone(),
            Arc::clone(&shared),
        );
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
