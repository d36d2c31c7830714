//! A program in the background that cannot outlive its owner.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid,
};

/// How long a program may take to end after SIGTERM before it is killed: as long as systemd gives the agent.
const GRACE: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(5);

/// How much of a program's log an error shows.
const TAIL_LINES: usize = 20;

/// A child process with its output in a log file. It leads a process group of its own: Ctrl-C in the terminal does
/// not reach it, and what it started itself ends with it.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`, with stdout and stderr going to the file `log`.
    ///
    /// # Errors
    ///
    /// Where the program or the log cannot be opened.
    pub fn spawn(mut command: Command, log: &Path) -> Result<Process> {
        let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0)
            .spawn()
            .with_context(|| {
                let program = command.get_program();
                let hint = crate::command::package_hint(program);
                format!("cannot start {}{hint}", program.display())
            })?;
        Ok(Process {
            child,
            log: log.to_owned(),
        })
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it is still running; it is not reaped by this question.
    #[must_use]
    pub fn is_running(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        matches!(waitid(WaitId::Pid(self.pid()), options), Ok(None))
    }

    /// Everything that it wrote so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read(&self.log)
            .map(|log| String::from_utf8_lossy(&log).into_owned())
            .unwrap_or_default()
    }

    /// The last lines of its log, for an error message.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines
            .iter()
            .skip(lines.len().saturating_sub(TAIL_LINES))
            .map(|line| format!("  {line}\n"))
            .collect()
    }

    /// Asks it to end (SIGTERM), kills it where it does not within five seconds, and reaps it.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses to tell of the child.
    pub fn stop(mut self) -> Result<ExitStatus> {
        self.end()
    }

    /// Kills it (SIGKILL), so that it cannot clean up, and reaps it.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses to tell of the child.
    pub fn kill(mut self) -> Result<ExitStatus> {
        let _ = kill_process(self.pid(), Signal::KILL);
        Ok(self.child.wait()?)
    }

    fn end(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        let _ = kill_process(self.pid(), Signal::TERM);
        let deadline = Instant::now() + GRACE;
        while self.is_running() && Instant::now() < deadline {
            std::thread::sleep(POLL);
        }
        // The leader is not reaped yet, so that its id still names this group and no other.
        let _ = kill_process_group(self.pid(), Signal::KILL);
        Ok(self.child.wait()?)
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A test that fails only now and then has to tell everything at once.
        if std::thread::panicking() {
            eprintln!("{}:\n{}", self.log.display(), self.log_tail());
        }
        if let Err(error) = self.end() {
            eprintln!("hsm-fixtures: cannot end process {}: {error}", self.id());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> (tempfile::TempDir, Process) {
        let dir = tempfile::tempdir().unwrap();
        let mut command = crate::command::clean("sh");
        command.args(["-c", script]);
        let process = Process::spawn(command, &dir.path().join("log")).unwrap();
        (dir, process)
    }

    fn wait_for_log(process: &Process, text: &str) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !process.log().contains(text) {
            assert!(Instant::now() < deadline, "no {text} in {}", process.log());
            std::thread::sleep(POLL);
        }
    }

    #[test]
    fn a_program_is_asked_to_end() {
        let (_dir, process) =
            shell("trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.01; done");
        wait_for_log(&process, "ready");
        assert!(process.is_running());
        assert_eq!(process.stop().unwrap().code(), Some(7));
    }

    #[test]
    fn what_it_started_ends_with_it() {
        let (_dir, process) = shell("sleep 1000 & echo $! ready; wait");
        wait_for_log(&process, "ready");
        let grandchild: i32 = process
            .log()
            .split_whitespace()
            .next()
            .unwrap()
            .parse()
            .unwrap();
        drop(process);
        // The kernel ends it in its own time, and to reap the orphan is init's work.
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let stat =
                std::fs::read_to_string(format!("/proc/{grandchild}/stat")).unwrap_or_default();
            if stat.is_empty() || stat.contains(") Z") || stat.contains(") X") {
                break;
            }
            assert!(Instant::now() < deadline, "{stat}");
            std::thread::sleep(POLL);
        }
    }

    #[test]
    fn one_that_is_killed_has_no_say() {
        let (_dir, process) = shell("trap '' TERM; echo ready; while :; do sleep 0.01; done");
        wait_for_log(&process, "ready");
        assert_eq!(process.kill().unwrap().code(), None);
    }

    #[test]
    fn one_that_has_ended_tells_how() {
        let (_dir, process) = shell("echo broken >&2; exit 3");
        wait_for_log(&process, "broken");
        assert!(process.log_tail().contains("broken"));
        assert_eq!(process.stop().unwrap().code(), Some(3));
    }
}
