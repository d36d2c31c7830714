//! The local user database, through NSS: files, LDAP, sssd, systemd, or whatever this host has; and what its
//! users' processes run.

use std::ffi::CString;
use std::time::Duration;

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

use crate::executable;
use crate::launcher::Launcher;

/// Who asks it.
#[derive(Debug, Clone)]
pub enum Accounts {
    /// This process, which so loads whatever NSS is configured with.
    Own,
    /// The launcher, for an agent that is confined. Its answers have a deadline.
    Launcher(Launcher),
}

impl Accounts {
    /// The number of a user.
    pub fn user(&self, name: &str) -> Result<Option<u32>, String> {
        match self {
            Accounts::Own => User::from_name(name)
                .map(|user| user.map(|user| user.uid.as_raw()))
                .map_err(|error| error.to_string()),
            Accounts::Launcher(launcher) => launcher.user(name),
        }
    }

    /// The number of a group.
    pub fn group(&self, name: &str) -> Result<Option<u32>, String> {
        match self {
            Accounts::Own => Group::from_name(name)
                .map(|group| group.map(|group| group.gid.as_raw()))
                .map_err(|error| error.to_string()),
            Accounts::Launcher(launcher) => launcher.group(name),
        }
    }

    /// What a process runs that was there at that time since the boot.
    pub fn executable(&self, pid: i32, at: Duration) -> Option<String> {
        match self {
            Accounts::Own => executable::of(pid, at),
            Accounts::Launcher(launcher) => launcher.executable(pid, at),
        }
    }

    /// The groups of a user; none of one who is not there.
    pub fn groups(&self, uid: u32) -> Result<Vec<u32>, String> {
        match self {
            Accounts::Own => own_groups(uid).map_err(|error| error.to_string()),
            Accounts::Launcher(launcher) => launcher.groups(uid),
        }
    }
}

fn own_groups(uid: u32) -> nix::Result<Vec<u32>> {
    let Some(user) = User::from_uid(Uid::from_raw(uid))? else {
        return Ok(Vec::new());
    };
    let name = CString::new(user.name).map_err(|_| nix::Error::EINVAL)?;
    let groups = getgrouplist(&name, user.gid)?;
    Ok(groups.into_iter().map(Gid::as_raw).collect())
}
