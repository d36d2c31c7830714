//! A file, or a systemd credential, with a PIN in it.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, OFlags, access};

use super::Pin;
use super::error::PinError;
use super::read_all::read_all;

/// systemd keeps this directory readable for the service alone, partly by ACLs that the mode bits do
/// not show: no check of modes there.
pub(super) fn credential_path(name: &str) -> Result<PathBuf, PinError> {
    match std::env::var_os("CREDENTIALS_DIRECTORY") {
        Some(directory) => Ok(Path::new(&directory).join(name)),
        None => Err(PinError::NoCredential(name.to_owned())),
    }
}

/// What is known of a regular file that this user may read.
pub(super) fn look_at(path: &Path) -> Result<Metadata, PinError> {
    let metadata = std::fs::metadata(path).map_err(unreadable(path))?;
    check_plain(&metadata, path)?;
    access(path, Access::READ_OK).map_err(|error| unreadable(path)(error.into()))?;
    Ok(metadata)
}

fn check_plain(metadata: &Metadata, path: &Path) -> Result<(), PinError> {
    match metadata.is_file() {
        true => Ok(()),
        false => Err(unfit(path)("is not a regular file")),
    }
}

/// Only its owner, and the agent's own group, may have access.
pub(super) fn check_private(metadata: &Metadata, path: &Path) -> Result<(), PinError> {
    let own_group = metadata.gid() == rustix::process::getegid().as_raw();
    let others = if own_group { 0o007 } else { 0o077 };
    match metadata.mode() & others {
        0 => Ok(()),
        _ => Err(PinError::Exposed {
            path: path.to_owned(),
            mode: metadata.mode() & 0o7777,
        }),
    }
}

/// Opens a regular file; a FIFO would otherwise make us wait for a writer.
pub(super) fn open(path: &Path) -> Result<(File, Metadata), PinError> {
    let file = File::options()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(path)
        .map_err(unreadable(path))?;
    let metadata = file.metadata().map_err(unreadable(path))?;
    check_plain(&metadata, path)?;
    Ok((file, metadata))
}

pub(super) fn read_pin(file: File, path: &Path) -> Result<Pin, PinError> {
    Pin::read(|buffer| read_all(file, buffer))
        .map_err(unreadable(path))?
        .map_err(unfit(path))
}

fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> PinError {
    let path = path.to_owned();
    |error| PinError::Unreadable { path, error }
}

fn unfit(path: &Path) -> impl FnOnce(&'static str) -> PinError {
    let path = path.to_owned();
    |fault| PinError::Unfit { path, fault }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use crate::PinSource;

    /// A PIN file in a directory that goes away.
    struct PinFile(tempfile::TempDir, PathBuf);

    fn pin_file(content: &[u8], mode: u32) -> PinFile {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pin");
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        PinFile(directory, path)
    }

    fn read(content: &[u8], mode: u32) -> Result<String, String> {
        let PinFile(_directory, path) = pin_file(content, mode);
        let source = PinSource::File(path);
        let pin = source.read().map_err(|error| error.to_string())?;
        source.check().unwrap();
        Ok(String::from_utf8(pin.secret().to_vec()).unwrap())
    }

    #[test]
    fn one_line_break_is_no_part_of_the_pin() {
        for content in ["1234", "1234\n", "1234\r\n"] {
            assert_eq!(read(content.as_bytes(), 0o600).unwrap(), "1234");
        }
        assert_eq!(read(b" 12 34 \n", 0o400).unwrap(), " 12 34 ");
    }

    #[test]
    fn what_is_no_pin_is_refused() {
        for (content, fault) in [
            (&b""[..], "empty"),
            (b"\n", "empty"),
            (b"1\n2\n", "more than one"),
            (b"1\n\n", "more than one"),
            (&[b'1'; 2000], "more than one"),
            (b"\xff\xfe", "UTF-8"),
            ("\u{feff}1234\n".as_bytes(), "byte order mark"),
        ] {
            let message = read(content, 0o600).unwrap_err();
            assert!(message.contains(fault), "{message}");
        }
    }

    #[test]
    fn others_may_not_read_it() {
        for mode in [0o644, 0o604, 0o602, 0o601] {
            let PinFile(_directory, path) = pin_file(b"1234", mode);
            let source = PinSource::File(path);
            for result in [source.check(), source.read().map(drop)] {
                let message = result.unwrap_err().to_string();
                assert!(message.contains(&format!("{mode:04o}")) && message.contains("chmod 600"));
            }
        }
    }

    #[test]
    fn directories_and_absent_files_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let message = PinSource::File(directory.path().into())
            .check()
            .unwrap_err();
        assert!(message.to_string().contains("not a regular file"));
        let absent = directory.path().join("absent");
        let message = PinSource::File(absent.clone()).check().unwrap_err();
        assert!(message.to_string().contains(absent.to_str().unwrap()));
    }
}
