//! A file that comes under its name whole: a reader, a crash or a full disk never shows a part.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, Dir, RenameFlags, linkat, renameat, renameat_with};
use rustix::io::Errno;

use crate::directory;

/// A file under a temporary name, which goes with it unless it gets its own name.
#[derive(Debug)]
pub struct NewFile {
    directory: OwnedFd,
    temporary: OsString,
    file: File,
}

/// Where the directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// File and name outlast a power cut.
    Disk,
    /// Nothing outlasts one.
    Memory,
}

impl NewFile {
    /// Makes a file of mode 0600 under a temporary name, which begins with `prefix`.
    pub fn begin(directory: impl AsFd, prefix: impl AsRef<OsStr>) -> io::Result<NewFile> {
        let directory = directory.as_fd().try_clone_to_owned()?;
        let temporary = directory::temporary(prefix.as_ref());
        let file = directory::create(&directory, &temporary)?;
        Ok(NewFile {
            directory,
            temporary,
            file,
        })
    }

    /// The file: for its owner and mode.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Writes to it.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    /// Puts it in the place of any file of that name, or of none.
    pub fn replace(self, name: impl AsRef<OsStr>, storage: Storage) -> io::Result<()> {
        self.place(storage, |new| {
            renameat(
                &new.directory,
                &new.temporary,
                &new.directory,
                name.as_ref(),
            )
        })
    }

    /// Gives it a name that is free; else the error is of the kind `AlreadyExists`.
    pub fn put(self, name: impl AsRef<OsStr>, storage: Storage) -> io::Result<()> {
        self.place(storage, |new| {
            let (from, to) = (&new.directory, &new.directory);
            let (temporary, name) = (&new.temporary, name.as_ref());
            match renameat_with(from, temporary, to, name, RenameFlags::NOREPLACE) {
                // Not every file system has that flag.
                Err(Errno::INVAL | Errno::NOSYS) => {
                    linkat(from, temporary, to, name, AtFlags::empty())
                }
                done => done,
            }
        })
    }

    fn place(
        self,
        storage: Storage,
        rename: impl FnOnce(&NewFile) -> rustix::io::Result<()>,
    ) -> io::Result<()> {
        if storage == Storage::Disk {
            self.file.sync_all()?;
        }
        rename(&self)?;
        match storage {
            Storage::Disk => directory::sync(&self.directory),
            Storage::Memory => Ok(()),
        }
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        let _ = directory::remove(&self.directory, &self.temporary); // as a rule, it has its own name by now
    }
}

/// Removes the temporary files with this prefix that killed programs have left.
pub fn sweep(directory: impl AsFd, prefix: impl AsRef<OsStr>) -> io::Result<()> {
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        let digits = name.as_bytes().strip_prefix(prefix.as_ref().as_bytes());
        if digits.is_some_and(|rest| rest.len() == 16 && rest.iter().all(u8::is_ascii_hexdigit)) {
            directory::remove(&directory, name)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::ErrorKind;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    fn open(directory: &Path) -> OwnedFd {
        crate::Place::find(&directory.join("x")).unwrap().directory
    }

    #[test]
    fn it_is_whole_under_its_name_or_not_there() {
        let place = tempfile::tempdir().unwrap();
        let directory = open(place.path());
        let names = || fs::read_dir(place.path()).unwrap().count();
        let new = |content: &[u8]| {
            let mut new = NewFile::begin(&directory, ".x.").unwrap();
            new.write(content).unwrap();
            new
        };
        drop(new(b"1"));
        assert_eq!(names(), 0);
        new(b"1").put("x", Storage::Disk).unwrap();
        let path = place.path().join("x");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let error = new(b"2").put("x", Storage::Disk).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert_eq!((fs::read(&path).unwrap(), names()), (b"1".to_vec(), 1));
        new(b"3").replace("x", Storage::Memory).unwrap();
        assert_eq!((fs::read(&path).unwrap(), names()), (b"3".to_vec(), 1));
        assert!(new(b"4").replace("no/such", Storage::Disk).is_err());
        assert_eq!(names(), 1);
    }

    /// A directory to write to and not to list.
    #[test]
    fn a_directory_need_not_be_readable() {
        let place = tempfile::tempdir().unwrap();
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o300)).unwrap();
        let directory = open(place.path());
        let new = NewFile::begin(&directory, ".x.").unwrap();
        new.put("x", Storage::Disk).unwrap();
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o700)).unwrap();
        assert!(place.path().join("x").exists());
    }

    #[test]
    fn only_what_was_left_behind_is_swept() {
        let place = tempfile::tempdir().unwrap();
        let left = format!(".x.{:016x}", 7);
        for name in [&*left, ".x.1", ".x.lock", "x", ".y.0000000000000007"] {
            fs::write(place.path().join(name), "").unwrap();
        }
        sweep(open(place.path()), ".x.").unwrap();
        assert!(!place.path().join(left).exists());
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 4);
    }
}
