//! Directories that are held open, and the names in them.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, Mode, OFlags, Stat, fsync, openat, statat, unlinkat};
use rustix::io::Errno;

/// No link is followed, and no FIFO waited for.
const FILE: OFlags = OFlags::NOFOLLOW
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK);

/// Opens a file in it to read. A link is not followed.
pub fn open_file(directory: impl AsFd, name: impl AsRef<OsStr>) -> io::Result<File> {
    let flags = FILE | OFlags::RDONLY;
    let file = openat(directory, name.as_ref(), flags, Mode::empty())?;
    Ok(File::from(file))
}

/// Opens a file in it to read and write. A link is not followed, and no file made.
pub fn open_file_to_write(directory: impl AsFd, name: impl AsRef<OsStr>) -> io::Result<File> {
    let flags = FILE | OFlags::RDWR;
    let file = openat(directory, name.as_ref(), flags, Mode::empty())?;
    Ok(File::from(file))
}

/// Makes a file in it, of mode 0600 at most; `AlreadyExists` where the name is taken.
pub fn create(directory: impl AsFd, name: impl AsRef<OsStr>) -> io::Result<File> {
    let flags = FILE | OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
    let mode = Mode::RUSR | Mode::WUSR;
    Ok(File::from(openat(directory, name.as_ref(), flags, mode)?))
}

/// Removes a file or a link.
pub fn remove(directory: impl AsFd, name: impl AsRef<OsStr>) -> io::Result<()> {
    Ok(unlinkat(directory, name.as_ref(), AtFlags::empty())?)
}

/// The state of a name in it; of a link, not of the file that it names. `None` where the name does not exist.
pub fn stat(directory: impl AsFd, name: impl AsRef<OsStr>) -> io::Result<Option<Stat>> {
    match statat(directory, name.as_ref(), AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(None),
        stat => Ok(Some(stat?)),
    }
}

/// Makes its names outlast a power cut, where the file system and the right to list it allow that.
pub fn sync(directory: impl AsFd) -> io::Result<()> {
    match fsync(directory) {
        Ok(()) | Err(Errno::INVAL | Errno::BADF) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// A new name that begins with `prefix`.
pub(crate) fn temporary(prefix: &OsStr) -> OsString {
    let mut name = prefix.to_owned();
    name.push(format!("{:016x}", fastrand::u64(..)));
    name
}
