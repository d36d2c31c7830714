//! Users, groups and processes as the agent learns of them: by its launcher, since it is confined.

mod groups;

use std::sync::Arc;
use std::time::Duration;

use config::process::Process;
use config::user_database::{SystemUsers, Unmapped, UserDatabase};

use crate::launcher::Launcher;
use crate::log::{self, Refused};
use groups::Groups;

/// Who is asked, and what was told within the last minute.
#[derive(Debug, Clone)]
pub struct Accounts {
    source: Source,
    unmapped: Unmapped,
    groups: Arc<Groups>,
}

#[derive(Debug, Clone)]
enum Source {
    Own,
    Launcher(Launcher),
    /// Nobody: users have the groups of which others were told within the last minute.
    Memory,
}

impl Accounts {
    /// Asks this process.
    pub fn own() -> Accounts {
        Accounts::of(Source::Own)
    }

    /// Asks the launcher, for an agent that is confined, or will be. Its answers have a deadline.
    pub fn by(launcher: Launcher) -> Accounts {
        Accounts::of(Source::Launcher(launcher))
    }

    /// Returns accounts that ask nobody, in which users have the groups that are known already.
    pub(crate) fn in_memory(&self) -> Accounts {
        Accounts {
            source: Source::Memory,
            unmapped: self.unmapped,
            groups: Arc::clone(&self.groups),
        }
    }

    fn of(source: Source) -> Accounts {
        Accounts {
            source,
            unmapped: SystemUsers.unmapped(),
            groups: Arc::default(),
        }
    }

    /// What `/proc` shows of a process that was there at that time since the boot.
    pub(crate) fn process(
        &self,
        pid: i32,
        at: Duration,
        limit: Duration,
    ) -> Result<Process, String> {
        match &self.source {
            Source::Own => Ok(Process::read(pid, at)),
            Source::Launcher(launcher) => launcher.process(pid, at, limit),
            Source::Memory => Ok(Process::default()),
        }
    }

    /// Returns whether the user database has the user in the group, or had within the last minute. It does not
    /// where it gives no answer.
    pub fn is_member(&self, uid: u32, gid: u32) -> bool {
        let told = match &self.source {
            Source::Own => self.ask(uid, gid, || SystemUsers.groups(uid)),
            Source::Launcher(launcher) => self.ask(uid, gid, || launcher.groups(uid)),
            Source::Memory => self.groups.recall(uid, gid),
        };
        told.unwrap_or(false)
    }

    /// Returns whether the user is in the group, by `groups` where no answer is known; `None` without an answer.
    fn ask(
        &self,
        uid: u32,
        gid: u32,
        groups: impl FnOnce() -> Result<Vec<u32>, String>,
    ) -> Option<bool> {
        let ask = || {
            groups().inspect_err(|error| {
                let refused = Refused {
                    uid,
                    named: false,
                    reason: "groups_unknown",
                };
                log::refused(refused, || {
                    log::warn(&format!("cannot tell the groups of uid={uid}: {error}"));
                });
            })
        };
        self.groups.contain(uid, gid, ask).ok()
    }

    /// Returns whether [`is_member`](Self::is_member) would ask nobody now.
    pub(crate) fn has_groups_in_memory(&self, uid: u32) -> bool {
        self.groups.recall(uid, 0).is_some()
    }

    /// Returns whether the user database has just given no answer to [`is_member`](Self::is_member).
    pub fn has_unknown_groups(&self, uid: u32) -> bool {
        self.groups.are_unknown(uid)
    }

    /// Has the groups of all users asked anew.
    pub fn forget_groups(&self) {
        self.groups.forget();
    }
}

impl UserDatabase for Accounts {
    fn user(&self, name: &str) -> Result<Option<u32>, String> {
        match &self.source {
            Source::Own => SystemUsers.user(name),
            Source::Launcher(launcher) => launcher.user(name),
            Source::Memory => Ok(None),
        }
    }

    fn group(&self, name: &str) -> Result<Option<u32>, String> {
        match &self.source {
            Source::Own => SystemUsers.group(name),
            Source::Launcher(launcher) => launcher.group(name),
            Source::Memory => Ok(None),
        }
    }

    fn unmapped(&self) -> Unmapped {
        self.unmapped
    }
}
