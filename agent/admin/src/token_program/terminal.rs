//! The terminal of a command, as it was before anybody was asked for a PIN there.

use std::fs::File;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

/// The controlling terminal.
#[derive(Debug)]
pub(super) struct Terminal {
    file: File,
    before: Termios,
}

impl Terminal {
    /// `None` where there is none.
    pub(super) fn open() -> Option<Terminal> {
        let file = File::options()
            .read(true)
            .write(true)
            .open(crate::pins::TERMINAL)
            .ok()?;
        let before = tcgetattr(&file).ok()?;
        Some(Terminal { file, before })
    }

    /// Whether a token program asks there for a PIN right now: without echo.
    pub(super) fn is_silent(&self) -> bool {
        let echoes = |state: &Termios| state.local_modes.contains(LocalModes::ECHO);
        echoes(&self.before) && tcgetattr(&self.file).is_ok_and(|now| !echoes(&now))
    }

    /// As it was, after a token program that could not do that itself.
    pub(super) fn restore(&self) {
        if self.is_silent() {
            let _ = tcsetattr(&self.file, OptionalActions::Flush, &self.before); // it may have hung up
        }
    }
}
