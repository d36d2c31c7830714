//! One at a time: a lock on a file that is beside the one that the work is about, and that nobody else can open
//! but root and the directory's owner. A file that others can read is no lock: whoever can open it can hold it for
//! as long as he likes.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::io::Errno;
use rustix::process::geteuid;

use config::renewal::beside;

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
    let file = file.map(File::from).map_err(|error| {
        let error = io::Error::from(error);
        let remedy = match path.symlink_metadata() {
            Ok(_) => ": if no other user's command is at work here, remove it",
            Err(_) => "",
        };
        io::Error::new(error.kind(), format!("{}: {error}{remedy}", path.display()))
    })?;
    if geteuid().is_root() {
        let _ = give_to_owner_of_directory(&file, path); // one that stays root's is a lock, too
    }
    Ok(file)
}

/// So that root's lock tells the directory's owner what is under way, and keeps him from nothing if root dies.
/// Whoever has the directory may have put a file there that is worth something to root: that one stays root's.
fn give_to_owner_of_directory(file: &File, path: &Path) -> io::Result<()> {
    let now = file.metadata()?;
    let is_a_lock = now.is_file() && now.uid() == 0 && now.nlink() == 1 && now.len() == 0;
    match path.parent() {
        Some(directory) if is_a_lock => fchown(file, Some(fs::metadata(directory)?.uid()), None),
        _ => Ok(()),
    }
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

    /// One that root leaves behind keeps the directory's owner from nothing.
    #[test]
    fn what_root_makes_is_the_directorys_owners() {
        if as_root::by_sudo!() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(directory.path(), Some(65_534), None).unwrap();
        let target = directory.path().join("web.pem");
        let path = beside(&target, "lock").unwrap();
        let owner = || fs::symlink_metadata(&path).unwrap().uid();
        let lock = Lock::on(&target).unwrap();
        assert_eq!(owner(), 65_534);
        drop(lock);
        fs::write(&path, "").unwrap(); // of a crash
        let lock = Lock::on(&target).unwrap();
        assert_eq!(owner(), 65_534);
        drop(lock);
        // What is no lock is given to nobody.
        fs::write(&path, "root's").unwrap();
        drop(Lock::on(&target).unwrap());
        let kept = directory.path().join("kept");
        for content in ["root's", ""] {
            fs::write(&kept, content).unwrap();
            fs::hard_link(&kept, &path).unwrap();
            let lock = Lock::on(&target).unwrap();
            assert_eq!(owner(), 0);
            drop(lock);
        }
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
