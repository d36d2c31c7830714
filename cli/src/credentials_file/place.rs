//! Where the credentials file really is.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, Metadata};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::process::geteuid;

use super::FileError;

/// A file in a directory that is held open: whoever replaces the directory later replaces nothing for us.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) directory: OwnedFd,
    pub(super) name: OsString,
    /// For messages.
    pub(super) path: PathBuf,
}

/// As many as the kernel follows.
const LINKS: usize = 40;

impl Place {
    /// Follows symbolic links: the file at their end is replaced, not they. The directory is made where it
    /// is missing.
    pub(super) fn find(named: &Path) -> Result<Place, FileError> {
        let mut path = named.to_owned();
        for _ in 0..LINKS {
            match fs::symlink_metadata(&path) {
                Ok(link) if link.is_symlink() => path = follow(&path, &link)?,
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(FileError::io("look at", &path, error));
                }
                _ => return Place::open(path),
            }
        }
        Err(FileError::refused(
            named,
            "is a symbolic link that leads to no file",
        ))
    }

    fn open(path: PathBuf) -> Result<Place, FileError> {
        let Some(name) = path.file_name().map(OsString::from) else {
            return Err(FileError::refused(&path, "names no file"));
        };
        let parent = parent(&path);
        match DirBuilder::new().mode(0o700).create(parent) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(FileError::io("make the directory", parent, error));
            }
            _ => {}
        }
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(CWD, parent, flags, Mode::empty())
            .map_err(|error| FileError::io("open", parent, error))?;
        Ok(Place {
            directory,
            name,
            path,
        })
    }

    /// The name of one of our own files beside it.
    pub(super) fn beside(&self, suffix: &str) -> OsString {
        let mut name = OsString::from(".");
        name.push(&self.name);
        name.push(".roleseal.");
        name.push(suffix);
        name
    }
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// In a directory that others write to, a link of theirs could have us write where they cannot.
fn follow(path: &Path, link: &Metadata) -> Result<PathBuf, FileError> {
    let target = fs::metadata(path).map(|file| file.uid());
    let trusted = [geteuid().as_raw(), 0].contains(&link.uid())
        || matches!(target, Ok(owner) if owner == link.uid());
    if !trusted {
        let fault = format!(
            "is a symbolic link of the user {}: not followed",
            link.uid()
        );
        return Err(FileError::refused(path, &fault));
    }
    let to = fs::read_link(path).map_err(|error: io::Error| FileError::io("read", path, error))?;
    Ok(parent(path).join(to))
}
