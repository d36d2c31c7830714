//! Signals that end an operator's command or its token program: held back while work must not be broken off.
//!
//! Ctrl-C goes to every program at the terminal, and a service manager ends all processes of a unit. Not for the daemon's
//! token programs, which take signals for the end of their link.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustix::event::{PollFd, PollFlags};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

/// Handlers of these signals, which are the process's.
#[derive(Debug)]
pub struct Signals {
    /// Whether a signal does what it does by default: it ends the program.
    by_default: Arc<AtomicBool>,
    /// How many hold signals back.
    holders: Mutex<usize>,
    /// Each signal, and what is readable when it has arrived.
    pipes: Vec<(i32, UnixStream)>,
}

static SIGNALS: OnceLock<Signals> = OnceLock::new();

/// Holds signals back until it and all others are dropped.
#[derive(Debug)]
pub struct Held(&'static Signals);

impl Signals {
    /// Registers them with the first use.
    pub fn of_process() -> io::Result<&'static Signals> {
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
            holders: Mutex::default(),
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

    /// Holds them back until the result is dropped.
    pub fn hold(&'static self) -> Held {
        let mut holders = self.holders.lock().unwrap_or_else(PoisonError::into_inner);
        *holders += 1;
        self.by_default.store(false, Ordering::SeqCst);
        Held(self)
    }

    /// Returns what to wait for one with.
    pub fn events(&self) -> Vec<PollFd<'_>> {
        let pipes = self.pipes.iter();
        pipes
            .map(|(_, pipe)| PollFd::new(pipe, PollFlags::IN))
            .collect()
    }

    /// Returns one that has arrived since it was held back.
    pub fn arrived(&self) -> Option<i32> {
        let arrived = |pipe: &UnixStream| matches!((&*pipe).read(&mut [0]), Ok(1..));
        let mut pipes = self.pipes.iter();
        let (signal, _) = pipes.find(|(_, pipe)| arrived(pipe))?;
        Some(*signal)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let signals = self.0;
        let mut holders = signals
            .holders
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *holders -= 1;
        signals.by_default.store(*holders == 0, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_held_until_the_last_holder_is_gone() {
        let signals: &'static Signals = Box::leak(Box::new(Signals::register().unwrap()));
        let by_default = || signals.by_default.load(Ordering::SeqCst);
        let (one, other) = (signals.hold(), signals.hold());
        drop(one);
        assert!(!by_default());
        drop(other);
        assert!(by_default());
    }
}
