//! One at a time: a lock on a file that the work is about.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// A file that is locked for this process, until dropped.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "its descriptor is the lock")] File);

/// How often another file may come under the name while this one is being locked.
const REPLACED_LIMIT: usize = 16;

impl Lock {
    /// Locks the file, which must be there; `None` while another process has the lock.
    pub(crate) fn of(path: &Path) -> io::Result<Option<Lock>> {
        for _ in 0..REPLACED_LIMIT {
            let file = File::open(path)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
            // Who had the lock before may have replaced the file: then this is the lock of nothing.
            let (locked, now) = (file.metadata()?, std::fs::metadata(path)?);
            if (locked.dev(), locked.ino()) == (now.dev(), now.ino()) {
                return Ok(Some(Lock(file)));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        assert!(Lock::of(&path).is_err());
        std::fs::write(&path, "").unwrap();
        let lock = Lock::of(&path).unwrap();
        assert!(lock.is_some());
        assert!(Lock::of(&path).unwrap().is_none());
        drop(lock);
        assert!(Lock::of(&path).unwrap().is_some());
    }
}
