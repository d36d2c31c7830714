//! The device of a TPM, before anything is sent to it: libtss2 gives one code for a device that is missing and for
//! one that is not this user's to open.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Access, access};
use rustix::io::Errno;

use crate::account::{Account, group_name, how_to_join};

/// Why a device cannot be opened, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// It may come.
    Missing(String),
    /// Its mode does not let this user open it.
    Closed(String),
}

impl Obstacle {
    /// What to tell.
    pub fn into_text(self) -> String {
        match self {
            Obstacle::Missing(text) | Obstacle::Closed(text) => text,
        }
    }
}

/// What keeps this process's user from the device.
pub fn obstacle(path: &Path) -> Option<Obstacle> {
    let device = path.display();
    match access(path, Access::READ_OK | Access::WRITE_OK) {
        Ok(()) => None,
        Err(Errno::NOENT) => Some(Obstacle::Missing(format!(
            "{device} is not there: switch the TPM on in the firmware, and see that the kernel \
             found it (`dmesg | grep -i tpm`)"
        ))),
        Err(Errno::ACCESS) => Some(Obstacle::Closed(closed(path))),
        Err(error) => Some(Obstacle::Missing(format!(
            "{device} cannot be opened: {error}"
        ))),
    }
}

fn closed(path: &Path) -> String {
    let device = path.display();
    let user = Account::own().map_or_else(|_| "this user".to_owned(), |user| user.name);
    match path.metadata() {
        Ok(metadata) => {
            let group = group_name(metadata.gid());
            format!(
                "{device} may not be opened by {user}: it belongs to group {group} with mode {:04o}: {}",
                metadata.mode() & 0o7777,
                how_to_join(&group, &user)
            )
        }
        Err(error) => format!("{device} may not be opened by {user}: {error}"),
    }
}
