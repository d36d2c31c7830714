//! Users, groups and processes as the agent learns of them: by its launcher, since it is confined.

use std::time::Duration;

use config::process_name;
use config::user_database::{SystemUsers, UserDatabase};

use crate::launcher::Launcher;

/// Who is asked.
#[derive(Debug, Clone)]
pub enum Accounts {
    /// This process.
    Own,
    /// The launcher, for an agent that is confined. Its answers have a deadline.
    Launcher(Launcher),
}

impl Accounts {
    /// What a process runs that was there at that time since the boot.
    pub fn executable(&self, pid: i32, at: Duration) -> Option<String> {
        match self {
            Accounts::Own => process_name::of(pid, at),
            Accounts::Launcher(launcher) => launcher.executable(pid, at),
        }
    }
}

impl UserDatabase for Accounts {
    fn user(&self, name: &str) -> Result<Option<u32>, String> {
        match self {
            Accounts::Own => SystemUsers.user(name),
            Accounts::Launcher(launcher) => launcher.user(name),
        }
    }

    fn group(&self, name: &str) -> Result<Option<u32>, String> {
        match self {
            Accounts::Own => SystemUsers.group(name),
            Accounts::Launcher(launcher) => launcher.group(name),
        }
    }

    fn groups(&self, uid: u32) -> Result<Vec<u32>, String> {
        match self {
            Accounts::Own => SystemUsers.groups(uid),
            Accounts::Launcher(launcher) => launcher.groups(uid),
        }
    }
}
