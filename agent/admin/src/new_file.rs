//! A file that is new and whole, or not there at all.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{PermissionsExt, fchown};
use std::path::Path;

use files::{Place, PlaceError, Storage};
use rustix::io::Errno;
use token::account::Account;

use crate::failure::Failure;

/// A file that was not there, and is written beside its place until it is [put there](NewFile::put).
#[derive(Debug)]
pub(crate) struct NewFile {
    place: Place,
    new: files::NewFile,
}

impl NewFile {
    /// Creates a temporary file beside `path`, before any work whose result the file holds.
    ///
    /// `mode`: its permissions; `owner`: its owner, by default this user.
    pub(crate) fn begin(
        path: &Path,
        mode: u32,
        owner: Option<&Account>,
    ) -> Result<NewFile, Failure> {
        if path == Path::new("-") {
            return Err(
                Failure::failed("cannot write a key or an attestation to standard output")
                    .hint("name a file; write ./- for a file named -"),
            );
        }
        let fault = |error: io::Error| cannot_write(path, &error.into());
        if path.symlink_metadata().is_ok() {
            return Err(fault(Errno::EXIST.into()).hint("move it away, or name another file"));
        }
        let place = Place::find(path).map_err(|error| cannot_write(path, &error))?;
        let prefix = format!(".{}.", place.name.display());
        let new = files::NewFile::begin(&place.directory, prefix).map_err(fault)?;
        if let Some(owner) = owner {
            fchown(new.file(), Some(owner.uid), Some(owner.gid)).map_err(|error| {
                let path = path.display();
                Failure::failed(format!(
                    "cannot change the owner of {path} to {}: {error}",
                    owner.name
                ))
            })?;
        }
        // The umask is 077, and the file may hold no secret.
        let mode = Permissions::from_mode(mode);
        new.file().set_permissions(mode).map_err(fault)?;
        Ok(NewFile { place, new })
    }

    /// Writes the file and gives it its name; fails if that name exists by now.
    pub(crate) fn put(mut self, bytes: &[u8]) -> Result<(), Failure> {
        let put = self
            .new
            .write(bytes)
            .and_then(|()| self.new.put(&self.place.name, Storage::Disk));
        put.map_err(|error| cannot_write(&self.place.path, &error.into()))
    }
}

fn cannot_write(path: &Path, error: &PlaceError) -> Failure {
    let failure = Failure::failed(format!("cannot write {}: {error}", path.display()));
    match error.hint() {
        Some(hint) => failure.hint(hint),
        None => failure,
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
