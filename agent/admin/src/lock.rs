//! One at a time: a lock beside the file that the work is about, which only root and the directory's owner can open.

use std::io;
use std::time::Instant;

use files::{Place, Unlocked};

use config::renewal::beside;

/// The lock, which is held and there until this is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    #[expect(dead_code, reason = "to hold it is to have the lock")]
    held: files::Lock,
}

impl Lock {
    /// Locks the work on a file; `None` while another process has the lock.
    pub(crate) fn on(target: &Place) -> io::Result<Option<Lock>> {
        let path = beside(&target.path, "lock")?;
        let name = path.file_name().unwrap_or_default();
        let held = files::Lock::take(&target.directory, name, Instant::now(), Unlocked::Removed);
        let held = held.map_err(|error| {
            let remedy = match path.symlink_metadata() {
                Ok(_) => ": if no other user's command is at work here, remove it",
                Err(_) => "",
            };
            io::Error::new(error.kind(), format!("{}: {error}{remedy}", path.display()))
        })?;
        Ok(held.map(|held| Lock { held }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;

    fn lock(target: &Path) -> io::Result<Option<Lock>> {
        Lock::on(&Place::find(target)?)
    }

    #[test]
    fn one_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("web.pem");
        let held = lock(&target).unwrap();
        assert!(held.is_some());
        assert!(lock(&target).unwrap().is_none());
        drop(held);
        assert!(lock(&target).unwrap().is_some());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        assert!(lock(&target.join("absent/file")).is_err());
    }

    /// Above all not by who can only read the target.
    #[test]
    fn only_the_own_user_can_hold_it() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("web.pem");
        fs::write(&target, "").unwrap();
        let others = File::open(&target).unwrap();
        others.lock().unwrap();
        let _lock = lock(&target).unwrap().unwrap();
        let path = beside(&target, "lock").unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
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
        let held = lock(&target).unwrap();
        assert_eq!(owner(), 65_534);
        drop(held);
        fs::write(&path, "").unwrap(); // of a crash
        let held = lock(&target).unwrap();
        assert_eq!(owner(), 65_534);
        drop(held);
        // What is no lock is given to nobody.
        fs::write(&path, "root's").unwrap();
        drop(lock(&target).unwrap());
        let kept = directory.path().join("kept");
        for content in ["root's", ""] {
            fs::write(&kept, content).unwrap();
            fs::hard_link(&kept, &path).unwrap();
            let held = lock(&target).unwrap();
            assert_eq!(owner(), 0);
            drop(held);
        }
    }

    #[test]
    fn no_link_is_followed() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("web.pem");
        let link = beside(&target, "lock").unwrap();
        std::os::unix::fs::symlink(directory.path().join("made"), &link).unwrap();
        assert!(lock(&target).is_err());
        assert!(!directory.path().join("made").exists());
        assert!(link.is_symlink());
    }
}
