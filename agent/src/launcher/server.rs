//! The launcher's own side: it does what the agent asks, and ends when the agent does.

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::shutdown;
use rustix::process::{Pid, Signal, kill_process_group};
use signal_hook::SigId;
use signal_hook::consts::SIGCHLD;

use super::message::{
    Answer, FromLauncher, LauncherRequest, REQUEST_LIMIT, Request, receive, send,
};
use crate::panics::{INTERNAL_ERROR, contain};
use crate::sync::{left, wait_to_read};
use config::process;
use config::user_database::{SystemUsers, UserDatabase};
use files::trust;
use token::Program;

/// Does what the agent at the other end of `agent` asks, with these programs, until the agent is gone; then waits
/// for those that run, which see that themselves.
pub(super) fn run(agent: OwnedFd, programs: PathBuf) -> io::Result<()> {
    let mut process = Process::new(agent, programs)?;
    let result = process.serve();
    process.end();
    result
}

struct Process {
    agent: Arc<OwnedFd>,
    /// The directory of the token programs.
    programs: PathBuf,
    children: Vec<Running>,
    /// Readable when a child has ended.
    ended: UnixStream,
    handler: SigId,
    lookups: Arc<AtomicUsize>,
}

/// A token program that runs.
struct Running {
    child: Child,
    /// The agent has the other end, and sees it close.
    #[expect(dead_code, reason = "open while the program runs")]
    alive: io::PipeWriter,
}

/// The most programs at a time: more than any configuration has tokens, fewer than a launcher has
/// descriptors.
const CHILD_LIMIT: usize = 1024;

/// The most lookups in the user database at a time. Each may wait for a server somewhere.
const LOOKUP_LIMIT: usize = 64;

/// How long the token programs may take to end after the agent; they allow themselves 2 s.
const END_LIMIT: Duration = Duration::from_secs(4);

/// How long those may take that were killed.
const KILL_LIMIT: Duration = Duration::from_secs(1);

/// The most groups of one user that are told of: what fits into an answer. Windows has a limit of 1,015.
const GROUP_LIMIT: usize = 4096;

impl Process {
    fn new(agent: OwnedFd, programs: PathBuf) -> io::Result<Process> {
        let (ended, signalled) = UnixStream::pair()?;
        ended.set_nonblocking(true)?;
        Ok(Process {
            agent: Arc::new(agent),
            programs,
            children: Vec::new(),
            ended,
            handler: signal_hook::low_level::pipe::register(SIGCHLD, signalled)?,
            lookups: Arc::default(),
        })
    }

    fn serve(&mut self) -> io::Result<()> {
        loop {
            let mut events = [
                PollFd::new(&self.agent, PollFlags::IN),
                PollFd::new(&self.ended, PollFlags::IN),
            ];
            match poll(&mut events, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let [asked, ended] = events.map(|event| !event.revents().is_empty());
            if ended {
                contain(|| self.reap());
            }
            if asked {
                match receive(&self.agent, REQUEST_LIMIT, false)? {
                    Some((request, _)) => self.answer_contained(request),
                    None => return Ok(()),
                }
            }
        }
    }

    /// A bug in one answer must not end what the token programs and the agent depend on.
    fn answer_contained(&mut self, request: Request) {
        let number = request.number;
        if contain(|| self.answer(request)).is_none() {
            let failed = Answer::Failed(INTERNAL_ERROR.to_owned());
            tell(&self.agent, number, failed, &[]);
        }
    }

    fn answer(&mut self, Request { number, ask }: Request) {
        let answer = match ask {
            LauncherRequest::Start { program, confined } => {
                return self.start(number, program, confined);
            }
            LauncherRequest::Kill { pid } => self.kill(pid),
            LauncherRequest::Process { pid, at } => {
                Answer::Process(process::Process::read(pid, Duration::from_millis(at)))
            }
            LauncherRequest::User { name } => {
                return self.look_up(number, move || found(SystemUsers.user(&name)));
            }
            LauncherRequest::Group { name } => {
                return self.look_up(number, move || found(SystemUsers.group(&name)));
            }
            LauncherRequest::Groups { uid } => return self.look_up(number, move || groups(uid)),
            #[cfg(test)]
            LauncherRequest::Panic { in_thread: true } => {
                return self.look_up(number, || panic!("in a test"));
            }
            #[cfg(test)]
            LauncherRequest::Panic { in_thread: false } => panic!("in a test"),
        };
        tell(&self.agent, number, answer, &[]);
    }

    fn start(&mut self, number: u64, program: Program, confined: bool) {
        match self.spawn(program, confined) {
            Ok((pid, link, end)) => {
                let descriptors = [link.as_fd(), end.as_fd()];
                tell(&self.agent, number, Answer::Started(pid), &descriptors);
            }
            Err(error) => {
                let path = self.programs.join(program.file_name());
                let why = format!("cannot start {}: {error}", path.display());
                tell(&self.agent, number, Answer::Failed(why), &[]);
            }
        }
    }

    fn spawn(
        &mut self,
        program: Program,
        confined: bool,
    ) -> io::Result<(i32, UnixStream, io::PipeReader)> {
        if self.children.len() >= CHILD_LIMIT {
            return Err(io::Error::other("too many token programs run"));
        }
        let (link, theirs) = UnixStream::pair()?;
        let (end, alive) = io::pipe()?;
        let stderr = io::stderr().as_fd().try_clone_to_owned()?;
        let path = self.programs.join(program.file_name());
        trust::check(&path).map_err(|untrusted| io::Error::other(untrusted.explain()))?;
        let mut command = Command::new(path);
        command
            .stdin(OwnedFd::from(theirs))
            .stdout(stderr) // vendor modules print; their words belong into the log
            .env("TSS2_LOG", "all+NONE") // libtss2 prints each error on its own; ours say it once
            .process_group(0); // with whatever a module starts, and without us
        if !confined {
            command.arg(token::program::UNCONFINED);
        }
        let child = command.spawn()?;
        let pid = child.id().cast_signed();
        self.children.push(Running { child, alive });
        Ok((pid, link, end))
    }

    /// Only a token program that it has started itself, and that is not reaped yet: its number is nobody else's.
    fn kill(&self, pid: i32) -> Answer {
        let ours = self
            .children
            .iter()
            .find(|running| running.child.id().cast_signed() == pid);
        if let Some(running) = ours {
            kill(running);
        }
        Answer::Killed
    }

    /// Says so if one ended otherwise than by us.
    fn reap(&mut self) {
        drain(&self.ended);
        let agent = &self.agent;
        self.children.retain_mut(|running| {
            let Ok(Some(status)) = running.child.try_wait() else {
                return true;
            };
            let unexpected = !status.success() && status.signal() != Some(Signal::KILL.as_raw());
            if unexpected {
                let pid = running.child.id().cast_signed();
                let how = status.to_string();
                let _ = send(agent, &FromLauncher::Ended { pid, how }, &[]); // it may be gone
            }
            false
        });
    }

    /// Looks something up in a thread: a user database somewhere in the network must not keep token
    /// programs from being started.
    fn look_up(&self, number: u64, look: impl FnOnce() -> Answer + Send + 'static) {
        let (agent, lookups) = (Arc::clone(&self.agent), Arc::clone(&self.lookups));
        if lookups.fetch_add(1, Ordering::Relaxed) >= LOOKUP_LIMIT {
            lookups.fetch_sub(1, Ordering::Relaxed);
            let busy = "too many lookups in the user database are under way".to_owned();
            return tell(&self.agent, number, Answer::Failed(busy), &[]);
        }
        let look = move || {
            let answer = contain(look).unwrap_or_else(|| Answer::Failed(INTERNAL_ERROR.to_owned()));
            tell(&agent, number, answer, &[]);
            lookups.fetch_sub(1, Ordering::Relaxed);
        };
        if let Err(error) = std::thread::Builder::new().spawn(look) {
            self.lookups.fetch_sub(1, Ordering::Relaxed);
            let failed = Answer::Failed(format!("cannot start a thread: {error}"));
            tell(&self.agent, number, failed, &[]);
        }
    }

    /// The agent is gone, and so are the links of the token programs: they end by themselves, or else are
    /// killed.
    fn end(&mut self) {
        let _ = shutdown(&self.agent, rustix::net::Shutdown::Both); // if it is not gone, it learns that we are
        self.wait_for_children(END_LIMIT);
        for running in &self.children {
            let pid = running.child.id();
            eprintln!("roleseal-agent: program {pid} did not end after the agent: killed");
            kill(running);
        }
        self.wait_for_children(KILL_LIMIT);
    }

    fn wait_for_children(&mut self, limit: Duration) {
        let deadline = Instant::now() + limit;
        loop {
            self.reap();
            if self.children.is_empty() || left(deadline).is_zero() {
                return;
            }
            let _ = wait_to_read(&self.ended, deadline);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        signal_hook::low_level::unregister(self.handler);
    }
}

/// With whatever its module has started.
fn kill(running: &Running) {
    let _ = kill_process_group(Pid::from_child(&running.child), Signal::KILL); // it may have ended
}

fn drain(mut signals: &UnixStream) {
    let mut bytes = [0; 64];
    while matches!(signals.read(&mut bytes), Ok(1..)) {}
}

fn tell(agent: &OwnedFd, number: u64, answer: Answer, descriptors: &[std::os::fd::BorrowedFd]) {
    let message = FromLauncher::Answer { number, answer };
    let _ = send(agent, &message, descriptors); // that it is gone is seen elsewhere
}

fn found(found: Result<Option<u32>, String>) -> Answer {
    match found {
        Ok(number) => Answer::Number(number),
        Err(error) => Answer::Failed(error),
    }
}

fn groups(uid: u32) -> Answer {
    match SystemUsers.groups(uid) {
        Ok(mut groups) => {
            groups.truncate(GROUP_LIMIT);
            Answer::Groups(groups)
        }
        Err(error) => Answer::Failed(error),
    }
}
