//! The directory of the cache and files in it, opened so that nobody else can have a hand in it.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::process::geteuid;
use thiserror::Error;

pub use files::directory::remove;

use super::CacheError;

/// Ours, below the runtime directory.
pub const NAME: &str = "roleseal";

const ROOT: u32 = 0;

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC);

/// Opens the directory, and makes it where it is missing. `None` where that is no place for secrets: the
/// runtime directory is not there, or is not in memory.
pub(super) fn open(runtime: &Path, path: &Path) -> Result<Option<OwnedFd>, CacheError> {
    let io = |error: Errno| CacheError::Io {
        path: path.to_owned(),
        error: error.into(),
    };
    let parent = match open_parent(runtime) {
        Err(Errno::NOENT) => return Ok(None),
        parent => parent.map_err(io)?,
    };
    if !in_memory(&parent).map_err(io)? {
        return Ok(None);
    }
    let directory = open_below(&parent).map_err(|error| match error {
        OpenError::Io(error) => io(error),
        OpenError::Refused(fault) => CacheError::Refused {
            path: path.to_owned(),
            fault,
        },
    })?;
    Ok(in_memory(&directory).map_err(io)?.then_some(directory))
}

/// Why our directory is not open.
#[derive(Debug, Error)]
pub enum OpenError {
    /// What the system says.
    #[error("{0}")]
    Io(#[from] Errno),
    /// Others have a hand in it.
    #[error("{0}")]
    Refused(String),
}

/// A user's or a service's runtime directory.
pub fn open_parent(runtime: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(CWD, runtime, DIRECTORY, Mode::empty())
}

/// Opens our directory below it, and makes it where it is missing.
pub fn open_below(parent: &OwnedFd) -> Result<OwnedFd, OpenError> {
    // To make a directory in another's would shut them out of their own. Root's may be for all, as an emptyDir of
    // Kubernetes is (mode 0777).
    let above = rustix::fs::fstat(parent)?;
    if above.st_uid != ROOT {
        check_owner(&above)
            .map_err(|fault| OpenError::Refused(format!("of the directory above it, {fault}")))?;
    }
    match rustix::fs::mkdirat(parent, NAME, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = DIRECTORY | OFlags::NOFOLLOW;
    let directory = match rustix::fs::openat(parent, NAME, flags, Mode::empty()) {
        Err(Errno::LOOP | Errno::NOTDIR) => {
            return Err(OpenError::Refused("it is no directory".to_owned()));
        }
        directory => directory?,
    };
    let stat = rustix::fs::fstat(&directory)?;
    check_owner(&stat).map_err(OpenError::Refused)?;
    if stat.st_mode & 0o077 != 0 {
        let mode = stat.st_mode & 0o777;
        let fault = format!("others have access, its mode is {mode:04o}: chmod 700");
        return Err(OpenError::Refused(fault));
    }
    Ok(directory)
}

fn check_owner(stat: &Stat) -> Result<(), String> {
    match stat.st_uid {
        own if own == geteuid().as_raw() => Ok(()),
        other => Err(format!("the owner is the user {other}")),
    }
}

/// Linux's numbers for file systems that have no disk (statfs(2)).
const IN_MEMORY: [i64; 2] = [
    0x0102_1994, // tmpfs
    0x8584_58f6, // ramfs
];

fn in_memory(directory: &OwnedFd) -> rustix::io::Result<bool> {
    let kind = rustix::fs::fstatfs(directory)?.f_type;
    #[allow(
        clippy::useless_conversion,
        reason = "its width differs among architectures"
    )]
    Ok(IN_MEMORY.contains(&i64::from(kind)))
}

/// Opens a file that is this user's alone.
pub fn open_to_read(directory: &OwnedFd, name: &str) -> io::Result<File> {
    let file = files::directory::open_file(directory, name)?;
    check_own(&file)?;
    Ok(file)
}

/// The names of the directory's files, and when each was written last, in seconds since 1970.
pub(super) fn files(directory: &OwnedFd) -> io::Result<Vec<(String, i64)>> {
    let mut files = Vec::new();
    for file in Dir::read_from(directory)? {
        let file = file?;
        let Ok(name) = file.file_name().to_str() else {
            continue;
        };
        let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW);
        if let Ok(stat) = stat
            && is_file(&stat)
        {
            files.push((name.to_owned(), stat.st_mtime));
        }
    }
    Ok(files)
}

/// Refuses a file that is not this user's alone.
pub(super) fn check_own(file: &File) -> io::Result<()> {
    let stat = rustix::fs::fstat(file)?;
    match is_file(&stat) && stat.st_uid == geteuid().as_raw() && stat.st_mode & 0o077 == 0 {
        true => Ok(()),
        false => Err(io::ErrorKind::PermissionDenied.into()),
    }
}

fn is_file(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}
