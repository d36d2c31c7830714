//! A file that takes another one's place whole, or not at all.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use config::renewal::{beside, target};
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
    let failed = |error| InstallError {
        path: target.to_owned(),
        error,
    };
    let new = New(beside(target, "new").map_err(failed)?);
    // One that a crash has left behind.
    match fs::remove_file(&new.0) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let old = match fs::symlink_metadata(target) {
        Ok(old) if old.is_file() => Some(old),
        Ok(_) => return Err(failed(io::Error::other("not a file"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed(error)),
    };
    write(&new.0, content, mode, old.as_ref()).map_err(failed)?;
    fs::rename(&new.0, target).map_err(failed)?;
    // So that it is there after a power cut. It is there now in any case.
    let directory = target.parent().map(File::open);
    let _ = directory.map(|opened| opened.and_then(|directory| directory.sync_all()));
    Ok(())
}

/// A file that is removed unless it was renamed.
struct New(PathBuf);

impl Drop for New {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0); // as a rule, it has another name by now
    }
}

fn write(path: &Path, content: &[u8], mode: u32, old: Option<&Metadata>) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(content)?;
    if let Some(old) = old {
        keep_owner(&file, old)?;
    }
    let mode = old.map_or(mode, |old| old.mode() & 0o777);
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.sync_all()
}

/// Only root gives files to other users; anybody, to a group of his own. An owner that changes is better than a
/// certificate that expires.
fn keep_owner(file: &File, old: &Metadata) -> io::Result<()> {
    let now = file.metadata()?;
    if (now.uid(), now.gid()) != (old.uid(), old.gid())
        && fchown(file, Some(old.uid()), Some(old.gid())).is_err()
        && now.gid() != old.gid()
    {
        let _ = fchown(file, None, Some(old.gid()));
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
        fs::write(path(".one.roleseal-new"), "of a crash").unwrap();
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
