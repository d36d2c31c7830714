//! One run of roleseal at a time changes a credentials file: two that read the same text would each write
//! the other's profile away.

use std::time::{Duration, Instant};

use files::{Lock, Place, Unlocked};

use super::FileError;
use super::place::beside;

/// An edit takes some milliseconds, and on a slow disk a second.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Waits for the lock. Its file stays: another run may wait for it. It is not the directory that is locked, because NFS
/// locks only what is open for writing.
pub(super) fn lock(place: &Place) -> Result<Lock, FileError> {
    let name = beside(place, "lock");
    let path = place.path.with_file_name(&name);
    let begin = Instant::now();
    let lock = Lock::take(&place.directory, &name, begin + TIMEOUT, Unlocked::Kept);
    let lock = lock.map_err(|error| FileError::io("lock", &path, error))?;
    lock.ok_or_else(|| FileError::Busy {
        path: place.path.clone(),
        lock: path,
        waited: begin.elapsed(),
    })
}
