//! A file that takes another one's place whole, or not at all.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use config::renewal::target;
use files::{NewFile, Storage, directory};
use rustix::fs::{FileType, Stat};
use rustix::process::geteuid;
use thiserror::Error;

/// Why a file is as it was before.
#[derive(Debug, Error)]
#[error("cannot write {path}: {error}", path = path.display())]
pub(crate) struct InstallError {
    path: PathBuf,
    error: io::Error,
}

/// Writes `content` to the file at `path`: beside it first, then in its place. It keeps mode and owner, as far
/// as this process may give files away; a new one gets `mode`. A symbolic link stays, and what it names is
/// replaced; but root follows none in the directory of somebody else.
pub(crate) fn replace(path: &Path, content: &[u8], mode: u32) -> Result<(), InstallError> {
    replace_here(&place(path)?, content, mode)
}

/// Where [`replace`] writes, if it may.
pub(crate) fn place(path: &Path) -> Result<PathBuf, InstallError> {
    match someone_elses_link(path) {
        None => Ok(target(path)),
        Some(uid) => Err(InstallError {
            path: path.to_owned(),
            error: io::Error::other(format!(
                "it is a symbolic link in a directory of user {uid}, where root follows none: run this as that user"
            )),
        }),
    }
}

/// Whose directory the link is in, where root has to be careful.
fn someone_elses_link(path: &Path) -> Option<u32> {
    let directory = fs::metadata(path.parent()?).ok()?;
    let careful = geteuid().is_root() && directory.uid() != 0 && path.is_symlink();
    careful.then(|| directory.uid())
}

/// The same, by somebody who may write more than whoever has the directory: no symbolic link there is followed.
pub(crate) fn replace_here(target: &Path, content: &[u8], mode: u32) -> Result<(), InstallError> {
    write(target, content, mode).map_err(|error| InstallError {
        path: target.to_owned(),
        error,
    })
}

fn write(target: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let (parent, name) = directory::split(target)?;
    let directory = directory::open(parent)?;
    let old = directory::stat(&directory, name)?;
    if old.is_some_and(|old| FileType::from_raw_mode(old.st_mode) != FileType::RegularFile) {
        return Err(io::Error::other("not a file"));
    }
    let prefix = format!(".{}.roleseal-new.", name.display());
    let _ = files::sweep(&directory, &prefix); // what a crash has left; or the next time
    let mut new = NewFile::begin(&directory, &prefix)?;
    new.write(content)?;
    if let Some(old) = &old {
        keep_owner(new.file(), old)?;
    }
    let mode = old.map_or(mode, |old| old.st_mode & 0o777);
    new.file().set_permissions(Permissions::from_mode(mode))?;
    new.replace(name, Storage::Disk)
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
    use std::os::unix::fs::symlink;

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
        assert!(replace_here(&path("link"), b"newest", 0o644).is_err());
        assert_eq!(fs::read(path("one")).unwrap(), b"newer");
        assert_eq!(names(directory.path()), ["link", "one"]);
    }

    /// Of somebody who could make root overwrite any file.
    #[test]
    fn root_follows_no_link_of_another_user() {
        if as_root::by_sudo!() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("shadow"), "root's").unwrap();
        symlink("shadow", path("link")).unwrap();
        std::os::unix::fs::chown(directory.path(), Some(65_534), None).unwrap();
        let error = replace(&path("link"), b"new", 0o644).unwrap_err();
        assert!(error.to_string().contains("of user 65534"), "{error}");
        assert_eq!(fs::read(path("shadow")).unwrap(), b"root's");
        replace(&path("plain"), b"new", 0o644).unwrap();
        assert_eq!(names(directory.path()), ["link", "plain", "shadow"]);
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
