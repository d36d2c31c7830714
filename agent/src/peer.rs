//! Who is at the other end of a connection, by the kernel's word.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use crate::accounts::Accounts;
use crate::log::{self, Fields, Refused};
use config::process_name;
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
    /// Its user's groups in the user database, once it has told them.
    groups: OnceLock<Vec<u32>>,
    accounts: Accounts,
    /// When it connected, since the boot.
    connected: Duration,
    executable: OnceLock<Option<String>>,
}

impl Peer {
    /// By SO_PEERCRED; its user's groups by `accounts`.
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
            groups: OnceLock::new(),
            accounts,
            connected: process_name::since_boot(),
            executable: OnceLock::new(),
        }
    }

    /// The same client without the groups of the user database: to judge it nobody is asked.
    pub(crate) fn at_the_door(&self) -> Peer {
        let peer = Peer::new(self.uid, self.gid, self.pid, self.accounts.clone());
        let _ = peer.groups.set(Vec::new()); // it is new
        peer
    }

    /// A refusal of it, for the log.
    pub fn refused(&self, reason: &'static str) -> Refused {
        Refused {
            uid: self.uid,
            named: self.named,
            reason,
        }
    }

    /// Whether its user is in the group: by its own gid, or by the user database, as sudo does.
    pub fn is_in_group(&self, gid: u32) -> bool {
        self.gid == gid
            || self
                .database_groups()
                .is_some_and(|groups| groups.contains(&gid))
    }

    /// What its process runs, for the log: a path, or a name in brackets, which the process may have
    /// given to itself. Asked once a connection; `None` where nobody may tell.
    pub fn executable(&self) -> Option<&str> {
        let ask = || self.accounts.executable(self.pid, self.connected);
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

    /// `None` while it cannot be asked: the next request asks again.
    fn database_groups(&self) -> Option<&[u32]> {
        if self.groups.get().is_none() {
            match self.accounts.groups(self.uid) {
                Ok(groups) => _ = self.groups.set(groups), // another request may have been first
                Err(error) => {
                    let uid = self.uid;
                    log::refused(self.refused("groups_unknown"), || {
                        log::warn(&format!("cannot tell the groups of uid={uid}: {error}"));
                    });
                }
            }
        }
        self.groups.get().map(Vec::as_slice)
    }
}
