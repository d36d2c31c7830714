//! Renewals, as the launcher starts them: the agent's own program with a configuration that was fixed when the
//! launcher was started. The agent says only whose certificate it is, and is not heard too often.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};

use crate::renewal::program::REPORT;
use config::IdentityName;

/// What is started, and when it was.
#[derive(Debug)]
pub(super) struct Renewals {
    program: PathBuf,
    config: PathBuf,
    last: HashMap<IdentityName, Instant>,
}

/// Between two renewals of an identity. The agent waits longer by itself, unless an operator reloads.
const PAUSE: Duration = Duration::from_secs(10);

/// The most identities for which one was started within the pause: a configuration has fewer that are due at a
/// time, and an agent that was taken over does not keep the host busy.
const LIMIT: usize = 64;

impl Renewals {
    /// `program` is roleseal-agent.
    pub(super) fn new(program: PathBuf, config: PathBuf) -> Renewals {
        Renewals {
            program,
            config,
            last: HashMap::new(),
        }
    }

    /// How one is started for the identity; or after which time it may be.
    pub(super) fn command(
        &mut self,
        identity: &IdentityName,
        link: OwnedFd,
        now: Instant,
    ) -> Result<Command, Duration> {
        self.take_turn(identity, now)?;
        let mut argument = OsString::from("--identity=");
        argument.push(identity.to_string());
        let mut command = Command::new(&self.program);
        std::os::unix::process::CommandExt::arg0(&mut command, "roleseal-agent");
        command
            .arg("renew")
            .arg("--config")
            .arg(&self.config)
            .arg(argument)
            .arg(REPORT)
            .stdin(link);
        Ok(command)
    }

    fn take_turn(&mut self, identity: &IdentityName, now: Instant) -> Result<(), Duration> {
        let left = |last: &Instant| PAUSE.saturating_sub(now.saturating_duration_since(*last));
        self.last.retain(|_, last| !left(last).is_zero());
        if let Some(last) = self.last.get(identity) {
            return Err(left(last));
        }
        if self.last.len() >= LIMIT {
            return Err(PAUSE);
        }
        self.last.insert(identity.clone(), now);
        Ok(())
    }
}

/// How often the session of a renewal that has ended is looked through: what is killed starts nothing more, so
/// that only what others start meanwhile is left for the next look.
const LOOKS: usize = 16;

/// When a renewal has ended, kills what is left of its session: one that was killed itself leaves its command
/// behind. Before it is reaped: until then its number, and so its session's, is nobody else's.
pub(super) fn end_with(renewal: &Child) {
    let leader = Pid::from_child(renewal);
    let ended = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    if !matches!(waitid(WaitId::Pid(leader), ended), Ok(Some(_))) {
        return;
    }
    let mut killed = HashSet::from([leader]);
    for _ in 0..LOOKS {
        let before = killed.len();
        let found = processes().filter(|process| !killed.contains(process));
        let found: Vec<Pid> = found
            .filter(|process| kill_if_of(leader, *process))
            .collect();
        killed.extend(found);
        if killed.len() == before {
            return;
        }
    }
}

fn processes() -> impl Iterator<Item = Pid> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
}

/// Whether the process was of that leader's session. It is held first: its number may become another one's at
/// any time.
fn kill_if_of(leader: Pid, process: Pid) -> bool {
    let Ok(held) = pidfd_open(process, PidfdFlags::empty()) else {
        return false;
    };
    session_of(process) == leader.as_raw_pid() && pidfd_send_signal(&held, Signal::KILL).is_ok()
}

/// 0 for the kernel's own, which rustix has no number for.
fn session_of(process: Pid) -> i32 {
    let process = nix::unistd::Pid::from_raw(process.as_raw_pid());
    nix::unistd::getsid(Some(process)).map_or(0, nix::unistd::Pid::as_raw)
}

/// Its standard output: the log.
pub(super) fn log() -> std::io::Result<Stdio> {
    use std::os::fd::AsFd;
    Ok(std::io::stderr().as_fd().try_clone_to_owned()?.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    fn renewals() -> Renewals {
        Renewals::new("/bin/agent".into(), "/etc/a b.toml".into())
    }

    #[test]
    fn it_starts_one_program_with_one_configuration() {
        let link = File::open("/dev/null").unwrap().into();
        let name = "-x.y".parse().unwrap();
        let command = renewals().command(&name, link, Instant::now()).unwrap();
        assert_eq!(command.get_program(), "/bin/agent");
        let arguments: Vec<_> = command.get_args().collect();
        let expected = [
            "renew",
            "--config",
            "/etc/a b.toml",
            "--identity=-x.y",
            "--report",
        ];
        assert_eq!(arguments, expected);
    }

    /// Also where more is started while it is being ended.
    #[test]
    fn of_its_session_nothing_is_left_and_others_stay() {
        let mut other = Command::new("sleep").arg("60").spawn().unwrap();
        let many = "(n=0; while [ $n -lt 500 ]; do sleep 60 & n=$((n+1)); done) &";
        let mut leader = Command::new("setsid")
            .args(["sh", "-c", many])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(Pid::from_child(&leader)), ended).unwrap();
        end_with(&leader);
        let all_have_it = leader.stderr.take().unwrap();
        let mut events = [PollFd::new(&all_have_it, PollFlags::empty())];
        let limit = Timespec {
            tv_sec: 10,
            tv_nsec: 0,
        };
        assert_eq!(poll(&mut events, Some(&limit)), Ok(1));
        leader.wait().unwrap();
        assert_eq!(other.try_wait().unwrap(), None);
        other.kill().unwrap();
        other.wait().unwrap();
    }

    #[test]
    fn nobody_has_it_started_without_a_pause() {
        let (mut renewals, start) = (renewals(), Instant::now());
        let name = |number: usize| IdentityName::try_from(format!("web{number}")).unwrap();
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(renewals.take_turn(&name(0), start), Ok(()));
        let left = renewals.take_turn(&name(0), after(4)).unwrap_err();
        assert_eq!(left.as_secs(), 6);
        assert_eq!(renewals.take_turn(&name(0), after(10)), Ok(()));
        for number in 1..LIMIT {
            assert_eq!(renewals.take_turn(&name(number), after(11)), Ok(()));
        }
        assert!(renewals.take_turn(&name(LIMIT), after(11)).is_err());
        assert_eq!(renewals.take_turn(&name(LIMIT), after(20)), Ok(()));
    }
}
