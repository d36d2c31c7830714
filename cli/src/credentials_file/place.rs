//! Where the credentials file really is.

use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use files::{Place, PlaceError};
use rustix::fs::{Mode, mkdirat};
use rustix::io::Errno;

use super::FileError;

/// Follows symbolic links: the file at their end is replaced, not they. The directory is made where it is missing.
pub(super) fn find(named: &Path) -> Result<Place, FileError> {
    let failed = |error: PlaceError| match error {
        PlaceError::Io(error) if is(&error, Errno::LOOP) => {
            FileError::refused(named, "is a symbolic link that leads to no file")
        }
        PlaceError::Io(error) => FileError::io("find", named, error),
        error => FileError::strange(named, error),
    };
    match Place::find(named) {
        Err(PlaceError::Io(error)) if error.kind() == ErrorKind::NotFound => {
            make_directory(&parent(named))?;
            Place::find(named).map_err(failed)
        }
        found => found.map_err(failed),
    }
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

fn make_directory(path: &Path) -> Result<(), FileError> {
    let failed = |error: io::Error| FileError::io("make the directory", path, error);
    let place = Place::find(path).map_err(|error| match error {
        PlaceError::Io(error) => failed(error),
        error => FileError::strange(path, error),
    })?;
    match mkdirat(&place.directory, &place.name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(failed(error.into())),
    }
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// The name of one of our own files beside it.
pub(super) fn beside(place: &Place, suffix: &str) -> OsString {
    let mut name = OsString::from(".");
    name.push(&place.name);
    name.push(".roleseal.");
    name.push(suffix);
    name
}
