//! The token program's loop: open the token, answer until the agent is gone.

use std::fs::File;
use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};
use rustix::stdio::dup2_stdin;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::link::{self, FromToken, KeyReport, Open, ToToken};
use crate::{Key, Signature, TokenError};

/// A token that was opened.
pub struct Opened<K> {
    /// One for each key asked for, in that order.
    pub reports: Vec<KeyReport>,
    /// One for each session that signs: the keys in the same order, `None` where the report is an error.
    pub workers: Vec<Vec<Option<K>>>,
}

/// How long a token library may take to close after the agent is gone. Vendor libraries hang here.
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);

/// Says to the agent that a token's PIN will be tried now: called before each login.
pub type TryingPin<'a> = &'a dyn Fn() -> Result<(), TokenError>;

/// Serves the agent at standard input until it is gone. `confine` limits what this program may do, before
/// it has other threads; then `open` opens the token, and what it returns signs, each worker in a thread
/// of its own.
pub fn serve<K: Key + Send>(
    confine: impl FnOnce(&Open),
    open: impl FnOnce(Open, TryingPin) -> Result<Opened<K>, TokenError>,
) -> io::Result<()> {
    let mut agent = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    // What a token library reads, or hands to children of its own, is not our link.
    dup2_stdin(File::open("/dev/null")?)?;
    let Ok(Some(ToToken::Open(request))) = link::receive(&mut agent) else {
        return Ok(());
    };
    confine(&request);
    end_on_signals(agent.try_clone()?)?;
    let replies = Mutex::new(agent.try_clone()?);
    let (queue, jobs) = mpsc::channel();
    // Not among the workers: it notices that the agent is gone while `open` still hangs.
    std::thread::spawn(move || read(agent, queue));

    let trying_pin = || {
        reply(&replies, &FromToken::TryingPin)
            .map_err(|error| TokenError::Gone(format!("the agent is gone: {error}")))
    };
    let Opened { reports, workers } = match open(request, &trying_pin) {
        Ok(opened) => opened,
        Err(error) => return reply(&replies, &FromToken::Opened(Err(error))),
    };
    reply(&replies, &FromToken::Opened(Ok(reports)))?;
    let jobs = Mutex::new(jobs);
    std::thread::scope(|scope| {
        for keys in workers {
            scope.spawn(|| work(keys, &jobs, &replies));
        }
    });
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

/// Hands out what the agent sends. When the agent is gone, the process ends soon, politely or not.
fn read(mut agent: UnixStream, queue: mpsc::Sender<ToToken>) {
    while let Ok(Some(message)) = link::receive(&mut agent) {
        if queue.send(message).is_err() {
            break;
        }
    }
    drop(queue); // the workers end
    std::thread::sleep(CLOSE_DEADLINE);
    let _ = kill_process(getpid(), Signal::KILL);
}

/// One worker: takes jobs until there are no more to come.
fn work<K: Key>(
    mut keys: Vec<Option<K>>,
    jobs: &Mutex<mpsc::Receiver<ToToken>>,
    replies: &Mutex<UnixStream>,
) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(ToToken::Sign { id, key, text }) = job else {
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

fn reply(replies: &Mutex<UnixStream>, message: &FromToken) -> io::Result<()> {
    let mut agent = replies.lock().unwrap_or_else(PoisonError::into_inner);
    link::send(&mut *agent, message)
}
