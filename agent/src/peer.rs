//! Who is at the other end of a connection, by the kernel's word.

use std::ffi::CString;
use std::fmt;
use std::io;
use std::os::unix::net::UnixStream;

use nix::unistd::{Gid, Uid, User, getgrouplist};

/// A client. Decisions rest on `uid` and `gid`; `pid` is for the log, since it can be reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Effective user when it connected.
    pub uid: u32,
    /// Effective group when it connected.
    pub gid: u32,
    /// Process when it connected.
    pub pid: i32,
}

impl Peer {
    /// By SO_PEERCRED.
    pub fn of(stream: &UnixStream) -> io::Result<Peer> {
        let credentials = rustix::net::sockopt::socket_peercred(stream)?;
        Ok(Peer {
            uid: credentials.uid.as_raw(),
            gid: credentials.gid.as_raw(),
            pid: credentials.pid.as_raw_nonzero().get(),
        })
    }

    /// Whether its user is in the group: by its own gid, or by the user database, as sudo does.
    pub fn is_in_group(&self, gid: u32) -> bool {
        if self.gid == gid {
            return true;
        }
        let Ok(Some(user)) = User::from_uid(Uid::from_raw(self.uid)) else {
            return false;
        };
        CString::new(user.name)
            .ok()
            .and_then(|name| getgrouplist(&name, user.gid).ok())
            .is_some_and(|groups| groups.contains(&Gid::from_raw(gid)))
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "uid={} gid={} pid={}", self.uid, self.gid, self.pid)
    }
}
