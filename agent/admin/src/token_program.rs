//! A token program as a child of an operator's command: it does what the command asks, one task at a time,
//! and ends with it.
//!
//! Other than the daemon's, it stays in the command's process group, so that it can ask for a PIN at the
//! terminal and gets its Ctrl-C, and it has the command's own rights.

mod terminal;

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use files::trust::{self, Untrusted};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use serde::de::DeserializeOwned;
use token::operator::{ARGUMENT, Outcome};
use token::signals::Signals;
use token::{PinSource, greeting, link};

use crate::failure::Failure;
use crate::output;
use terminal::Terminal;

/// A token program that runs.
#[derive(Debug)]
pub(crate) struct Program {
    name: &'static str,
    child: Child,
    link: UnixStream,
    signals: &'static Signals,
    terminal: Option<Terminal>,
}

/// What a task may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// What it does, for whoever waits at a terminal.
    pub(crate) what: &'static str,
    /// How long the token may work on it.
    pub(crate) work: Duration,
    /// Whether a person may be asked meanwhile, and where.
    pub(crate) asking: Asking,
}

/// Who is asked for a PIN while a task is done: of several, the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Asking {
    /// Nobody.
    Nobody,
    /// A person at this terminal.
    Here,
    /// A person, wherever systemd's password agents are.
    Elsewhere,
}

/// What a token does in less than a second each, many times over: looking at objects, a signature. Slow
/// cards and networks take some seconds.
const USUAL: Duration = Duration::from_secs(60);

/// Making a key: RSA with 4096 bits takes minutes in some cards and TPMs.
const MAKING: Duration = Duration::from_secs(10 * 60);

/// To find out a PIN and type it.
const PERSON: Duration = Duration::from_secs(10 * 60);

/// Whoever waits for longer is told for what.
const SILENCE: Duration = Duration::from_secs(2);

/// How often a terminal is looked at, whether somebody is being asked there.
const LOOK: Duration = Duration::from_millis(250);

/// An answer arrives at once when it has begun to.
const ANSWER: Duration = Duration::from_secs(10);

/// To log out and close the module, or to finish what is not broken off. Vendor modules hang here.
const CLOSE: Duration = Duration::from_secs(5);

impl Program {
    /// Starts one, from the directory of this program.
    pub(crate) fn start(program: token::Program) -> Result<Program, Failure> {
        let name = program.file_name();
        let cannot = |error: io::Error| {
            Failure::failed(format!(
                "cannot start {name}: {error}: it must stand beside roleseal-agent, in the same version"
            ))
        };
        let path = std::env::current_exe()
            .map_err(cannot)?
            .with_file_name(name);
        match trust::check(&path) {
            Err(Untrusted::Io { error, .. }) => Err(cannot(error)),
            Err(untrusted) => {
                let failure = Failure::failed(format!("cannot start {name}: {untrusted}"));
                Err(failure.hint(untrusted.remedy().unwrap_or_default()))
            }
            Ok(()) => Program::spawn(program, &path).map_err(cannot),
        }
    }

    fn spawn(program: token::Program, path: &Path) -> io::Result<Program> {
        let (link, theirs) = UnixStream::pair()?;
        link.set_read_timeout(Some(ANSWER))?;
        let mut command = Command::new(path);
        command
            .arg0(program.file_name())
            .arg(ARGUMENT)
            .stdin(OwnedFd::from(theirs))
            .stdout(io::stderr().as_fd().try_clone_to_owned()?) // modules print: not into our output
            .env("TSS2_LOG", "all+NONE"); // libtss2 prints each error on its own; ours say it once
        let (signals, terminal) = (Signals::of_process()?, Terminal::open());
        let mut program = Program {
            name: program.file_name(),
            child: command.spawn()?,
            link,
            signals,
            terminal,
        };
        match greeting::expect(&mut program.link, program.name) {
            Ok(()) => Ok(program),
            Err(error) => {
                program.kill();
                Err(io::Error::other(error))
            }
        }
    }

    /// Has one task done.
    pub(crate) fn ask<T: Serialize, A: DeserializeOwned>(
        &mut self,
        task: &T,
        patience: Patience,
    ) -> Result<A, Failure> {
        self.send(task)?;
        self.answer(patience, &mut false)
    }

    /// Has one task done whose results come one by one, and gives each to `take`, until that says `false`. The token may
    /// work for as long as `patience` says on each of them.
    pub(crate) fn ask_for_each<T: Serialize, A: DeserializeOwned>(
        &mut self,
        task: &T,
        patience: Patience,
        mut take: impl FnMut(A) -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        self.send(task)?;
        let mut told = false;
        while take(self.answer(patience, &mut told)?)? {}
        Ok(())
    }

    fn send<T: Serialize>(&mut self, task: &T) -> Result<(), Failure> {
        link::send(&mut self.link, task).map_err(|_| self.ended())
    }

    fn answer<A: DeserializeOwned>(
        &mut self,
        patience: Patience,
        told: &mut bool,
    ) -> Result<A, Failure> {
        let _held = self.signals.hold();
        self.wait(patience, told)?;
        match link::receive::<Outcome<A>>(&mut self.link) {
            Ok(Some(outcome)) => outcome.map_err(Failure::Token),
            Ok(None) => Err(self.ended()),
            Err(error) => Err(Failure::failed(format!(
                "{} answers nonsense: {error}: install it in the same version as roleseal-agent",
                self.name
            ))),
        }
    }

    /// Until there is an answer, or its end. `told`: whether a person at the terminal knows what is waited for.
    fn wait(&mut self, patience: Patience, told: &mut bool) -> Result<(), Failure> {
        let mut clock = Clock::new(patience, Instant::now());
        *told |= !io::stderr().is_terminal();
        loop {
            let mut events: Vec<PollFd> = self.signals.events();
            events.push(PollFd::new(&self.link, PollFlags::IN));
            match poll(&mut events, Timespec::try_from(LOOK).ok().as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(Failure::failed(format!("cannot wait: {error}"))),
            }
            let answered = events.last().is_some_and(|link| !link.revents().is_empty());
            drop(events);
            if let Some(signal) = self.signals.arrived() {
                self.stop();
                return Err(Failure::Interrupted(signal));
            }
            if answered {
                return Ok(());
            }
            let asking = self.terminal.as_ref().is_some_and(Terminal::is_silent);
            if let Err(failure) = clock.tick(Instant::now(), asking, self.name) {
                self.stop();
                return Err(failure);
            }
            if !*told && clock.worked >= SILENCE && patience.asking != Asking::Elsewhere {
                *told = true;
                output::note(&format!("{}; this may take some minutes", patience.what));
            }
        }
    }

    /// It closed its link unasked.
    fn ended(&mut self) -> Failure {
        let how = match self.reap(CLOSE) {
            Some(status) => status.to_string(),
            None => "it hangs while it ends".to_owned(),
        };
        self.kill();
        Failure::failed(format!(
            "{} ended before it answered ({how}): its module or library may have crashed",
            self.name
        ))
    }

    /// Ends it; but not in the middle of a login or of a change, where SoftHSM would lose its token, unless that
    /// hangs.
    fn stop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM); // it may have ended
        let _ = self.reap(CLOSE);
        self.kill();
    }

    fn kill(&mut self) {
        let _ = self.child.kill(); // it may have ended
        let _ = self.child.wait();
        if let Some(terminal) = &self.terminal {
            terminal.restore();
        }
    }

    fn reap(&mut self, limit: Duration) -> Option<std::process::ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) if Instant::now() < deadline => std::thread::sleep(REAP),
                _ => return None,
            }
        }
    }
}

/// Between two looks whether it has ended.
const REAP: Duration = Duration::from_millis(2);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.link.shutdown(std::net::Shutdown::Both); // the sign to end
        if self.reap(CLOSE).is_none() {
            self.stop();
        }
    }
}

impl Patience {
    /// For what tokens do every day.
    pub(crate) fn usual<'p>(
        what: &'static str,
        pins: impl IntoIterator<Item = &'p PinSource>,
    ) -> Patience {
        Patience {
            what,
            work: USUAL,
            asking: Asking::by(pins),
        }
    }

    /// For making a key.
    pub(crate) fn making<'p>(pins: impl IntoIterator<Item = &'p PinSource>) -> Patience {
        Patience {
            what: "making the key",
            work: MAKING,
            asking: Asking::by(pins),
        }
    }
}

impl Asking {
    fn by<'p>(pins: impl IntoIterator<Item = &'p PinSource>) -> Asking {
        let asking = pins.into_iter().map(|pin| match pin {
            PinSource::AskPassword(_) => Asking::Elsewhere,
            PinSource::Terminal(_) => Asking::Here,
            PinSource::File(_) | PinSource::Credential(_) | PinSource::Value(_) => Asking::Nobody,
        });
        asking.max().unwrap_or(Asking::Nobody)
    }
}

/// What has passed, of the token's time and of the person's.
struct Clock {
    patience: Patience,
    last: Instant,
    worked: Duration,
    asked: Duration,
}

impl Clock {
    fn new(patience: Patience, now: Instant) -> Clock {
        Clock {
            patience,
            last: now,
            worked: Duration::ZERO,
            asked: Duration::ZERO,
        }
    }

    /// Books what has passed since the last time on one of the two. Where a person is asked elsewhere, nobody
    /// can tell them apart.
    fn tick(&mut self, now: Instant, asking: bool, name: &str) -> Result<(), Failure> {
        let passed = now.duration_since(self.last);
        self.last = now;
        let limit = match self.patience.asking {
            Asking::Elsewhere => self.patience.work + PERSON,
            _ => self.patience.work,
        };
        if asking && self.patience.asking == Asking::Here {
            self.asked += passed;
        } else {
            self.worked += passed;
        }
        if self.asked > PERSON {
            return Err(Failure::failed("nobody has given the PIN".to_owned()));
        }
        if self.worked > limit {
            return Err(Failure::failed(format!(
                "{name} has not answered for {} s, and was ended: look whether its token hangs",
                self.worked.as_secs()
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use token::Question;

    const SECOND: Duration = Duration::from_secs(1);

    /// How long such a task may take in all, where somebody is asked for so many seconds of it.
    fn limit(pin: Option<&PinSource>, asked: u32) -> (Duration, String) {
        let (patience, start) = (Patience::usual("looking", pin), Instant::now());
        let mut clock = Clock::new(patience, start);
        for second in 1.. {
            let passed = SECOND * second;
            if let Err(failure) = clock.tick(start + passed, second <= asked, "roleseal-pkcs11") {
                return (passed, failure.to_string());
            }
        }
        panic!("for ever");
    }

    #[test]
    fn a_token_that_hangs_has_an_end_and_a_person_has_time() {
        let question = Question {
            text: "PIN".to_owned(),
            twice: false,
        };
        let terminal = PinSource::Terminal(question.clone());
        let elsewhere = PinSource::AskPassword(question);
        for (pin, asked, expected) in [
            (None, 0, USUAL),
            (Some(&terminal), 0, USUAL),
            (Some(&terminal), 300, USUAL + 300 * SECOND),
            (Some(&elsewhere), 0, USUAL + PERSON),
        ] {
            let (passed, failure) = limit(pin, asked);
            assert_eq!(passed, expected + SECOND);
            assert!(
                failure.contains("roleseal-pkcs11 has not answered"),
                "{failure}"
            );
        }
        let (passed, failure) = limit(Some(&terminal), u32::MAX);
        assert_eq!(passed, PERSON + SECOND);
        assert!(failure.contains("nobody has given"), "{failure}");
        // An editor that has the terminal without echo is nobody who is asked.
        assert_eq!(limit(None, u32::MAX).0, USUAL + SECOND);
    }
}
