//! The launcher: a small process beside the agent that does for it what a confined agent cannot do
//! itself. It starts the token programs, which need more than the agent, kills and reaps them; it asks the
//! user database, which may be anywhere; and it looks up a client's program and unit.
//!
//! It is the agent's own program, started anew before anything is read. All that it takes are the few
//! requests of `launcher/message.rs`: an agent that was taken over can start nothing but the two token programs.

mod client;
mod main;
mod message;
mod server;
mod token_programs;

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::sync::lock;
use config::process::Process;

use client::{Link, Reply};
pub use main::{is_asked_for, main};
use message::{Answer, LauncherRequest};
pub use token_programs::{Running, TokenPrograms};

/// A handle on the launcher. It ends with the last one.
#[derive(Debug, Clone)]
pub struct Launcher(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    link: Arc<Link>,
    /// `None` for one in a thread of this process.
    process: Mutex<Option<Child>>,
}

/// How long the launcher may take. To start a program takes milliseconds, on a busy machine a second.
const LIMIT: Duration = Duration::from_secs(10);

/// How long it may take to look up a process for the log alone: the client waits.
pub(crate) const LOG_LIMIT: Duration = Duration::from_millis(500);

/// Not by its path: what stands there may be another version by now.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// Of a user's or group's name, in bytes, as the system has it (LOGIN_NAME_MAX).
const NAME_LIMIT: usize = 256;

impl Launcher {
    /// Starts it, in a process of its own. Before this process has read anything, opened anything, or
    /// confined itself.
    pub fn start() -> io::Result<Launcher> {
        let (ours, theirs) = pair()?;
        let mut command = Command::new(OWN_PROGRAM);
        command
            .arg0("roleseal-agent")
            .arg(main::ARGUMENT)
            .stdin(theirs)
            .process_group(0); // Ctrl-C is for the agent, whose end is the launcher's
        for variable in token::program::SERVICE_VARIABLES {
            command.env_remove(variable);
        }
        Ok(Launcher::new(ours, Some(command.spawn()?)))
    }

    /// Runs it in a thread of this process, with the programs in the directory `programs`: for tests, whose own
    /// program is not the agent.
    pub fn in_thread(programs: PathBuf) -> io::Result<Launcher> {
        let (ours, theirs) = pair()?;
        std::thread::Builder::new().spawn(move || server::run(theirs, programs))?;
        let launcher = Launcher::new(ours, None);
        launcher.watch(|| {})?;
        Ok(launcher)
    }

    fn new(socket: OwnedFd, process: Option<Child>) -> Launcher {
        Launcher(Arc::new(Inner {
            link: Arc::new(Link::new(socket)),
            process: Mutex::new(process),
        }))
    }

    /// From now on reads what it says in a thread of its own, so that several may ask at a time and the
    /// log has it when a token program dies. When the launcher is gone unasked, `ended` is called.
    pub fn watch(&self, ended: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let link = Arc::clone(&self.0.link);
        link.watch();
        let read = move || {
            if link.read_to_end() {
                ended();
            }
        };
        std::thread::Builder::new()
            .name("launcher".to_owned())
            .stack_size(SMALL_STACK)
            .spawn(read)?;
        Ok(())
    }

    /// How token programs are started: confining themselves, or not where a module does not bear it.
    pub fn token_programs(&self, confined: bool) -> TokenPrograms {
        TokenPrograms::new(self.clone(), confined)
    }

    /// What `/proc` shows of a process that was there at that time since the boot.
    pub(crate) fn process(
        &self,
        pid: i32,
        at: Duration,
        limit: Duration,
    ) -> Result<Process, String> {
        // A whole millisecond later: rounding makes nobody younger.
        let at = u64::try_from(at.as_millis()).map_err(|error| error.to_string())?;
        let at = at.saturating_add(1);
        match self
            .0
            .link
            .ask(LauncherRequest::Process { pid, at }, limit)?
        {
            (Answer::Process(process), _) => Ok(process),
            (other, _) => Err(other.into_failure()),
        }
    }

    /// The number of a user.
    pub(crate) fn user(&self, name: &str) -> Result<Option<u32>, String> {
        self.number(name, |name| LauncherRequest::User { name })
    }

    /// The number of a group.
    pub(crate) fn group(&self, name: &str) -> Result<Option<u32>, String> {
        self.number(name, |name| LauncherRequest::Group { name })
    }

    fn number(
        &self,
        name: &str,
        ask: fn(String) -> LauncherRequest,
    ) -> Result<Option<u32>, String> {
        if name.len() > NAME_LIMIT {
            return Ok(None);
        }
        match self.ask(ask(name.to_owned()))? {
            (Answer::Number(number), _) => Ok(number),
            (other, _) => Err(other.into_failure()),
        }
    }

    /// The groups of a user.
    pub(crate) fn groups(&self, uid: u32) -> Result<Vec<u32>, String> {
        match self.ask(LauncherRequest::Groups { uid })? {
            (Answer::Groups(groups), _) => Ok(groups),
            (other, _) => Err(other.into_failure()),
        }
    }

    /// Lets it end, which it does once its token programs have, and waits for that.
    pub fn close(&self, deadline: Instant) {
        self.0.link.close();
        if let Some(child) = lock(&self.0.process).as_mut() {
            while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(PAUSE);
            }
        }
    }

    fn ask(&self, ask: LauncherRequest) -> Result<Reply, String> {
        self.0.link.ask(ask, LIMIT)
    }
}

/// Between two looks at a launcher that is ending.
const PAUSE: Duration = Duration::from_millis(5);

/// Its thread parses one message at a time.
const SMALL_STACK: usize = 256 * 1024;

impl Drop for Inner {
    fn drop(&mut self) {
        self.link.close();
    }
}

fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    Ok(socketpair(family, kind, SocketFlags::CLOEXEC, None)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::os::unix::net::UnixStream;
    use std::path::Path;
    use std::sync::mpsc;

    use token::Program;

    use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

    /// A generous deadline for what happens soon.
    const SOON: Duration = Duration::from_secs(20);

    /// A launcher whose `roleseal-tpm` is this shell script.
    fn launcher(script: &str) -> (tempfile::TempDir, Launcher) {
        let directory = tempfile::tempdir().unwrap();
        let text = format!("#!/bin/sh\n{script}\n");
        // Not written by this process: while a file is open for writing in one that forks, it cannot be
        // executed.
        let written = Command::new("sh")
            .args(["-c", "printf %s \"$2\" > \"$1\"; chmod 755 \"$1\"", "sh"])
            .arg(directory.path().join("roleseal-tpm"))
            .arg(text)
            .status();
        assert!(written.unwrap().success());
        let launcher = Launcher::in_thread(directory.path().to_owned()).unwrap();
        (directory, launcher)
    }

    fn is_there(pid: i32) -> bool {
        Path::new("/proc").join(pid.to_string()).exists()
    }

    fn pid_of_this() -> i32 {
        std::process::id().cast_signed()
    }

    fn line_from(link: &UnixStream) -> String {
        link.set_read_timeout(Some(SOON)).unwrap();
        let mut line = String::new();
        io::BufRead::read_line(&mut io::BufReader::new(link), &mut line).unwrap();
        line.trim().to_owned()
    }

    #[test]
    fn a_token_program_is_started_killed_and_reaped() {
        let (_directory, launcher) = launcher("echo \"$# $1\" >&0; exec sleep 60");
        for (confined, arguments) in [(true, "0"), (false, "1 --unconfined")] {
            let programs = launcher.token_programs(confined);
            let (running, link) = programs.start(Program::Tpm).unwrap();
            assert_eq!(line_from(&link), arguments);
            assert!(is_there(running.pid()));
            running.wait(Duration::ZERO);
            running.kill();
            running.wait(SOON);
            assert!(!is_there(running.pid()));
        }
        let error = launcher
            .token_programs(true)
            .start(Program::Pkcs11)
            .unwrap_err();
        assert!(error.contains("roleseal-pkcs11: No such file"), "{error}");
    }

    #[test]
    fn nothing_that_it_did_not_start_is_killed() {
        let (_directory, launcher) = launcher("read line <&0; echo alive >&0");
        let (_running, mut link) = launcher.token_programs(true).start(Program::Tpm).unwrap();
        let mut sleeping = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = sleeping.id().cast_signed();
        for pid in [pid, -pid] {
            let answer = launcher.ask(LauncherRequest::Kill { pid }).unwrap().0;
            assert_eq!(answer, Answer::Killed);
        }
        io::Write::write_all(&mut link, b"\n").unwrap();
        assert_eq!(line_from(&link), "alive");
        assert!(sleeping.try_wait().unwrap().is_none());
        sleeping.kill().unwrap();
        sleeping.wait().unwrap();
    }

    /// The program neither sees that the agent is gone nor would it care.
    #[test]
    fn after_the_agent_nothing_is_left() {
        let (_directory, launcher) = launcher("trap '' TERM INT HUP; echo >&0; exec sleep 60");
        let (running, link) = launcher.token_programs(true).start(Program::Tpm).unwrap();
        line_from(&link);
        let pid = running.pid();
        drop((running, launcher));
        let deadline = Instant::now() + SOON;
        while is_there(pid) {
            assert!(Instant::now() < deadline);
            std::thread::sleep(PAUSE);
        }
    }

    #[test]
    fn a_request_that_makes_no_sense_ends_it() {
        let (_directory, launcher) = launcher("");
        let (ended, end) = mpsc::channel();
        // A second watch, which sees the same end.
        launcher.watch(move || ended.send(()).unwrap()).unwrap();
        let request = r#"{"number":1,"ask":{"Start":{"program":"/bin/sh","confined":true}}}"#;
        let request: Box<serde_json::value::RawValue> = serde_json::from_str(request).unwrap();
        message::send(&launcher.0.link.socket, &request, &[]).unwrap();
        end.recv_timeout(SOON).unwrap();
        let asked = Instant::now();
        assert!(launcher.user("root").is_err());
        assert!(asked.elapsed() < LIMIT);
    }

    #[test]
    fn a_panic_fails_one_request_and_ends_nothing() {
        let (_directory, launcher) = launcher("");
        for in_thread in [false, true].repeat(100) {
            let answer = launcher
                .ask(LauncherRequest::Panic { in_thread })
                .unwrap()
                .0;
            assert!(matches!(answer, Answer::Failed(_)), "{answer:?}");
        }
        assert_eq!(launcher.user("root"), Ok(Some(0)));
    }

    #[test]
    fn programs_are_told_by_their_path_or_else_by_their_name() {
        let (_directory, launcher) = launcher("");
        let own = std::env::current_exe().unwrap();
        let named = |pid| {
            let process = launcher.process(pid, config::process::since_boot(), LIMIT);
            process.unwrap().executable
        };
        assert_eq!(named(pid_of_this()).as_deref(), own.to_str());
        // One that has ended and is not reaped has a name, and no program any more.
        let mut ended = Command::new("true").spawn().unwrap();
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(Pid::from_child(&ended)), options).unwrap();
        assert_eq!(named(ended.id().cast_signed()).as_deref(), Some("[true]"));
        ended.wait().unwrap();
        for nobody in [0, -1, i32::MIN, i32::MAX] {
            assert_eq!(named(nobody), None);
        }
        assert!(named(pid_of_this()).is_some());
    }

    #[test]
    fn users_and_groups_are_those_of_the_database() {
        let (_directory, launcher) = launcher("");
        assert_eq!(launcher.user("root"), Ok(Some(0)));
        assert_eq!(launcher.group("root"), Ok(Some(0)));
        for nobody in ["no such user", "", "root\0", &"x".repeat(100_000)] {
            assert_eq!(launcher.user(nobody), Ok(None), "{nobody:?}");
            assert_eq!(launcher.group(nobody), Ok(None), "{nobody:?}");
        }
        assert!(launcher.groups(0).unwrap().contains(&0));
        assert_eq!(launcher.groups(4_000_001), Ok(vec![]));
    }

    #[test]
    fn many_may_ask_at_a_time_and_one_before_it_is_watched() {
        let (ours, theirs) = pair().unwrap();
        let launcher = Launcher::new(ours, None);
        let programs = PathBuf::from("/nowhere");
        std::thread::spawn(move || server::run(theirs, programs));
        assert_eq!(launcher.user("root"), Ok(Some(0)));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        assert_eq!(launcher.group("root"), Ok(Some(0)));
                    }
                });
            }
        });
        launcher.watch(|| {}).unwrap();
        assert_eq!(launcher.user("root"), Ok(Some(0)));
    }
}
