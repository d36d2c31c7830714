//! A file that takes another one's place whole, or not at all.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use files::{NewFile, Place, PlaceError, Storage};
use rustix::fs::{FileType, Stat};
use thiserror::Error;

use crate::failure::Failure;

/// Why a file is as it was before.
#[derive(Debug, Error)]
#[error("cannot write {path}: {error}", path = path.display())]
pub(crate) struct InstallError {
    path: PathBuf,
    error: PlaceError,
}

impl From<InstallError> for Failure {
    fn from(error: InstallError) -> Failure {
        let failure = Failure::failed(error.to_string());
        match error.error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

/// Where the file of that path is written. A symbolic link stays, and what it names is replaced; but none that another
/// user could lead elsewhere with.
pub(crate) fn place(path: &Path) -> Result<Place, InstallError> {
    Place::find(path).map_err(|error| InstallError {
        path: path.to_owned(),
        error,
    })
}

/// Writes `content` to the file at that place: beside it first, then in its place. It keeps mode and owner, as far
/// as this process may give files away; a new one gets `mode`.
pub(crate) fn replace(place: &Place, content: &[u8], mode: u32) -> Result<(), InstallError> {
    write(place, content, mode).map_err(|error| InstallError {
        path: place.path.clone(),
        error,
    })
}

fn write(place: &Place, content: &[u8], mode: u32) -> Result<(), PlaceError> {
    let old = place.stat()?;
    if old.is_some_and(|old| FileType::from_raw_mode(old.st_mode) != FileType::RegularFile) {
        return Err(io::Error::other("not a file").into());
    }
    let prefix = format!(".{}.roleseal-new.", place.name.display());
    let _ = files::sweep(&place.directory, &prefix); // what a crash has left; or the next time
    let mut new = NewFile::begin(&place.directory, &prefix)?;
    new.write(content)?;
    if let Some(old) = &old {
        keep_owner(new.file(), old)?;
    }
    let mode = old.map_or(mode, |old| old.st_mode & 0o777);
    new.file().set_permissions(Permissions::from_mode(mode))?;
    Ok(new.replace(&place.name, Storage::Disk)?)
}

/// Only root gives files to other users; anybody, to a group of his own. An owner that changes is better than a
/// certificate that expires.
fn keep_owner(file: &File, old: &Stat) -> io::Result<()> {
    let now = file.metadata()?;
    if (now.uid(), now.gid()) != (old.st_uid, old.st_gid)
        && fchown(file, Some(old.st_uid), Some(old.st_gid)).is_err()
        && now.gid() != old.st_gid
    {
        let _ = fchown(file, None, Some(old.st_gid));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn replace(path: &Path, content: &[u8], mode: u32) -> Result<(), InstallError> {
        super::replace(&place(path)?, content, mode)
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name();
        let mut names: Vec<_> = entries.map(name).collect();
        names.sort();
        names
            .into_iter()
            .map(|name| name.into_string().unwrap())
            .collect()
    }

    #[test]
    fn mode_and_links_stay_and_nothing_else_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let mode = |name: &str| fs::metadata(path(name)).unwrap().mode() & 0o777;
        replace(&path("one"), b"new", 0o644).unwrap();
        assert_eq!(
            (fs::read(path("one")).unwrap(), mode("one")),
            (b"new".to_vec(), 0o644)
        );
        fs::set_permissions(path("one"), fs::Permissions::from_mode(0o640)).unwrap();
        symlink("one", path("link")).unwrap();
        fs::write(path(".one.roleseal-new.0123456789abcdef"), "of a crash").unwrap();
        replace(&path("link"), b"newer", 0o644).unwrap();
        assert_eq!(
            (fs::read(path("one")).unwrap(), mode("one")),
            (b"newer".to_vec(), 0o640)
        );
        assert_eq!(names(directory.path()), ["link", "one"]);
        assert!(path("link").is_symlink());
    }

    /// Of somebody who could make root overwrite any file.
    #[test]
    fn root_follows_no_link_of_another_user() {
        if as_root::by_sudo!() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::create_dir(path("home")).unwrap();
        fs::write(path("shadow"), "root's").unwrap();
        symlink("../shadow", path("home/link")).unwrap();
        symlink("plain", path("home/own")).unwrap();
        std::os::unix::fs::chown(path("home"), Some(65_534), None).unwrap();
        let error = replace(&path("home/link"), b"new", 0o644).unwrap_err();
        assert!(matches!(error.error, PlaceError::Link { user: 65_534, .. }));
        assert_eq!(fs::read(path("shadow")).unwrap(), b"root's");
        for name in ["home/plain", "home/own"] {
            replace(&path(name), name.as_bytes(), 0o644).unwrap();
            assert_eq!(fs::read(path("home/plain")).unwrap(), name.as_bytes());
        }
        assert_eq!(names(&path("home")), ["link", "own", "plain"]);
    }

    #[test]
    fn what_cannot_be_replaced_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("folder");
        fs::create_dir(&path).unwrap();
        let error = replace(&path, b"", 0o644).unwrap_err().to_string();
        assert!(error.contains("folder: not a file"), "{error}");
        let absent = directory.path().join("absent/file");
        assert!(replace(&absent, b"", 0o644).is_err());
        assert_eq!(names(directory.path()), ["folder"]);
    }
}
