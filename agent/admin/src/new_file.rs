//! A file that is new and whole, or not there at all.

use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use token::account::Account;

use crate::failure::Failure;

/// A file that was not there, and is written beside its place until it is [put there](NewFile::put).
#[derive(Debug)]
pub(crate) struct NewFile {
    path: PathBuf,
    temporary: PathBuf,
    file: File,
}

impl NewFile {
    /// Begins it: where this fails, nothing has been done yet whose result would have no place.
    /// `owner`: whose it is to be, if not this user's.
    pub(crate) fn begin(
        path: &Path,
        mode: u32,
        owner: Option<&Account>,
    ) -> Result<NewFile, Failure> {
        let fault = |what: String| Failure::failed(format!("{}: {what}", path.display()));
        let exists = "is there already: move it away, or name another file";
        if path.symlink_metadata().is_ok() {
            return Err(fault(exists.to_owned()));
        }
        let Some(name) = path.file_name() else {
            return Err(fault("is no name of a file".to_owned()));
        };
        if path == Path::new("-") {
            return Err(fault(
                "this does not go to standard output: name a file (one of that name is ./-)"
                    .to_owned(),
            ));
        }
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{:016x}", fastrand::u64(..)));
        let temporary = path.with_file_name(hidden);
        let file = File::options()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&temporary)
            .map_err(|error| fault(format!("cannot be written: {error}")))?;
        let new = NewFile {
            path: path.to_owned(),
            temporary,
            file,
        };
        if let Some(owner) = owner {
            fchown(&new.file, Some(owner.uid), Some(owner.gid))
                .map_err(|error| fault(format!("cannot be given to {}: {error}", owner.name)))?;
        }
        // What the umask, which keeps secrets in, took from a file that holds none.
        new.file
            .set_permissions(Permissions::from_mode(mode))
            .map_err(|error| fault(format!("cannot be given mode {mode:04o}: {error}")))?;
        Ok(new)
    }

    /// Writes it and puts it in its place, unless another has come there.
    pub(crate) fn put(mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.write(bytes).map_err(|error| {
            Failure::failed(format!(
                "{} cannot be written: {error}",
                self.path.display()
            ))
        })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.file.sync_all()?;
        let flags = RenameFlags::NOREPLACE;
        match renameat_with(CWD, &self.temporary, CWD, &self.path, flags) {
            // Not every file system knows that flag.
            Err(Errno::INVAL | Errno::NOSYS) => std::fs::hard_link(&self.temporary, &self.path)?,
            result => result?,
        }
        let directory = match self.path.parent() {
            Some(directory) if directory != Path::new("") => directory,
            _ => Path::new("."),
        };
        match File::open(directory).and_then(|directory| directory.sync_all()) {
            Err(error) if error.kind() != io::ErrorKind::InvalidInput => Err(error),
            _ => Ok(()), // not every file system has it for directories
        }
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.temporary); // once it is put in its place, there is none
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_whole_or_not_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("web.tss");
        let count = || std::fs::read_dir(directory.path()).unwrap().count();
        drop(NewFile::begin(&path, 0o600, None).unwrap());
        assert_eq!(count(), 0);
        let file = NewFile::begin(&path, 0o600, None).unwrap();
        assert!(!path.exists());
        file.put(b"key").unwrap();
        assert_eq!(
            (std::fs::read(&path).unwrap(), count()),
            (b"key".to_vec(), 1)
        );
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn nothing_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("web.tss");
        let late = NewFile::begin(&path, 0o600, None).unwrap();
        std::fs::write(&path, "old").unwrap();
        for failure in [
            NewFile::begin(&path, 0o600, None).unwrap_err(),
            late.put(b"new").unwrap_err(),
        ] {
            let text = failure.to_string();
            assert!(
                text.contains("web.tss") && text.contains("xist") || text.contains("already"),
                "{text}"
            );
        }
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        assert!(NewFile::begin(&directory.path().join("no/such"), 0o600, None).is_err());
        let failure = NewFile::begin(Path::new("-"), 0o600, None).unwrap_err();
        assert!(failure.to_string().contains("standard output"), "{failure}");
    }
}
