//! Who is at the other end of a connection, by the kernel's word.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::{Gid, Uid, User, getgrouplist};
use rustix::time::{ClockId, clock_gettime};

use crate::audit::Fields;

/// A client. Decisions rest on `uid` and `gid`; `pid` is for the log, since it can be reused.
#[derive(Debug)]
pub struct Peer {
    /// Effective user when it connected.
    pub uid: u32,
    /// Effective group when it connected.
    pub gid: u32,
    /// Process when it connected; 0 where it is outside our PID namespace.
    pub pid: i32,
    /// Its user's groups in the user database, asked once a connection.
    groups: OnceLock<Vec<u32>>,
    /// When it connected, since the boot.
    connected: Duration,
    executable: OnceLock<Option<String>>,
}

impl Peer {
    /// By SO_PEERCRED.
    pub fn of(stream: &UnixStream) -> io::Result<Peer> {
        let credentials = getsockopt(stream, PeerCredentials)?;
        Ok(Peer::new(
            credentials.uid(),
            credentials.gid(),
            credentials.pid(),
        ))
    }

    pub(crate) fn new(uid: u32, gid: u32, pid: i32) -> Peer {
        Peer {
            uid,
            gid,
            pid,
            groups: OnceLock::new(),
            connected: since_boot(),
            executable: OnceLock::new(),
        }
    }

    /// Whether its user is in the group: by its own gid, or by the user database, as sudo does.
    pub fn is_in_group(&self, gid: u32) -> bool {
        self.gid == gid
            || self
                .groups
                .get_or_init(|| groups_of(self.uid))
                .contains(&gid)
    }

    /// What its process runs, for the log: a path, or a name in brackets, which the process may have
    /// given to itself. Asked once a connection; `None` where nobody may tell.
    pub fn executable(&self) -> Option<&str> {
        let ask = || {
            let name = executable(self.pid)?;
            // Asked last: a process that is old enough now was so when its name was read. A younger one
            // has the number of one that is gone.
            let same = started(self.pid).is_none_or(|started| started <= self.connected);
            same.then_some(name)
        };
        self.executable.get_or_init(ask).as_deref()
    }

    /// Who it is, for the log.
    pub fn fields(&self) -> Fields {
        vec![
            ("uid", self.uid.into()),
            ("gid", self.gid.into()),
            ("pid", self.pid.into()),
        ]
    }
}

/// More than any line of /proc that is read here has.
const PROC_LIMIT: u64 = 4096;

/// The path of what the process runs; of another user's process its name in brackets, as ps writes it.
fn executable(pid: i32) -> Option<String> {
    if pid <= 0 {
        return None;
    }
    let path = fs::read_link(format!("/proc/{pid}/exe"));
    let path = path.map(|path| path.to_string_lossy().into_owned());
    path.ok().or_else(|| {
        let name = read_proc(pid, "comm")?;
        Some(format!("[{}]", name.trim_end_matches('\n')))
    })
}

/// When the process was started, since the boot; rounded down to a clock tick.
fn started(pid: i32) -> Option<Duration> {
    let stat = read_proc(pid, "stat")?;
    let (_, after_name) = stat.rsplit_once(')')?; // a name may hold anything
    let ticks: u64 = after_name.split_whitespace().nth(19)?.parse().ok()?;
    let millis = ticks.saturating_mul(1000) / rustix::param::clock_ticks_per_second().max(1);
    Some(Duration::from_millis(millis))
}

fn read_proc(pid: i32, file: &str) -> Option<String> {
    let mut text = Vec::new();
    let file = File::open(format!("/proc/{pid}/{file}")).ok()?;
    file.take(PROC_LIMIT).read_to_end(&mut text).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

fn since_boot() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default()
}

fn groups_of(uid: u32) -> Vec<u32> {
    let Ok(Some(user)) = User::from_uid(Uid::from_raw(uid)) else {
        return Vec::new();
    };
    CString::new(user.name)
        .ok()
        .and_then(|name| getgrouplist(&name, user.gid).ok())
        .unwrap_or_default()
        .into_iter()
        .map(Gid::as_raw)
        .collect()
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
        let name = Peer::new(0, 0, other.pid()).executable().map(str::to_owned);
        assert!(name.unwrap().ends_with("/cat"));
        for nobody in [0, -1, i32::MAX] {
            assert_eq!(Peer::new(0, 0, nobody).executable(), None);
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
        let before = Peer::new(0, 0, 1).connected;
        let tick = Duration::from_millis(20);
        until(|| since_boot() > before + tick); // what starts now starts in a later tick
        let other = Waiting::start();
        let peer = |connected| Peer {
            connected,
            ..Peer::new(0, 0, other.pid())
        };
        assert_eq!(peer(before).executable(), None);
        assert!(peer(since_boot()).executable().is_some());
    }
}
