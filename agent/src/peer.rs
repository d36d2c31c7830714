//! Who is at the other end of a connection, by the kernel's word.

use std::fmt;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use crate::accounts::Accounts;
use crate::audit;

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
    accounts: Accounts,
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
            groups: OnceLock::new(),
            accounts,
        }
    }

    /// Whether its user is in the group: by its own gid, or by the user database, as sudo does.
    pub fn is_in_group(&self, gid: u32) -> bool {
        self.gid == gid
            || self
                .groups
                .get_or_init(|| self.database_groups())
                .contains(&gid)
    }

    fn database_groups(&self) -> Vec<u32> {
        let uid = self.uid;
        self.accounts.groups(uid).unwrap_or_else(|error| {
            audit::warn(&format!("cannot tell the groups of uid={uid}: {error}"));
            Vec::new()
        })
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "uid={} gid={} pid={}", self.uid, self.gid, self.pid)
    }
}
