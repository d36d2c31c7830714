//! Renewals, as the launcher starts them: the agent's own program with a configuration that was fixed when the
//! launcher was started. The agent says only whose certificate it is, and is not heard too often.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, getpgid, kill_process_group, waitid};

use crate::config::IdentityName;
use crate::renewal::program::REPORT;

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

/// When a renewal has ended, kills what is left of its session: one that was killed itself leaves its command
/// behind. Before it is reaped: until then its number is nobody else's.
pub(super) fn end_with(renewal: &Child) {
    let leader = Pid::from_child(renewal);
    let ended = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    if !matches!(waitid(WaitId::Pid(leader), ended), Ok(Some(_))) {
        return;
    }
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let number = process
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        if let Some(process) = number.and_then(Pid::from_raw)
            && session_of(process) == leader.as_raw_pid()
            && let Ok(group) = getpgid(Some(process))
        {
            let _ = kill_process_group(group, Signal::KILL); // it may have ended
        }
    }
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
