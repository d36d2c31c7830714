//! Who is at the other end of a connection, by the kernel's word.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{
    getsockopt,
    sockopt::{PeerCredentials, PeerPidfd},
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::accounts::Accounts;
use crate::launcher::LOG_LIMIT;
use crate::log::{self, Fields, Refused};
use config::UnitName;
use config::process::{self, Process};
use config::user_database::UserDatabase;

/// A client. Decisions rest on `uid` and `gid`, and on the unit of its process; `pid` is for the log, since it can be
/// reused.
#[derive(Debug)]
pub struct Peer {
    /// Effective user when it connected.
    pub uid: u32,
    /// Effective group when it connected.
    pub gid: u32,
    /// Process when it connected; 0 where it is outside our PID namespace.
    pub pid: i32,
    /// A rule names it, or it is root or the agent's own user; for limits, not for decisions.
    pub named: bool,
    accounts: Accounts,
    /// When it connected, since the boot.
    connected: Duration,
    process: OnceLock<Process>,
    unit: Unit,
}

/// The unit of a client's process, as far as it is known.
#[derive(Debug)]
enum Unit {
    /// No rule has asked for it.
    Unasked,
    /// As it was at that time; `None` outside of all units, or where the process has ended.
    Known(Option<UnitName>, Evidence, Instant),
    /// The last question got no answer at that time.
    Unknown(Instant),
}

/// How the process that connected is told from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// By a descriptor of the kernel's (SO_PEERPIDFD, Linux 6.5).
    Descriptor,
    /// By its number, on an older kernel: another process may have had it when it connected.
    Number,
}

/// How long a unit is known: processes hardly ever move to another one.
const UNIT_GOOD_FOR: Duration = Duration::from_secs(60);

/// For the launcher's answer, which takes less than a millisecond: callers whom no unit names wait for it, too.
const UNIT_LIMIT: Duration = Duration::from_secs(2);

/// A launcher in trouble is asked no more often about one connection.
const UNIT_PAUSE: Duration = Duration::from_secs(1);

impl Peer {
    /// By SO_PEERCRED, as of when it connected; its user's groups by `accounts`, as of the last minute.
    pub fn of(stream: &UnixStream, accounts: &Accounts) -> io::Result<Peer> {
        let credentials = getsockopt(stream, PeerCredentials)?;
        Ok(Peer::new(
            credentials.uid(),
            credentials.gid(),
            credentials.pid(),
            accounts.clone(),
        ))
    }

    pub(crate) fn new(uid: u32, gid: u32, pid: i32, accounts: Accounts) -> Peer {
        Peer {
            uid,
            gid,
            pid,
            named: false,
            accounts,
            connected: process::since_boot(),
            process: OnceLock::new(),
            unit: Unit::Unasked,
        }
    }

    /// The same client with the groups that are known already: to judge it nobody is asked.
    pub(crate) fn at_the_door(&self) -> Peer {
        Peer::new(self.uid, self.gid, self.pid, self.accounts.in_memory())
    }

    /// Returns whether that makes no difference.
    pub(crate) fn has_groups_in_memory(&self) -> bool {
        self.accounts.has_groups_in_memory(self.uid)
    }

    /// A refusal of it, for the log.
    pub fn refused(&self, reason: &'static str) -> Refused {
        Refused {
            uid: self.uid,
            named: self.named,
            reason,
        }
    }

    /// Returns whether its user is in the group: by its own gid, or by the user database, as sudo does.
    pub fn is_in_group(&self, gid: u32) -> bool {
        self.gid == gid || self.accounts.is_member(self.uid, gid)
    }

    /// Returns whether its uid is a user's: not that of all who have none in the agent's user namespace.
    pub fn has_user(&self) -> bool {
        self.uid != self.accounts.unmapped().uid
    }

    /// Returns whether its gid is a group's.
    pub fn has_group(&self) -> bool {
        self.gid != self.accounts.unmapped().gid
    }

    /// Asks for the unit of the process that connected at the other end of `socket`, unless it is known.
    pub(crate) fn find_unit(&mut self, socket: impl AsFd) {
        if self.unit.is_settled() {
            return;
        }
        let asked = Instant::now();
        let found = self.read_process(&socket);
        self.take_unit(asked, found);
    }

    fn take_unit(&mut self, asked: Instant, found: Result<(Process, Evidence), String>) {
        self.unit = match found {
            Ok((mut process, evidence)) => {
                let unit = process.unit.clone();
                process.unit = process.unit.filter(|_| evidence == Evidence::Descriptor);
                self.process = OnceLock::from(process);
                Unit::Known(unit, evidence, asked)
            }
            Err(error) => {
                log::refused(self.refused("unit_unknown"), || {
                    let (uid, pid) = (self.uid, self.pid);
                    log::warn(&format!(
                        "cannot determine the unit of uid={uid} pid={pid}: {error}"
                    ));
                });
                if let Some(process) = self.process.get_mut() {
                    process.unit = None;
                }
                Unit::Unknown(Instant::now())
            }
        };
    }

    /// No rule asks for the unit any more.
    pub(crate) fn forget_unit(&mut self) {
        self.unit = Unit::Unasked;
    }

    /// Reads about the process that connected, and no other: its number has been its own as long as it has not ended.
    fn read_process(&self, socket: &impl AsFd) -> Result<(Process, Evidence), String> {
        let (pidfd, evidence) = match self.open_process(socket) {
            Ok(found) => found,
            Err(error @ (Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM)) => {
                return Err(error.to_string());
            }
            Err(_) => return Ok((Process::default(), Evidence::Descriptor)), // it is gone
        };
        let process = self
            .accounts
            .process(self.pid, self.connected, UNIT_LIMIT)?;
        let mut events = [PollFd::new(&pidfd, PollFlags::IN)]; // readable from its end on
        match poll(&mut events, Some(&Timespec::default())) {
            Ok(0) => Ok((process, evidence)),
            Ok(_) => Ok((Process::default(), evidence)),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Opens the process that connected.
    fn open_process(&self, socket: &impl AsFd) -> Result<(OwnedFd, Evidence), Errno> {
        match getsockopt(socket, PeerPidfd) {
            Err(Errno::ENOPROTOOPT) => {
                let pid = Pid::from_raw(self.pid).ok_or(Errno::ESRCH)?;
                let opened = pidfd_open(pid, PidfdFlags::empty());
                let pidfd = opened.map_err(|error| Errno::from_raw(error.raw_os_error()))?;
                Ok((pidfd, Evidence::Number))
            }
            opened => Ok((opened?, Evidence::Descriptor)),
        }
    }

    /// The unit of its process, once a rule has asked for it, and how sure that is.
    pub(crate) fn unit(&self) -> Option<(&UnitName, Evidence)> {
        match &self.unit {
            Unit::Known(unit, evidence, _) => Some((unit.as_ref()?, *evidence)),
            Unit::Unasked | Unit::Unknown(_) => None,
        }
    }

    /// Returns whether its user's groups, or the unit of its process, have just been asked for without an answer.
    pub fn has_unknowns(&self) -> bool {
        matches!(self.unit, Unit::Unknown(_)) || self.accounts.has_unknown_groups(self.uid)
    }

    /// Its process, for the log: the program's name in brackets is one that the process may have given to itself. Asked
    /// once a connection.
    pub(crate) fn process(&self) -> &Process {
        self.process.get_or_init(|| {
            let found = self.accounts.process(self.pid, self.connected, LOG_LIMIT);
            let mut process = found.unwrap_or_default();
            if !matches!(self.unit, Unit::Unasked) {
                process.unit = None; // a rule could not rely on it
            }
            process
        })
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

impl Unit {
    /// Returns whether nobody is to be asked now.
    fn is_settled(&self) -> bool {
        match self {
            Unit::Unasked => false,
            Unit::Known(.., at) => at.elapsed() < UNIT_GOOD_FOR,
            Unit::Unknown(at) => at.elapsed() < UNIT_PAUSE,
        }
    }
}

#[cfg(test)]
impl Peer {
    /// The same client, known to be in a unit, or in none.
    pub(crate) fn in_unit(mut self, unit: Option<&str>) -> Peer {
        let unit = unit.map(|name| name.parse().unwrap());
        self.unit = Unit::Known(unit, Evidence::Descriptor, Instant::now());
        self
    }

    /// The same, on a kernel that tells its process by the number alone.
    pub(crate) fn by_number(mut self) -> Peer {
        if let Unit::Known(_, evidence, _) = &mut self.unit {
            *evidence = Evidence::Number;
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(stream: &UnixStream) -> Peer {
        Peer::of(stream, &Accounts::own()).unwrap()
    }

    #[test]
    fn a_launcher_without_an_answer_is_not_asked_about_a_unit_again_at_once() {
        let (stream, _other) = UnixStream::pair().unwrap();
        let mut peer = peer(&stream);
        let asked = Instant::now();
        peer.unit = Unit::Unknown(asked);
        peer.find_unit(&stream);
        assert!(matches!(peer.unit, Unit::Unknown(at) if at == asked));
        assert!(peer.has_unknowns());
        // Without a rule for units, that refuses nothing.
        peer.forget_unit();
        assert!(!peer.has_unknowns());
    }

    #[test]
    fn the_log_has_no_unit_that_is_not_sure() {
        let unit = || Some("payments.service".parse().unwrap());
        let process = |unit| Process {
            unit,
            ..Process::default()
        };
        let (stream, _other) = UnixStream::pair().unwrap();
        let mut peer = peer(&stream);
        peer.process = OnceLock::from(process(unit()));
        assert_eq!(peer.process().unit, unit()); // a hint, without a rule
        peer.take_unit(Instant::now(), Err("no answer".to_owned()));
        assert_eq!(peer.process().unit, None);
        for (evidence, logged) in [(Evidence::Number, None), (Evidence::Descriptor, unit())] {
            peer.take_unit(Instant::now(), Ok((process(unit()), evidence)));
            assert_eq!(peer.process().unit, logged);
            assert_eq!(peer.unit(), Some((&unit().unwrap(), evidence)));
        }
    }
}
