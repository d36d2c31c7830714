//! A lock on a name: a file that its owner alone can open. A file that others can read is not a lock, since they
//! could hold it for as long as they like.

use std::ffi::{OsStr, OsString};
use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, fchown};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::fstat;
use rustix::process::geteuid;

use crate::directory;

/// The lock, which is held until this is dropped or the process ends.
#[derive(Debug)]
pub struct Lock {
    directory: OwnedFd,
    name: OsString,
    file: File,
    waited: bool,
    after: Unlocked,
}

/// What becomes of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unlocked {
    /// It is removed.
    Removed,
    /// It stays, with its content.
    Kept,
}

/// The first pause of a process that waits: no system call waits for a lock with a deadline.
const POLL: Duration = Duration::from_millis(5);

/// The longest: a hundred processes that wait shall not keep a processor busy.
const SLOW_POLL: Duration = Duration::from_millis(50);

/// How often another file may come under the name while this one is being locked, if no process is waited for.
const REPLACED_LIMIT: usize = 16;

impl Lock {
    /// Locks a name of the directory; `None` if another process has it until the deadline.
    pub fn take(
        directory: impl AsFd,
        name: impl AsRef<OsStr>,
        deadline: Instant,
        after: Unlocked,
    ) -> io::Result<Option<Lock>> {
        let directory = directory.as_fd().try_clone_to_owned()?;
        let name = name.as_ref().to_owned();
        let (mut waited, mut tries) = (false, 0);
        while tries < REPLACED_LIMIT || Instant::now() < deadline {
            tries += 1;
            let Some(file) = open(&directory, &name, after)? else {
                continue;
            };
            if !wait(&file, deadline, &mut waited)? {
                return Ok(None);
            }
            // Its last holder may have removed the file: then it locks nothing.
            let locked = file.metadata()?;
            let is_there = directory::stat(&directory, &name)?
                .is_some_and(|now| (locked.dev(), locked.ino()) == (now.st_dev, now.st_ino));
            if is_there {
                return Ok(Some(Lock {
                    directory,
                    name,
                    file,
                    waited,
                    after,
                }));
            }
        }
        Ok(None)
    }

    /// The file that is locked.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Whether another process had the lock first.
    pub fn waited(&self) -> bool {
        self.waited
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if self.after == Unlocked::Removed {
            let _ = directory::remove(&self.directory, &self.name); // one that stays is as good
        }
    }
}

/// Opens or makes the file; `None` where it was removed meanwhile. Two steps, since a directory with the sticky bit
/// lets no process open another user's file with `O_CREAT` (`fs.protected_regular`). To write, since NFS locks only
/// such files.
fn open(directory: &OwnedFd, name: &OsStr, after: Unlocked) -> io::Result<Option<File>> {
    let file = match directory::create(directory, name) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            match directory::open_file_to_write(directory, name) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                opened => opened?,
            }
        }
        made => made?,
    };
    match (give_to_owner_of_directory(directory, &file), after) {
        (Err(error), Unlocked::Kept) => Err(error), // it would keep the owner out
        _ => Ok(Some(file)),
    }
}

/// So that root's lock keeps the directory's owner from nothing, should root die or leave it there. The owner may have
/// put a file there that is worth something to root: that one stays root's.
fn give_to_owner_of_directory(directory: &OwnedFd, file: &File) -> io::Result<()> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let (owner, now) = (fstat(directory)?, file.metadata()?);
    let is_a_lock = now.is_file() && now.uid() == 0 && now.nlink() == 1 && now.len() == 0;
    match is_a_lock && owner.st_uid != 0 {
        true => fchown(file, Some(owner.st_uid), Some(owner.st_gid)),
        false => Ok(()),
    }
}

fn wait(file: &File, deadline: Instant, waited: &mut bool) -> io::Result<bool> {
    let mut pause = POLL;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                *waited = true;
                thread::sleep(pause);
                pause = (pause * 2).min(SLOW_POLL);
            }
            Err(TryLockError::WouldBlock) => return Ok(false),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Place;
    use std::fs;
    use std::path::Path;

    fn take(place: &Path, after: Unlocked) -> io::Result<Option<Lock>> {
        let directory = Place::find(&place.join("x"))?.directory;
        Lock::take(directory, "lock", Instant::now(), after)
    }

    #[test]
    fn one_process_at_a_time_has_it() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("lock");
        for after in [Unlocked::Removed, Unlocked::Kept] {
            let lock = take(place.path(), after).unwrap().unwrap();
            assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
            assert!(!lock.waited());
            assert!(take(place.path(), after).unwrap().is_none());
            drop(lock);
            assert_eq!(path.exists(), after == Unlocked::Kept);
            assert!(take(place.path(), after).unwrap().is_some());
        }
    }

    /// The holder removes the file while others wait for it: one of them at a time has the new one.
    #[test]
    fn a_removed_file_is_not_the_lock() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("count");
        fs::write(&path, "0").unwrap();
        let count = || -> usize { fs::read_to_string(&path).unwrap().parse().unwrap() };
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10 {
                        let found = Place::find(&place.path().join("x")).unwrap();
                        let deadline = Instant::now() + Duration::from_secs(60);
                        let lock = Lock::take(found.directory, "lock", deadline, Unlocked::Removed);
                        let _lock = lock.unwrap().unwrap();
                        let now = count();
                        thread::yield_now();
                        fs::write(&path, (now + 1).to_string()).unwrap();
                    }
                });
            }
        });
        assert_eq!(count(), 40);
    }

    #[test]
    fn no_link_is_followed() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("lock");
        std::os::unix::fs::symlink(place.path().join("made"), &path).unwrap();
        assert!(take(place.path(), Unlocked::Removed).is_err());
        assert!(!place.path().join("made").exists());
        assert!(path.is_symlink());
    }
}
