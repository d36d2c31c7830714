//! Who is at the other end of a connection, by the kernel's word.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use crate::accounts::Accounts;
use crate::launcher::LOG_LIMIT;
use crate::log::{Fields, Refused};
use config::process::{self, Process};
use config::user_database::UserDatabase;

/// A client. Decisions rest on `uid` and `gid`; `pid` is for the log, since it can be reused.
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
}

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

    /// Returns whether the user database has just not told its user's groups.
    pub fn has_unknown_groups(&self) -> bool {
        self.accounts.has_unknown_groups(self.uid)
    }

    /// Its process, for the log: the program's name in brackets is one that the process may have given to itself. Asked
    /// once a connection.
    pub(crate) fn process(&self) -> &Process {
        self.process.get_or_init(|| {
            let found = self.accounts.process(self.pid, self.connected, LOG_LIMIT);
            found.unwrap_or_default()
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
