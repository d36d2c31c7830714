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
use crate::link::{self, FromToken, KeyReport, Open, ToToken};
use crate::{Failures, Key, Pin, PinFingerprint, Signature, TakeOver, TokenError};

/// A token that was opened.
pub struct Opened<K> {
    /// One for each key asked for, in that order.
    pub reports: Vec<KeyReport>,
    /// One for each session that signs: the keys in the same order, `None` where the report is an error.
    pub workers: Vec<Vec<Option<K>>>,
}

/// Stands before every PIN: none is tried that was refused before, and none without the agent's knowing.
pub struct PinGuard<'a> {
    refused: Vec<PinFingerprint>,
    agent: &'a Mutex<UnixStream>,
    /// No worker reads from there while a token is being opened.
    answers: &'a Mutex<Jobs>,
}

/// The user PIN of a PKCS#11 token, before it is tried.
pub struct UserPin<'p> {
    /// The token's name, for people.
    pub name: String,
    /// What the token says of itself: the same under every name of its module.
    pub token: String,
    /// The PIN.
    pub pin: &'p Pin,
    /// How a corrected one gets here.
    pub take_over: TakeOver,
}

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
        refused_pins,
    }) = next
    {
        let guard = PinGuard {
            refused: refused_pins,
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
    /// Called with the PINs of a key, or of the whole token, before any of them is used. `owner` is the same
    /// text whenever it is the same token or key. `take_over`: how a corrected one gets here.
    pub fn check(
        &self,
        key: Option<usize>,
        owner: &str,
        pins: &[&Pin],
        take_over: TakeOver,
    ) -> Result<(), TokenError> {
        self.check_counted(key, owner, pins, take_over, Failures::Untold)
    }

    /// As [`check`](Self::check), where the token tells how many failures it counts now.
    pub fn check_counted(
        &self,
        key: Option<usize>,
        owner: &str,
        pins: &[&Pin],
        take_over: TakeOver,
        failures: Failures,
    ) -> Result<(), TokenError> {
        let forbidden = self.refused.iter().filter(|pin| pin.forbids(failures));
        refuse(forbidden, owner, owner, pins, take_over)?;
        let fingerprint = PinFingerprint::of(owner, pins)
            .map_err(|error| TokenError::Broken(format!("{owner}: no fingerprint: {error}")))?
            .before_try(failures);
        self.tell(&FromToken::HasPin { key, fingerprint })
    }

    /// Waits until no other token program tries a PIN of the same token. Says whether the answer to an earlier try
    /// of this PIN was lost. An error where it is refused by then. What the token says of itself may have changed.
    pub fn await_turn(&self, pin: &UserPin) -> Result<bool, TokenError> {
        let (name, owner, pins) = (&pin.name, &pin.token, &[pin.pin]);
        refuse(self.refused.iter(), name, owner, pins, pin.take_over)?;
        self.check(None, owner, pins, pin.take_over)?;
        let token = owner.clone();
        self.tell(&FromToken::AwaitingTurn { token })?;
        let (refused, doubtful) = match link::next(&mut lock(self.answers).agent) {
            Ok(Some(ToToken::TryPin {
                refused_pins,
                doubtful_pins,
            })) => (refused_pins, doubtful_pins),
            Ok(None) | Err(_) => return Err(TokenError::Gone("the agent is gone".to_owned())),
            Ok(Some(_)) => {
                return Err(TokenError::Broken(
                    "the agent's answer makes no sense".to_owned(),
                ));
            }
        };
        refuse(refused.iter(), name, owner, pins, pin.take_over)?;
        let known = doubtful.into_iter().find(|known| known.is_of(owner, pins));
        let Some(fingerprint) = known else {
            return Ok(false);
        };
        // By which the agent knows it again.
        let key = None;
        self.tell(&FromToken::HasPin { key, fingerprint })?;
        Ok(true)
    }

    /// Says that a PIN will be tried now: called right before each login.
    pub fn trying(&self) -> Result<(), TokenError> {
        self.tell(&FromToken::TryingPin)
    }

    /// The same, where the token tells afterwards whether the try counted.
    pub fn trying_counted(&self) -> Result<(), TokenError> {
        self.tell(&FromToken::TryingCountedPin)
    }

    /// Says which sessions this program has in a TPM without a resource manager.
    pub fn holds(&self, sessions: Vec<u32>) -> Result<(), TokenError> {
        self.tell(&FromToken::Sessions(sessions))
    }

    fn tell(&self, message: &FromToken) -> Result<(), TokenError> {
        reply(self.agent, message)
            .map_err(|error| TokenError::Gone(format!("the agent is gone: {error}")))
    }
}

/// An error where these PINs are among the refused ones.
fn refuse<'p>(
    mut refused: impl Iterator<Item = &'p PinFingerprint>,
    name: &str,
    owner: &str,
    pins: &[&Pin],
    take_over: TakeOver,
) -> Result<(), TokenError> {
    if !refused.any(|refused| refused.is_of(owner, pins)) {
        return Ok(());
    }
    let or_restart = match take_over {
        TakeOver::Reload => " (or restart it, if this PIN is right by now)",
        TakeOver::Restart => "",
    };
    Err(TokenError::PinRejected(format!(
        "{name}: the PIN is still the one that was refused, and is not tried again: correct it, then \
         {take_over}{or_restart}"
    )))
}

fn reply(replies: &Mutex<UnixStream>, message: &FromToken) -> io::Result<()> {
    link::send(&mut *lock(replies), message)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
