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
    /// `None` to ask nobody: users have the groups that are known already.
    launcher: Option<Launcher>,
    unmapped: Unmapped,
    groups: Arc<Groups>,
}

impl Accounts {
    /// Asks the launcher, for an agent that is confined, or will be. Its answers have a deadline.
    pub fn by(launcher: Launcher) -> Accounts {
        Accounts {
            launcher: Some(launcher),
            unmapped: SystemUsers.unmapped(),
            groups: Arc::default(),
        }
    }

    #[cfg(test)]
    pub(crate) fn own() -> Accounts {
        Accounts::by(Launcher::in_thread("/nowhere".into()).unwrap())
    }

    /// Returns accounts that ask nobody, in which users have the groups that are known already.
    pub(crate) fn in_memory(&self) -> Accounts {
        Accounts {
            launcher: None,
            unmapped: self.unmapped,
            groups: Arc::clone(&self.groups),
        }
    }

    /// What `/proc` shows of a process that was there at that time since the boot.
    pub(crate) fn process(
        &self,
        pid: i32,
        at: Duration,
        limit: Duration,
    ) -> Result<Process, String> {
        match &self.launcher {
            Some(launcher) => launcher.process(pid, at, limit),
            None => Ok(Process::default()),
        }
    }

    /// Returns whether the user database has the user in the group, or had within the last minute. It does not
    /// where it gives no answer.
    pub fn is_member(&self, uid: u32, gid: u32) -> bool {
        let Some(launcher) = &self.launcher else {
            return self.groups.recall(uid, gid).unwrap_or(false);
        };
        let ask = || {
            launcher.groups(uid).inspect_err(|error| {
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
        self.groups.contain(uid, gid, ask).unwrap_or(false)
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
        let launcher = self.launcher.as_ref();
        launcher.map_or(Ok(None), |launcher| launcher.user(name))
    }

    fn group(&self, name: &str) -> Result<Option<u32>, String> {
        let launcher = self.launcher.as_ref();
        launcher.map_or(Ok(None), |launcher| launcher.group(name))
    }

    fn unmapped(&self) -> Unmapped {
        self.unmapped
    }
}
