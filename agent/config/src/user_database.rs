//! The users and groups of this host, through NSS: files, LDAP, sssd, systemd, or whatever it has.

use std::ffi::CString;
use std::fs;

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

/// Where users and groups are looked up. Errors are for people.
pub trait UserDatabase {
    /// The number of a user; `None` where there is none of that name.
    fn user(&self, name: &str) -> Result<Option<u32>, String>;

    /// The number of a group; `None` where there is none of that name.
    fn group(&self, name: &str) -> Result<Option<u32>, String>;

    /// The numbers that stand for users and groups without one.
    fn unmapped(&self) -> Unmapped;
}

/// The numbers by which the kernel reports users and groups that have none in the reader's user namespace
/// (user_namespaces(7)). Debian's `nobody` and `nogroup` have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unmapped {
    /// `kernel.overflowuid`
    pub uid: u32,
    /// `kernel.overflowgid`
    pub gid: u32,
}

/// Linux's default for both.
const OVERFLOW: u32 = 65_534;

/// The host's own, asked by this process, which so loads whatever NSS is configured with.
#[derive(Debug, Clone, Copy)]
pub struct SystemUsers;

impl UserDatabase for SystemUsers {
    fn user(&self, name: &str) -> Result<Option<u32>, String> {
        User::from_name(name)
            .map(|user| user.map(|user| user.uid.as_raw()))
            .map_err(|error| error.to_string())
    }

    fn group(&self, name: &str) -> Result<Option<u32>, String> {
        Group::from_name(name)
            .map(|group| group.map(|group| group.gid.as_raw()))
            .map_err(|error| error.to_string())
    }

    fn unmapped(&self) -> Unmapped {
        let read = |path| fs::read_to_string(path).ok()?.trim().parse().ok();
        Unmapped {
            uid: read("/proc/sys/kernel/overflowuid").unwrap_or(OVERFLOW),
            gid: read("/proc/sys/kernel/overflowgid").unwrap_or(OVERFLOW),
        }
    }
}

impl SystemUsers {
    /// The groups of a user; none of one who is not there.
    pub fn groups(&self, uid: u32) -> Result<Vec<u32>, String> {
        groups(uid).map_err(|error| error.to_string())
    }
}

fn groups(uid: u32) -> nix::Result<Vec<u32>> {
    let Some(user) = User::from_uid(Uid::from_raw(uid))? else {
        return Ok(Vec::new());
    };
    let name = CString::new(user.name).map_err(|_| nix::Error::EINVAL)?;
    let groups = getgrouplist(&name, user.gid)?;
    Ok(groups.into_iter().map(Gid::as_raw).collect())
}
