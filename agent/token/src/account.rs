//! A user of this host, as a process can become it.

use std::ffi::CString;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::{Gid, Group, Uid, User, getgrouplist, setgroups, setresgid, setresuid};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use serde::{Deserialize, Serialize};

/// A user, with all that decides which files its processes may open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// Its number.
    pub uid: u32,
    /// Its primary group.
    pub gid: u32,
    /// All its groups.
    pub groups: Vec<u32>,
}

impl Account {
    /// As the user database has it; `None` if it has none of that name.
    pub fn named(name: &str) -> io::Result<Option<Account>> {
        Account::of(User::from_name(name)?)
    }

    /// This process's effective user, by its number where it has no name.
    pub fn own() -> io::Result<Account> {
        let uid = Uid::effective();
        let known = Account::of(User::from_uid(uid)?)?;
        Ok(known.unwrap_or_else(|| Account {
            name: format!("user {uid}"),
            uid: uid.as_raw(),
            gid: Gid::effective().as_raw(),
            groups: Vec::new(),
        }))
    }

    fn of(user: Option<User>) -> io::Result<Option<Account>> {
        let Some(user) = user else {
            return Ok(None);
        };
        let name = CString::new(user.name.as_str())?;
        let groups = getgrouplist(&name, user.gid)?;
        Ok(Some(Account {
            name: user.name,
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
            groups: groups.into_iter().map(Gid::as_raw).collect(),
        }))
    }

    /// Puts this group in the place of its primary one.
    pub fn with_primary_group(mut self, name: &str) -> io::Result<Account> {
        self.gid = group(name)?;
        self.groups.push(self.gid);
        Ok(self)
    }

    /// Adds a group that a service has beside its user's.
    pub fn with_group(mut self, name: &str) -> io::Result<Account> {
        self.groups.push(group(name)?);
        Ok(self)
    }

    /// Whether it is root.
    pub fn is_root(&self) -> bool {
        self.uid == 0
    }

    /// Whether the modes of a file and of the directories above it let this user read it.
    pub fn may_read(&self, path: &Path) -> io::Result<bool> {
        const SEARCH: u32 = 0o1;
        const READ: u32 = 0o4;
        let path = path.canonicalize()?;
        let mut wanted = READ;
        for part in path.ancestors() {
            if !self.is_root() && !self.has(wanted, &part.metadata()?) {
                return Ok(false);
            }
            wanted = SEARCH;
        }
        Ok(true)
    }

    fn has(&self, wanted: u32, file: &Metadata) -> bool {
        let shift = match file {
            file if file.uid() == self.uid => 6,
            file if file.gid() == self.gid || self.groups.contains(&file.gid()) => 3,
            _ => 0,
        };
        file.mode() >> shift & wanted == wanted
    }

    /// Makes this process, with all its threads, this user's for good: real, effective and saved ids. Only root can.
    pub fn become_for_good(&self) -> io::Result<()> {
        let groups: Vec<Gid> = self.groups.iter().copied().map(Gid::from_raw).collect();
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        setgroups(&groups)?;
        setresgid(gid, gid, gid)?;
        setresuid(uid, uid, uid)?;
        // The kernel has just set it anew, to fs.suid_dumpable.
        set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
        Ok(())
    }
}

/// A group's name, or its number where it has none.
pub fn group_name(gid: u32) -> String {
    match Group::from_gid(Gid::from_raw(gid)) {
        Ok(Some(group)) => group.name,
        _ => gid.to_string(),
    }
}

/// What to do where a group's members may what this user may not.
pub fn how_to_join(group: &str, user: &str) -> String {
    format!(
        "give group {group} to the agent's service (SupplementaryGroups={group} in a drop-in of \
         roleseal-agent.service: the packages ship those for tss and softhsm), or to a person (sudo usermod -aG \
         {group} {user}, then a new login)"
    )
}

fn group(name: &str) -> io::Result<u32> {
    let missing = || io::Error::other(format!("there is no group {name:?}"));
    let group = match name.parse() {
        Ok(gid) => Group::from_gid(Gid::from_raw(gid))?,
        Err(_) => Group::from_name(name)?,
    };
    Ok(group.ok_or_else(missing)?.gid.as_raw())
}
