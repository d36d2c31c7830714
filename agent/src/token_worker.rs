//! The owner of one token: one thread, which starts the token program, hands it what is to be signed,
//! and recovers. What the token can do is in [`KeyState`]s that everyone may read.
//!
//! Recovery is here alone, and once a request: a token that is gone is opened again by its program, or
//! else by a new one, a hung program is ended and started again, and what was not signed is given to it a
//! second time and no third. A refused PIN is not tried again: a token's PIN closes the token, a key's own
//! PIN that key alone.

mod asking;
mod opening;
mod pin_tries;
mod pins;
mod process;
mod queue;
mod retry;
mod thread;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender, SyncSender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Instant;

use token::link::{FromToken, Open};
use token::{Signature, StringToSign, TokenError};
use wire::Presence;

use crate::launcher::TokenPrograms;
use crate::sync::{left, lock, wait_while};
use config::certificate::{Certificate, CertificateSource};

pub use opening::{check_proof, proof, stays_in_use};
pub use pin_tries::PinTries;
use process::Unread;
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

/// Whose key it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyOwner {
    /// The identity's name, for the log.
    pub identity: String,
    /// The key's certificate, which is read each time the token opens.
    pub certificate: CertificateSource,
}

/// For whom something is signed.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The user, who has a turn of its own.
    uid: u32,
    /// Of a client, which may leave.
    presence: Option<Presence>,
}

impl Caller {
    /// A client of this user.
    pub fn client(uid: u32, presence: Presence) -> Caller {
        let presence = Some(presence);
        Caller { uid, presence }
    }

    /// This user, who does not leave.
    pub fn user(uid: u32) -> Caller {
        let presence = None;
        Caller { uid, presence }
    }

    fn is_gone(&self) -> bool {
        self.presence.as_ref().is_some_and(Presence::is_gone)
    }
}

/// Why nothing was signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotSigned {
    /// The token's fault.
    Token(TokenError),
    /// Too many are waiting for this token.
    Busy,
    /// It was not signed in time, or the caller is gone.
    Late,
}

/// A handle on the thread that owns a token. Once nobody has it any more, the token is closed.
#[derive(Debug)]
pub struct TokenWorker {
    open: Open,
    events: Sender<Event>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    states: Mutex<Vec<KeyState>>,
    /// Told when a state changes.
    changed: Condvar,
    owners: Mutex<Arc<[KeyOwner]>>,
    /// The certificate that each key was last proved to be of.
    proved: Mutex<HashMap<usize, Arc<Certificate>>>,
    pin_tries: PinTries,
    /// Requests that wait.
    waiting: AtomicUsize,
    /// Token programs that were started.
    starts: AtomicU64,
    end: Arc<ClosedSignal>,
}

/// A token's closing, to wait for.
#[derive(Debug, Default)]
pub struct ClosedSignal {
    closed: Mutex<bool>,
    told: Condvar,
}

#[derive(Debug)]
enum Event {
    Sign(Job),
    /// From the token program of that generation; `None` when it is gone.
    Answer(
        u64,
        Option<FromToken>,
        #[expect(dead_code, reason = "held until the message is taken")] Unread,
    ),
    /// Another worker has left the line of those who try a PIN of this token.
    Turn,
    /// It signed wrongly, and is to be opened again.
    Distrust,
    /// An operator may have mended something.
    Retry,
    /// A key has waited long enough. Nobody sends this: its time comes.
    Reopen,
    Close,
    #[cfg(test)]
    Panic,
}

#[derive(Debug)]
struct Job {
    key: usize,
    text: String,
    caller: Caller,
    deadline: Instant,
    /// It was lost with a token program before.
    again: bool,
    answer: SyncSender<Result<Signature, NotSigned>>,
}

/// What came before a worker, for the same token or others.
#[derive(Debug)]
pub struct Predecessors {
    /// Tokens that are to be closed first.
    pub ends: Vec<Arc<ClosedSignal>>,
    /// The PINs that were tried.
    pub pin_tries: PinTries,
}

impl TokenWorker {
    /// Starts to open the token. `owners` has one entry for each key of `open`.
    pub fn start(
        programs: TokenPrograms,
        open: Open,
        owners: Vec<KeyOwner>,
        heritage: Predecessors,
    ) -> std::io::Result<TokenWorker> {
        let (events, inbox) = mpsc::channel();
        let shared = Arc::new(Shared::new(&open, owners, heritage.pin_tries));
        let thread = Thread::new(
            programs,
            open.clone(),
            inbox,
            events.clone(),
            Arc::clone(&shared),
        );
        let ends = heritage.ends;
        std::thread::Builder::new()
            .name("worker".to_owned())
            .spawn(move || thread.run(&ends))?;
        Ok(TokenWorker {
            open,
            events,
            shared,
        })
    }

    /// What the token was asked to open.
    pub fn open(&self) -> &Open {
        &self.open
    }

    /// What the key can do now.
    pub fn state(&self, key: usize) -> KeyState {
        self.shared.state(&self.shared.lock(), key)
    }

    /// What the key can do, after the token's opening, which it waits for until `deadline`.
    pub fn settled_state(&self, key: usize, deadline: Instant) -> KeyState {
        let shared = &self.shared;
        let states = wait_while(&shared.changed, shared.lock(), Some(deadline), |states| {
            matches!(shared.state(states, key), KeyState::Opening)
        });
        shared.state(&states, key)
    }

    /// Has the text signed.
    pub fn sign(
        &self,
        key: usize,
        text: &StringToSign,
        caller: Caller,
        deadline: Instant,
    ) -> Result<Signature, NotSigned> {
        let (answer, result) = mpsc::sync_channel(1);
        let job = Job {
            key,
            text: text.to_string(),
            caller,
            deadline,
            again: false,
            answer,
        };
        let closed = |_| NotSigned::Token(process::ended());
        self.events.send(Event::Sign(job)).map_err(closed)?;
        match result.recv_timeout(left(deadline)) {
            Ok(result) => result,
            // Dropped unanswered: its time had come, or its caller was gone.
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Err(NotSigned::Late),
        }
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

    /// Replaces the certificate `old` of a key by one that a signature of the key has proved; says whether
    /// that was still its certificate.
    pub fn replace_certificate(
        &self,
        key: usize,
        old: &Arc<Certificate>,
        new: &Arc<Certificate>,
    ) -> bool {
        match self.shared.lock().get_mut(key) {
            Some(KeyState::Ready { certificate, .. }) if Arc::ptr_eq(certificate, old) => {
                *certificate = Arc::clone(new);
                self.shared.prove(key, new);
                true
            }
            _ => false,
        }
    }

    /// Whose keys they are from now on, in their order.
    pub fn set_owners(&self, owners: Vec<KeyOwner>) {
        *lock(&self.shared.owners) = owners.into();
    }

    /// Has another look at a token or key that does not sign: an operator may have mended something. A PIN
    /// that was refused is tried only if it is another one by now, or an operator has had it forgotten.
    pub fn retry(&self) {
        let _ = self.events.send(Event::Retry); // no use any more once it is closed
    }

    #[cfg(test)]
    fn panic(&self) {
        self.events.send(Event::Panic).unwrap();
    }

    /// Requests that wait for the token.
    pub fn waiting(&self) -> usize {
        self.shared.waiting.load(Ordering::Relaxed)
    }

    /// Token programs that were started for it so far.
    pub fn starts(&self) -> u64 {
        self.shared.starts.load(Ordering::Relaxed)
    }

    /// To wait for its closing.
    pub fn end(&self) -> Arc<ClosedSignal> {
        Arc::clone(&self.shared.end)
    }

    /// Asks the token to be closed. What waits is refused.
    pub fn close(&self) {
        let _ = self.events.send(Event::Close); // it may be closed already
    }
}

impl Drop for TokenWorker {
    fn drop(&mut self) {
        self.close();
    }
}

impl ClosedSignal {
    fn tell(&self) {
        *lock(&self.closed) = true;
        self.told.notify_all();
    }

    /// Waits until the token is closed, or `deadline`.
    pub fn wait(&self, deadline: Instant) {
        let closed = lock(&self.closed);
        drop(wait_while(&self.told, closed, Some(deadline), |closed| {
            !*closed
        }));
    }
}

impl Shared {
    fn new(open: &Open, owners: Vec<KeyOwner>, pin_tries: PinTries) -> Shared {
        Shared {
            states: Mutex::new(vec![KeyState::Opening; open.key_count()]),
            changed: Condvar::new(),
            owners: Mutex::new(owners.into()),
            proved: Mutex::default(),
            pin_tries,
            waiting: AtomicUsize::new(0),
            starts: AtomicU64::new(0),
            end: Arc::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<KeyState>> {
        lock(&self.states)
    }

    fn state(&self, states: &[KeyState], key: usize) -> KeyState {
        states.get(key).cloned().unwrap_or(KeyState::Opening)
    }

    fn owners(&self) -> Arc<[KeyOwner]> {
        Arc::clone(&lock(&self.owners))
    }

    fn proved(&self, key: usize) -> Option<Arc<Certificate>> {
        lock(&self.proved).get(&key).cloned()
    }

    fn prove(&self, key: usize, certificate: &Arc<Certificate>) {
        lock(&self.proved).insert(key, Arc::clone(certificate));
    }
}
