//! Who is at the other end of a connection, by the kernel's word.

use std::ffi::CString;
use std::fmt;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::{Gid, Uid, User, getgrouplist};

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

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "uid={} gid={} pid={}", self.uid, self.gid, self.pid)
    }
}
