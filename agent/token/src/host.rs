//! The token program's loop: open the token, answer until the agent is gone; open it again when asked to.

use std::fs::File;
use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Signal, getpid, kill_process};
use rustix::stdio::dup2_stdin;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::greeting;
use crate::link::{self, FromToken, KeyReport, Open, Permission, ToToken};
use crate::{Failures, Key, Pin, PinFingerprint, PinKey, Signature, TakeOver, TokenError};

/// A token that was opened.
pub struct Opened<K> {
    /// One for each key asked for, in that order.
    pub reports: Vec<KeyReport>,
    /// One for each session that signs: the keys in the same order, `None` where the report is an error.
    pub workers: Vec<Vec<Option<K>>>,
}

/// Stands before every PIN: none is tried without the agent's permission, and before the agent has recorded the try.
pub struct PinGuard<'a> {
    pin_key: PinKey,
    agent: &'a Mutex<UnixStream>,
    /// No worker reads from there while a token is being opened.
    answers: &'a Mutex<Jobs>,
}

/// The PINs of a token or of a key, before they are tried.
pub struct UntriedPins<'p> {
    /// Whose they are; `None` for the whole token's.
    pub key: Option<usize>,
    /// Its name, for people.
    pub name: &'p str,
    /// What it says of itself: the same under every name.
    pub token: &'p str,
    /// The PINs.
    pub pins: &'p [&'p Pin],
    /// As the token counts them now.
    pub failures: Failures,
    /// Whether they are tried as soon as they may be; else by the key's first signature.
    pub at_once: bool,
    /// How corrected ones get here.
    pub take_over: TakeOver,
}

/// When a try that could not be recorded is looked at again, in seconds. Until then the disk may have room.
const UNRECORDED_WAIT: u64 = 60;

/// How long a token library may take to close after the agent is gone. Vendor libraries hang here.
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);

/// Serves the agent at standard input until it is gone. `confine` limits what this program may do, before
/// it has other threads; then `open` opens the token, and what it returns signs, each worker in a thread
/// of its own.
pub fn serve<K: Key + Send>(
    confine: impl FnOnce(&Open),
    mut open: impl FnMut(Open, &PinGuard) -> Result<Opened<K>, TokenError>,
) -> io::Result<()> {
    let mut agent = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    // What a token library reads, or hands to children of its own, is not our link.
    dup2_stdin(File::open("/dev/null")?)?;
    greeting::send(&mut agent)?;
    let Ok(Some(first)) = link::receive(&mut agent) else {
        return Ok(());
    };
    if let ToToken::Open { open, .. } = &first {
        confine(open);
    }
    end_on_signals(agent.try_clone()?)?;
    let replies = Mutex::new(agent.try_clone()?);
    // Not among the workers: it notices that the agent is gone while they hang, or `open` does.
    let link = agent.try_clone()?;
    std::thread::spawn(move || end_with(&link, CLOSE_DEADLINE));

    let jobs = Mutex::new(Jobs { agent, other: None });
    let mut next = Some(first);
    while let Some(ToToken::Open {
        open: request,
        pin_key,
    }) = next
    {
        let guard = PinGuard {
            pin_key,
            agent: &replies,
            answers: &jobs,
        };
        let Opened { reports, workers } = match open(request, &guard) {
            Ok(opened) => opened,
            Err(error) => return reply(&replies, &FromToken::Opened(Err(error))),
        };
        reply(&replies, &FromToken::Opened(Ok(reports)))?;
        // Each worker closes its session when it ends, and the last one the token.
        std::thread::scope(|scope| {
            for keys in workers {
                scope.spawn(|| work(keys, &jobs, &replies));
            }
        });
        next = lock(&jobs).other.take();
    }
    Ok(())
}

/// A signal counts as the agent's end: sessions and loaded keys are closed all the same.
fn end_on_signals(agent: UnixStream) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    std::thread::spawn(move || {
        signals.forever().next();
        agent.shutdown(Shutdown::Read)
    });
    Ok(())
}

/// When the other side is gone, the process ends within `deadline`, politely or not.
pub(crate) fn end_with(link: &UnixStream, deadline: Duration) {
    // Not for what arrives: that is the workers' affair.
    let mut gone = [PollFd::new(link, PollFlags::RDHUP)];
    while poll(&mut gone, None) == Err(Errno::INTR) {}
    std::thread::sleep(deadline);
    let _ = kill_process(getpid(), Signal::KILL);
}

/// What the workers take from, one at a time: whoever is free reads for itself what the agent has sent.
struct Jobs {
    agent: UnixStream,
    /// What is no worker's job: each of them ends.
    other: Option<ToToken>,
}

impl Jobs {
    fn next(&mut self) -> Option<(u64, usize, String)> {
        if self.other.is_some() {
            return None;
        }
        match link::next(&mut self.agent).ok()?? {
            ToToken::Sign { id, key, text } => Some((id, key, text)),
            other => {
                self.other = Some(other);
                None
            }
        }
    }
}

/// One worker: takes jobs until there are no more to come.
fn work<K: Key>(mut keys: Vec<Option<K>>, jobs: &Mutex<Jobs>, replies: &Mutex<UnixStream>) {
    loop {
        let job = lock(jobs).next();
        let Some((id, key, text)) = job else {
            return;
        };
        let result = sign(&mut keys, key, &text);
        if reply(replies, &FromToken::Signed { id, result }).is_err() {
            return; // the agent is gone
        }
    }
}

fn sign<K: Key>(keys: &mut [Option<K>], key: usize, text: &str) -> Result<Signature, TokenError> {
    let text = text
        .parse()
        .map_err(|error| TokenError::Broken(format!("refused to sign: {error}")))?;
    match keys.get_mut(key) {
        Some(Some(key)) => key.sign(&text),
        _ => Err(TokenError::Unusable("the key was not opened".to_owned())),
    }
}

impl PinGuard<'_> {
    /// Waits until no other token program tries a PIN of the same token. What the token says of itself may have
    /// changed.
    pub fn await_turn(&self, token: &str) -> Result<(), TokenError> {
        let token = token.to_owned();
        match self.ask(&FromToken::AwaitingTurn { token })? {
            ToToken::YourTurn => Ok(()),
            _ => Err(nonsense()),
        }
    }

    /// Asks whether the PINs may be tried: called right before any of them is used.
    pub fn may_try(&self, untried: &UntriedPins) -> Result<(), TokenError> {
        let fingerprint = PinFingerprint::of(&self.pin_key, untried.token, untried.pins);
        let permission = self.ask(&FromToken::HasPin {
            key: untried.key,
            token: untried.token.to_owned(),
            fingerprint,
            failures: untried.failures,
            at_once: untried.at_once,
        })?;
        match permission {
            ToToken::Pin(Permission::Try) => Ok(()),
            ToToken::Pin(Permission::Refused) => Err(untried.forbidden(
                "the PIN is still the one that was refused, and is not tried again",
            )),
            ToToken::Pin(Permission::Unanswered) => Err(untried.forbidden(
                "the answer to the first try of the PIN was lost, so it counts as refused and is not tried again",
            )),
            ToToken::Pin(Permission::Unrecorded(why)) => Err(TokenError::Wait {
                text: untried.unrecorded(&why),
                seconds: UNRECORDED_WAIT,
            }),
            // Only an operator ends it: to look each minute would disturb the token's other keys for nothing.
            ToToken::Pin(Permission::TooManyRecords(why)) => {
                Err(TokenError::Unusable(untried.unrecorded(&why)))
            }
            _ => Err(nonsense()),
        }
    }

    /// Says which sessions this program has in a TPM without a resource manager.
    pub fn holds(&self, sessions: Vec<u32>) -> Result<(), TokenError> {
        self.tell(&FromToken::Sessions(sessions))
    }

    fn tell(&self, message: &FromToken) -> Result<(), TokenError> {
        reply(self.agent, message)
            .map_err(|error| TokenError::Gone(format!("the agent is gone: {error}")))
    }

    fn ask(&self, message: &FromToken) -> Result<ToToken, TokenError> {
        self.tell(message)?;
        match link::next(&mut lock(self.answers).agent) {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) | Err(_) => Err(TokenError::Gone("the agent is gone".to_owned())),
        }
    }
}

impl UntriedPins<'_> {
    fn unrecorded(&self, why: &str) -> String {
        format!(
            "{}: the PIN is not tried, since the try cannot be recorded: {why}",
            self.name
        )
    }

    fn forbidden(&self, why: &str) -> TokenError {
        let (name, take_over) = (self.name, self.take_over);
        TokenError::PinRejected(format!(
            "{name}: {why}: correct it, then {take_over}; if it is right by now: roleseal-admin pin retry IDENTITY"
        ))
    }
}

fn nonsense() -> TokenError {
    TokenError::Broken("the agent's answer makes no sense".to_owned())
}

fn reply(replies: &Mutex<UnixStream>, message: &FromToken) -> io::Result<()> {
    link::send(&mut *lock(replies), message)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
