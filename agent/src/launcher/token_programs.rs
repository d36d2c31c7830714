//! Token programs, as the agent has them started.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::Launcher;
use super::message::{Answer, LauncherRequest};
use crate::sync::wait_to_read;
use token::Program;

/// How token programs are started.
#[derive(Debug, Clone)]
pub struct TokenPrograms {
    launcher: Launcher,
    confined: bool,
}

/// A token program that was started.
#[derive(Debug)]
pub struct Running {
    launcher: Launcher,
    pid: i32,
    /// Closes when the program has ended and was reaped.
    end: OwnedFd,
}

impl TokenPrograms {
    pub(super) fn new(launcher: Launcher, confined: bool) -> TokenPrograms {
        TokenPrograms { launcher, confined }
    }

    /// Starts one. The socket is its link.
    pub fn start(&self, program: Program) -> Result<(Running, UnixStream), String> {
        let confined = self.confined;
        let (answer, descriptors) = self
            .launcher
            .ask(LauncherRequest::Start { program, confined })?;
        match (answer, <[OwnedFd; 2]>::try_from(descriptors)) {
            (Answer::Started(pid), Ok([link, end])) => {
                let launcher = self.launcher.clone();
                Ok((Running { launcher, pid, end }, UnixStream::from(link)))
            }
            (other, _) => Err(other.into_failure()),
        }
    }
}

impl Running {
    /// Its process.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Ends it at once.
    pub fn kill(&self) {
        // Without an answer the launcher is gone; and the program goes with its link.
        let _ = self.launcher.ask(LauncherRequest::Kill { pid: self.pid });
    }

    /// Waits until it is gone; one that is stuck in a driver ends when the driver lets it.
    pub fn wait(&self, limit: Duration) {
        let _ = wait_to_read(&self.end, Instant::now() + limit); // gone or late
    }
}
