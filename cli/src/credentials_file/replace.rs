//! One file in the place of another, at once: a reader, a crash or a full disk never shows a part.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, ErrorKind};

use files::{NewFile, Place, PlaceError, Storage, directory};
use rustix::fs::{
    FileType, Gid, Mode, Stat, Uid, XattrFlags, fchmod, fchown, fgetxattr, flistxattr, fsetxattr,
    fstat,
};
use rustix::io::Errno;
use secrecy::{ExposeSecret, SecretSlice, SecretString};

use super::FileError;
use super::place::beside;

/// The file as it was read.
pub(super) struct Old {
    pub(super) text: SecretString,
    /// `None` where there is none yet.
    file: Option<(File, Stat)>,
}

/// Some thousand profiles: more is a mistake, such as another file.
const SIZE_LIMIT: u64 = 1024 * 1024;

/// An attribute, such as an access-control list, has some hundred bytes.
const ATTRIBUTE_LIMIT: usize = 64 * 1024;

/// Reads the file; nothing at all where there is none.
pub(super) fn read(place: &Place) -> Result<Old, FileError> {
    let failed = |error: io::Error| FileError::io("read", &place.path, error);
    let opened = place.open().map_err(|error| match error {
        PlaceError::Io(error) => failed(error),
        error => FileError::strange(&place.path, error),
    })?;
    let Some((file, stat)) = opened else {
        return Ok(Old {
            text: SecretString::default(),
            file: None,
        });
    };
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(FileError::refused(&place.path, "is not a regular file"));
    }
    // Never reallocated: what it outgrows would stay behind.
    let length = stat.st_size.cast_unsigned().min(SIZE_LIMIT) + 1;
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
    let read = files::read_to(&file, SIZE_LIMIT, &mut bytes);
    let bytes: SecretSlice<u8> = bytes.into();
    match read {
        Err(error) if error.kind() == ErrorKind::FileTooLarge => {
            let fault = format!("has more than {SIZE_LIMIT} bytes: is it a credentials file?");
            return Err(FileError::refused(&place.path, &fault));
        }
        read => read.map_err(failed)?,
    }
    match str::from_utf8(bytes.expose_secret()) {
        Ok(text) => Ok(Old {
            text: text.into(),
            file: Some((file, stat)),
        }),
        Err(_) => Err(FileError::refused(
            &place.path,
            "is not UTF-8, which the AWS CLI refuses: left as it is",
        )),
    }
}

impl Old {
    /// The bits of its mode that say who may read it; `None` where there is no file.
    pub(super) fn mode(&self) -> Option<u32> {
        self.file.as_ref().map(|(_, stat)| stat.st_mode & 0o777)
    }

    /// Whether the file is still the one that was read, so far as can be seen.
    fn is_current(&self, place: &Place) -> bool {
        let now = directory::stat(&place.directory, &place.name);
        match (&self.file, now) {
            (Some((_, then)), Ok(Some(now))) => version(then) == version(&now),
            (None, Ok(None)) => true,
            _ => false,
        }
    }
}

/// What an edit changes.
fn version(stat: &Stat) -> impl PartialEq {
    (
        (stat.st_dev, stat.st_ino, stat.st_size),
        (stat.st_mtime, stat.st_mtime_nsec),
        (stat.st_ctime, stat.st_ctime_nsec),
    )
}

/// Puts the text in the place of the old one, with its owner, permissions and attributes. `false` where
/// somebody else has changed the file meanwhile. The caller holds the lock.
pub(super) fn replace(place: &Place, old: &Old, text: &SecretString) -> Result<bool, FileError> {
    let failed = |error: io::Error| FileError::io("write", &place.path, error);
    let mut new = NewFile::begin(&place.directory, beside(place, "")).map_err(failed)?;
    if let Some((old, stat)) = &old.file {
        inherit(new.file(), old, stat).map_err(|error| {
            FileError::io("keep the owner and permissions of", &place.path, error)
        })?;
    }
    new.write(text.expose_secret().as_bytes())
        .and_then(|()| new.file().sync_all()) // before the last look at the old one
        .map_err(failed)?;
    if !old.is_current(place) {
        return Ok(false);
    }
    new.replace(&place.name, Storage::Disk).map_err(failed)?;
    Ok(true)
}

fn inherit(file: &File, old: &File, stat: &Stat) -> io::Result<()> {
    let new = fstat(file)?;
    let owner = (new.st_uid != stat.st_uid).then(|| Uid::from_raw(stat.st_uid));
    let group = (new.st_gid != stat.st_gid).then(|| Gid::from_raw(stat.st_gid));
    if owner.is_some() || group.is_some() {
        fchown(file, owner, group)?;
    }
    copy_attributes(file, old)?;
    fchmod(file, Mode::from_raw_mode(stat.st_mode & 0o777))?;
    Ok(())
}

/// Access-control lists and the like. Labels of the system's security module are its own affair.
fn copy_attributes(file: &File, old: &File) -> io::Result<()> {
    let mut names = vec![0; ATTRIBUTE_LIMIT];
    let length = match flistxattr(old, names.as_mut_slice()) {
        Err(Errno::OPNOTSUPP) => return Ok(()),
        length => length?,
    };
    names.truncate(length);
    for name in names.split_inclusive(|byte| *byte == 0) {
        let name = CStr::from_bytes_with_nul(name).map_err(io::Error::other)?;
        let mut value = vec![0; ATTRIBUTE_LIMIT];
        let length = fgetxattr(old, name, value.as_mut_slice())?;
        value.truncate(length);
        let set = fsetxattr(file, name, &value, XattrFlags::empty());
        if !name.to_bytes().starts_with(b"security.") {
            set?;
        }
    }
    Ok(())
}

/// Removes what a run left that was killed. The caller holds the lock, so that nobody is writing one.
pub(super) fn sweep(place: &Place) -> io::Result<()> {
    files::sweep(&place.directory, beside(place, ""))
}
