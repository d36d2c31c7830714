//! A running `roleseal-agent`.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use crate::process::Process;

/// How long an agent may take to open its keys and listen. Four RSA keys on a busy CI machine take about a second.
const READY: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(10);

/// A running agent; it ends, with the token programs that it started, when dropped.
pub struct Agent {
    process: Process,
}

impl Agent {
    /// Runs `command` until something listens on `socket`; gives up when `cancelled` says so.
    ///
    /// # Errors
    ///
    /// Where the agent ends, or is cancelled, or does not listen within 20 seconds.
    pub fn start(
        command: Command,
        socket: &Path,
        log: &Path,
        cancelled: impl Fn() -> bool,
    ) -> Result<Agent> {
        let process = Process::spawn(command, log)?;
        let deadline = Instant::now() + READY;
        while UnixStream::connect(socket).is_err() {
            if !process.is_running() {
                bail!(
                    "roleseal-agent ended at once; its log:\n{}",
                    process.log_tail()
                );
            }
            if cancelled() {
                bail!("interrupted");
            }
            if Instant::now() > deadline {
                let seconds = READY.as_secs();
                bail!(
                    "roleseal-agent did not listen within {seconds} s; its log:\n{}",
                    process.log_tail()
                );
            }
            std::thread::sleep(POLL);
        }
        Ok(Agent { process })
    }

    /// The process: its id, its log, whether it is running.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Ends it in good order.
    ///
    /// # Errors
    ///
    /// Where it did not end with success.
    pub fn stop(self) -> Result<()> {
        let log = self.process.log_tail();
        let status = self.process.stop()?;
        ensure!(
            status.success(),
            "roleseal-agent ended with {status}; its log:\n{log}"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_ends_shows_its_log() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = crate::command::clean("sh");
        command.args(["-c", "echo no such identity >&2; exit 1"]);
        let error = Agent::start(
            command,
            &dir.path().join("agent.sock"),
            &dir.path().join("agent.log"),
            || false,
        )
        .err()
        .unwrap();
        assert!(error.to_string().contains("no such identity"), "{error}");
    }
}
