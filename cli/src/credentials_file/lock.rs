//! One run of roleseal at a time changes a credentials file: two that read the same text would each write
//! the other's profile away.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Gid, Mode, OFlags, Uid, fchown, flock, fstat, openat};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::FileError;
use super::place::Place;

/// An edit takes some milliseconds, and on a slow disk a second.
const PATIENCE: Duration = Duration::from_secs(10);

const POLL: Duration = Duration::from_millis(5);

/// Waits for the lock, which is held until the file is closed. The lock's file stays: another run may wait
/// for it. It is not the directory that is locked, because NFS locks only what is open for writing.
pub(super) fn lock(place: &Place) -> Result<File, FileError> {
    let name = place.beside("lock");
    let path = place.path.with_file_name(&name);
    let failed = |error: Errno| FileError::io("lock", &path, error);
    let file = open(place, &name).map_err(failed)?;
    let begin = Instant::now();
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(File::from(file)),
            Err(Errno::WOULDBLOCK) if begin.elapsed() < PATIENCE => thread::sleep(POLL),
            Err(Errno::WOULDBLOCK) => {
                return Err(FileError::Busy {
                    path: place.path.clone(),
                    lock: path,
                    waited: begin.elapsed(),
                });
            }
            Err(error) => return Err(failed(error)),
        }
    }
}

fn open(place: &Place, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let new = flags | OFlags::CREATE | OFlags::EXCL;
    match openat(&place.directory, name, new, Mode::RUSR | Mode::WUSR) {
        Ok(file) => {
            share(place, &file)?;
            Ok(file)
        }
        Err(Errno::EXIST) => openat(&place.directory, name, flags, Mode::empty()),
        Err(error) => Err(error),
    }
}

/// Root's lock in somebody's directory has to be that user's as well.
fn share(place: &Place, new: &OwnedFd) -> rustix::io::Result<()> {
    let directory = fstat(&place.directory)?;
    if geteuid().is_root() && directory.st_uid != 0 {
        let (owner, group) = (directory.st_uid, directory.st_gid);
        fchown(new, Some(Uid::from_raw(owner)), Some(Gid::from_raw(group)))?;
    }
    Ok(())
}
