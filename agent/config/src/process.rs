//! A client's process, as `/proc` shows it. The reader must not be confined: Landlock hides other processes.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt::PeerPidfd};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::cgroup::Membership;
use crate::unit_name::UnitName;

/// A process; nothing of one that is gone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// The path of its program; of another user's process its name in brackets.
    pub executable: Option<String>,
    /// The unit of the system's service manager that it is in.
    pub unit: Option<UnitName>,
    /// The pod and the container that it seems to be in.
    pub container: Option<String>,
}

impl Process {
    /// Reads about the process with that number; nothing of one that is younger than the connection of the process that
    /// had the number then.
    pub fn read(pid: i32, connected: Duration) -> Process {
        // Where another PID namespace's /proc is mounted, the number means another process.
        let own = fs::read_link("/proc/self").ok();
        if pid <= 0 || own.is_none_or(|own| own.as_os_str() != &*std::process::id().to_string()) {
            return Process::default();
        }
        let executable = executable(pid).map(|name| name.chars().take(PATH_LIMIT).collect());
        let groups = read_proc(pid, "cgroup", GROUPS_LIMIT).unwrap_or_default();
        let Membership { unit, container } = Membership::parse(&groups);
        // Asked last: a process that is old enough now was so when the rest was read.
        match started(pid).is_none_or(|started| started <= connected) {
            true => Process {
                executable,
                unit,
                container,
            },
            false => Process::default(),
        }
    }
}

/// Returns whether the kernel identifies the process at the other end of a socket beyond its number: Linux 6.5 does.
pub fn is_identified_by_sockets() -> bool {
    UnixStream::pair().is_ok_and(|(socket, _)| getsockopt(&socket, PeerPidfd).is_ok())
}

/// The time since the boot, by which processes are told to be younger than connections.
pub fn since_boot() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default()
}

/// Of a path in the log, in characters.
const PATH_LIMIT: usize = 1024;

/// More than any line of /proc that is read here has, but for the groups of processes.
const LINE_LIMIT: u64 = 4096;

/// A line of up to 4 KiB for each hierarchy of control groups; version 1 has about a dozen.
const GROUPS_LIMIT: u64 = 128 * 1024;

/// The path of what the process runs; of another user's process its name in brackets, as ps writes it.
fn executable(pid: i32) -> Option<String> {
    let path = fs::read_link(format!("/proc/{pid}/exe"));
    let path = path.map(|path| path.to_string_lossy().into_owned());
    path.ok().or_else(|| {
        let name = read_proc(pid, "comm", LINE_LIMIT)?;
        Some(format!("[{}]", name.trim_end_matches('\n')))
    })
}

/// When the process was started, since the boot; rounded down to a clock tick.
fn started(pid: i32) -> Option<Duration> {
    let stat = read_proc(pid, "stat", LINE_LIMIT)?;
    let (_, after_name) = stat.rsplit_once(')')?; // a name may hold anything
    let ticks: u64 = after_name.split_whitespace().nth(19)?.parse().ok()?;
    let millis = ticks.saturating_mul(1000) / rustix::param::clock_ticks_per_second().max(1);
    Some(Duration::from_millis(millis))
}

/// Reads a whole file of the process, if it is shorter than the limit.
fn read_proc(pid: i32, file: &str, limit: u64) -> Option<String> {
    let mut text = Vec::new();
    let file = File::open(format!("/proc/{pid}/{file}")).ok()?;
    let length = file.take(limit).read_to_end(&mut text).ok()?;
    let whole = u64::try_from(length).is_ok_and(|length| length < limit);
    whole.then(|| String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};
    use std::time::Instant;

    /// A process that waits until it is dropped.
    struct Waiting(Child);

    impl Waiting {
        fn start() -> Waiting {
            let mut cat = Command::new("cat");
            let child = cat.stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
            let waiting = Waiting(child.unwrap());
            until(|| executable(waiting.pid()).is_some_and(|name| name.ends_with("/cat")));
            waiting
        }

        fn pid(&self) -> i32 {
            self.0.id().cast_signed()
        }
    }

    impl Drop for Waiting {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn name(pid: i32, connected: Duration) -> Option<String> {
        Process::read(pid, connected).executable
    }

    fn until(mut true_now: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !true_now() {
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_process_is_named_by_what_it_runs() {
        let other = Waiting::start();
        assert!(name(other.pid(), since_boot()).unwrap().ends_with("/cat"));
        for nobody in [0, -1, i32::MAX] {
            assert_eq!(Process::read(nobody, since_boot()), Process::default());
        }
    }

    /// As of another user's process, there is no path of one that has ended and waits to be reaped.
    #[test]
    fn without_a_path_its_name_is_in_brackets() {
        let mut other = Waiting::start();
        other.0.kill().unwrap();
        until(|| executable(other.pid()).as_deref() == Some("[cat]"));
    }

    #[test]
    fn a_process_that_is_younger_than_its_connection_is_another() {
        let before = since_boot();
        let tick = Duration::from_millis(20);
        until(|| since_boot() > before + tick); // what starts now starts in a later tick
        let other = Waiting::start();
        assert_eq!(Process::read(other.pid(), before), Process::default());
        assert!(name(other.pid(), since_boot()).is_some());
    }
}
