//! Signals that end a command: while a token program works, they end that first.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use rustix::event::{PollFd, PollFlags};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

/// Handlers of these signals, which are the process's, and not one token program's.
#[derive(Debug)]
pub(super) struct Signals {
    /// Whether a signal does what it does by default: it ends the command.
    by_default: Arc<AtomicBool>,
    /// Each signal, and what is readable when it has arrived.
    pipes: Vec<(i32, UnixStream)>,
}

static SIGNALS: OnceLock<Signals> = OnceLock::new();

/// Holds signals back until it is dropped.
pub(super) struct Held(Arc<AtomicBool>);

impl Signals {
    /// Registered with the first use.
    pub(super) fn of_process() -> io::Result<&'static Signals> {
        match SIGNALS.get() {
            Some(signals) => Ok(signals),
            None => {
                let signals = Signals::register()?;
                Ok(SIGNALS.get_or_init(|| signals))
            }
        }
    }

    fn register() -> io::Result<Signals> {
        let mut signals = Signals {
            by_default: Arc::new(AtomicBool::new(true)),
            pipes: Vec::new(),
        };
        for signal in [SIGINT, SIGTERM, SIGHUP, SIGQUIT] {
            let (ours, theirs) = UnixStream::pair()?;
            ours.set_nonblocking(true)?;
            let by_default = Arc::clone(&signals.by_default);
            signal_hook::flag::register_conditional_default(signal, by_default)?;
            signal_hook::low_level::pipe::register(signal, theirs)?;
            signals.pipes.push((signal, ours));
        }
        Ok(signals)
    }

    pub(super) fn hold(&self) -> Held {
        self.by_default.store(false, Ordering::SeqCst);
        Held(Arc::clone(&self.by_default))
    }

    /// To wait for one.
    pub(super) fn events(&self) -> Vec<PollFd<'_>> {
        let pipes = self.pipes.iter();
        pipes
            .map(|(_, pipe)| PollFd::new(pipe, PollFlags::IN))
            .collect()
    }

    /// One that has arrived.
    pub(super) fn arrived(&self) -> Option<i32> {
        let arrived = |pipe: &UnixStream| matches!((&*pipe).read(&mut [0]), Ok(1..));
        let pipes = self.pipes.iter();
        pipes
            .filter(|(_, pipe)| arrived(pipe))
            .map(|(signal, _)| *signal)
            .next()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
