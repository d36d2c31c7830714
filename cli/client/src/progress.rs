//! What a command has to say while it works: warnings, and on a terminal, after two seconds, what it waits
//! for.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rolesanywhere::printable;

/// Where progress is told.
#[derive(Debug, Clone)]
pub struct Progress {
    quiet: bool,
    awaited: Option<Arc<Mutex<String>>>,
}

/// Shorter is no wait.
const INTERVAL: Duration = Duration::from_secs(2);

impl Progress {
    /// Says nothing at all.
    pub fn quiet() -> Progress {
        Progress {
            quiet: true,
            awaited: None,
        }
    }

    /// On standard error: warnings, and progress if it is a terminal.
    pub fn on_stderr() -> Progress {
        let awaited = io::stderr().is_terminal().then(|| {
            let awaited = Arc::new(Mutex::new(String::new()));
            let told = Arc::clone(&awaited);
            thread::spawn(move || tell(&told));
            awaited
        });
        Progress {
            quiet: false,
            awaited,
        }
    }

    /// On standard error: what a program that runs for long has to say, and no progress.
    pub fn lines() -> Progress {
        Progress {
            quiet: false,
            awaited: None,
        }
    }

    /// Notes what is waited for from now on.
    pub(crate) fn waiting_for(&self, what: &str) {
        if let Some(awaited) = &self.awaited {
            what.clone_into(&mut awaited.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Says what has been done.
    pub fn say(&self, what: &str) {
        if !self.quiet {
            note(what);
        }
    }

    /// Says what is not as it should be, and does not stop the work.
    pub fn warn(&self, what: &impl Display) {
        if !self.quiet {
            note(&format!("warning: {what}"));
        }
    }
}

/// Says something on standard error.
pub fn note(text: &str) {
    let text = printable(text).replace('\n', "\n  ");
    let line = format!("roleseal: {text}\n");
    let _ = io::stderr().write_all(line.as_bytes()); // there is nobody left to tell
}

/// Tells now and then what is waited for, if that is something new; ends with the process.
fn tell(awaited: &Mutex<String>) {
    let mut told = String::new();
    loop {
        thread::sleep(INTERVAL);
        let now = awaited
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if now != told {
            note(&format!("waiting for {now}"));
            told = now;
        }
    }
}
