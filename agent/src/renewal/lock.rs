//! One at a time: a lock on a file that is beside the one that the work is about, and that nobody else can open.
//! A file that others can read is no lock: whoever can open it can hold it for as long as he likes.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::io::Errno;

use super::install::beside;

/// The file, which is locked for this process and there, until this is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    path: PathBuf,
    #[expect(dead_code, reason = "its descriptor is the lock")]
    file: File,
}

/// How often another file may come under the name while this one is being locked.
const REPLACED_LIMIT: usize = 16;

impl Lock {
    /// Locks the work on `target`; `None` while another process has the lock.
    pub(crate) fn on(target: &Path) -> io::Result<Option<Lock>> {
        let path = beside(target, "lock")?;
        for _ in 0..REPLACED_LIMIT {
            let file = open_or_make(&path)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
            // Who had the lock before has removed the file: then this is the lock of nothing.
            let locked = file.metadata()?;
            let is_there = fs::symlink_metadata(&path)
                .is_ok_and(|now| (locked.dev(), locked.ino()) == (now.dev(), now.ino()));
            if is_there {
                return Ok(Some(Lock { path, file }));
            }
        }
        Ok(None)
    }
}

fn open_or_make(path: &Path) -> io::Result<File> {
    // Whoever has the directory may put anything there: no link is followed, and no pipe waited for.
    let flags = OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = open(path, flags, Mode::RUSR | Mode::WUSR);
    file.map(File::from).map_err(|error| {
        let error = io::Error::from(error);
        let remedy = match path.symlink_metadata() {
            Ok(_) => ": if no other user's command is at work here, remove it",
            Err(_) => "",
        };
        io::Error::new(error.kind(), format!("{}: {error}{remedy}", path.display()))
    })
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path); // one that stays is as good
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("web.pem");
        let lock = Lock::on(&target).unwrap();
        assert!(lock.is_some());
        assert!(Lock::on(&target).unwrap().is_none());
        drop(lock);
        assert!(Lock::on(&target).unwrap().is_some());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        assert!(Lock::on(&target.join("absent")).is_err());
    }

    /// Above all not by who can only read the target.
    #[test]
    fn only_the_own_user_can_hold_it() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("web.pem");
        fs::write(&target, "").unwrap();
        let others = File::open(&target).unwrap();
        flock(&others, FlockOperation::LockExclusive).unwrap();
        let lock = Lock::on(&target).unwrap().unwrap();
        assert_eq!(lock.path.metadata().unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn no_link_is_followed() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("web.pem");
        let link = beside(&target, "lock").unwrap();
        std::os::unix::fs::symlink(directory.path().join("made"), &link).unwrap();
        assert!(Lock::on(&target).is_err());
        assert!(!directory.path().join("made").exists());
        assert!(link.is_symlink());
    }
}
