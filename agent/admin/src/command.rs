//! An operator's command: a certificate request at its standard input, a certificate chain at its standard
//! output, within a time and a size, and nothing left of it afterwards.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use signal_hook::SigId;
use signal_hook::consts::SIGCHLD;
use thiserror::Error;

use token::program::SERVICE_VARIABLES;
use token::signals::{Held, Signals};

/// What ends a command early. Made before it is started.
#[derive(Debug)]
pub(crate) struct Stop {
    /// Of which one asks this process to end, or has asked before this was made.
    signals: &'static Signals,
    /// Readable when a child has ended.
    ended: UnixStream,
    handler: SigId,
    _held: Held,
}

/// Why there is no output of a command.
#[derive(Debug, Error)]
pub(crate) enum CommandError {
    #[error("the command cannot be started: {0}")]
    NotStarted(io::Error),
    #[error("the command is not run: {0}")]
    Untrusted(String),
    #[error("the command failed ({0}): what it said of that is in the log, or on the terminal")]
    Failed(ExitStatus),
    #[error("the command did not end within {0:?}: it was killed; renew.timeout is its limit")]
    Late(Duration),
    #[error(
        "the command wrote more than {OUTPUT_LIMIT} bytes, which is no certificate chain: it was killed"
    )]
    TooMuch,
    #[error(
        "the command wants to ask something at the terminal, which it cannot: it was killed; give it what it \
         needs in files"
    )]
    Asks,
    #[error("the command wrote what is no text, and so no PEM")]
    NoText,
    #[error("it was asked to end, and the command was killed")]
    Stopped,
    #[error("the command cannot be watched: {0}")]
    Unwatched(#[from] io::Error),
}

/// The most that a command may answer, in bytes: a leaf and five intermediates take about 16 KiB, and some CAs
/// write each certificate's text as well.
const OUTPUT_LIMIT: u64 = 256 * 1024;

impl Stop {
    /// Ends commands when this process is asked to end. Until this is dropped, signals do nothing else.
    pub(crate) fn new() -> io::Result<Stop> {
        let signals = Signals::of_process()?;
        let held = signals.hold();
        let (ended, end) = UnixStream::pair()?;
        ended.set_nonblocking(true)?;
        Ok(Stop {
            signals,
            ended,
            handler: signal_hook::low_level::pipe::register(SIGCHLD, end)?,
            _held: held,
        })
    }

    /// Waits until `deadline`, or less if there is something to read from `output` or a child has ended. Says
    /// so if it is time to stop.
    fn wait(&self, output: Option<&ChildStdout>, deadline: Instant) -> Result<(), CommandError> {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).ok();
        let mut events = self.signals.events();
        let signals = events.len();
        events.push(PollFd::new(&self.ended, PollFlags::IN));
        events.extend(output.map(|output| PollFd::new(output, PollFlags::IN)));
        match poll(&mut events, left.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(io::Error::from(error).into()),
        }
        let mut signals = events.iter().take(signals);
        if signals.any(|event| !event.revents().is_empty()) {
            return Err(CommandError::Stopped);
        }
        while matches!((&self.ended).read(&mut [0; 64]), Ok(1..)) {}
        Ok(())
    }

    /// Whether a signal has asked this process to end.
    pub(crate) fn is_asked_for(&self) -> bool {
        matches!(self.wait(None, Instant::now()), Err(CommandError::Stopped))
    }

    /// Waits until `deadline`, unless it is time to stop.
    pub(crate) fn pause(&self, deadline: Instant) -> Result<(), CommandError> {
        while Instant::now() < deadline {
            self.wait(None, deadline)?;
        }
        Ok(())
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        signal_hook::low_level::unregister(self.handler);
    }
}

/// What `/bin/sh -c COMMAND` answers to what is in `input`.
pub(crate) fn run(
    command: &str,
    input: File,
    environment: &[(&str, &OsStr)],
    limit: Duration,
    stop: &Stop,
) -> Result<String, CommandError> {
    config::command::check(command)
        .map_err(|untrusted| CommandError::Untrusted(untrusted.explain()))?;
    let deadline = Instant::now() + limit;
    let mut shell = Command::new("/bin/sh");
    shell
        .args(["-c", command])
        .stdin(input) // the file itself: nobody has to write into a pipe, and wait
        .stdout(Stdio::piped())
        .envs(environment.iter().copied())
        .process_group(0);
    for variable in SERVICE_VARIABLES {
        shell.env_remove(variable);
    }
    let child = shell.spawn().map_err(CommandError::NotStarted)?;
    let reaped = false;
    let mut group = Group { child, reaped };
    let output = read(&mut group, deadline, limit, stop)?;
    while !group.shell_has_ended()? {
        if Instant::now() >= deadline {
            return Err(CommandError::Late(limit));
        }
        stop.wait(None, deadline)?;
    }
    let status = group.end()?;
    match status.success() {
        true => String::from_utf8(output).map_err(|_| CommandError::NoText),
        false => Err(CommandError::Failed(status)),
    }
}

/// Everything that the command writes until it closes its standard output.
fn read(
    group: &mut Group,
    deadline: Instant,
    limit: Duration,
    stop: &Stop,
) -> Result<Vec<u8>, CommandError> {
    let mut output = Vec::new();
    let Some(mut stdout) = group.child.stdout.take() else {
        return Ok(output);
    };
    rustix::io::ioctl_fionbio(stdout.as_fd(), true).map_err(io::Error::from)?;
    loop {
        match stdout
            .by_ref()
            .take(OUTPUT_LIMIT + 1)
            .read_to_end(&mut output)
        {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
            Ok(_) if output.len() as u64 > OUTPUT_LIMIT => {}
            Ok(_) => return Ok(output),
        }
        if output.len() as u64 > OUTPUT_LIMIT {
            return Err(CommandError::TooMuch);
        }
        if Instant::now() >= deadline {
            return Err(CommandError::Late(limit));
        }
        if group.shell_has_ended()? {
            group.kill(); // whoever still has the shell's output open has nothing to say
        }
        stop.wait(Some(&stdout), deadline)?;
    }
}

/// A shell and whatever it has started, of which nothing stays.
struct Group {
    child: Child,
    reaped: bool,
}

impl Group {
    /// Who reads from the terminal, outside its foreground, is stopped with its whole group.
    fn shell_has_ended(&self) -> Result<bool, CommandError> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::STOPPED;
        let options = options | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let shell = WaitId::Pid(Pid::from_child(&self.child));
        let status = waitid(shell, options).map_err(io::Error::from)?;
        let asking = [Signal::TTIN, Signal::TTOU].map(Signal::as_raw);
        match status
            .as_ref()
            .map(|status| (status.stopped(), status.stopping_signal()))
        {
            Some((true, Some(signal))) if asking.contains(&signal) => Err(CommandError::Asks),
            Some((stopped, _)) => Ok(!stopped),
            None => Ok(false),
        }
    }

    fn kill(&self) {
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL); // all may have ended
    }

    /// Kills what is left. Before the shell is reaped: until then its number is nobody else's.
    fn end(&mut self) -> io::Result<ExitStatus> {
        self.kill();
        self.reaped = true;
        self.child.wait()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.reaped {
            let _ = self.end(); // it was killed: there is nobody to wait for in vain
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::io::{Seek, Write};

    const LIMIT: Duration = Duration::from_secs(60);

    fn run_for(command: &str, limit: Duration) -> Result<String, CommandError> {
        let mut input = tempfile::tempfile().unwrap();
        input.write_all(b"a request").unwrap();
        input.rewind().unwrap();
        let environment = [("ROLESEAL_IDENTITY", OsStr::new("web"))];
        let stop = Stop::new().unwrap();
        run(command, input, &environment, limit, &stop)
    }

    fn error(command: &str) -> String {
        run_for(command, LIMIT).unwrap_err().to_string()
    }

    #[test]
    fn a_command_reads_the_request_and_answers() {
        let answer = run_for("cat; echo \" for $ROLESEAL_IDENTITY\"", LIMIT).unwrap();
        assert_eq!(answer, "a request for web\n");
        // One that closes its output first, and one that leaves somebody behind.
        let answer = run_for("echo a; exec >&-; sleep 0.1", LIMIT).unwrap();
        assert_eq!(answer, "a\n");
    }

    #[test]
    fn what_is_wrong_with_it_is_said() {
        assert!(error("exit 3").contains("exit status: 3"));
        assert!(error("kill -9 $$").contains("signal: 9"));
        assert!(error("no-such-program-anywhere").contains("127"));
        assert!(error("yes").contains("more than"));
        assert!(error("printf '\\377\\376'").contains("no text"));
        assert!(error("kill -TTIN $$").contains("at the terminal"));
        assert!(error("exec >&-; kill -TTOU $$").contains("at the terminal"));
    }

    /// By its time, or because nobody wants its work any more: all of it ends.
    #[test]
    fn nothing_of_it_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        let script = format!("sleep 600 & echo $! > {0}.n; mv {0}.n {0}", path.display());
        let pid = || loop {
            if let Ok(pid) = std::fs::read_to_string(&path) {
                return pid.trim().to_owned();
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        let ended = |pid: &str| {
            let deadline = Instant::now() + LIMIT;
            loop {
                let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
                if !stat.is_ok_and(|stat| !stat.contains(") Z")) {
                    return;
                }
                assert!(Instant::now() < deadline, "{pid} is left");
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        let late = run_for(&format!("{script}; wait"), Duration::from_millis(700));
        assert!(matches!(late, Err(CommandError::Late(_))), "{late:?}");
        ended(&pid());
        // Of one that is done, too.
        std::fs::remove_file(&path).unwrap();
        assert_eq!(run_for(&format!("{script}; echo a"), LIMIT).unwrap(), "a\n");
        ended(&pid());
    }
}
