//! Bounded reads.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

/// Opens a regular file to read. A FIFO or a device is an error, and holds no reader up.
pub fn open(path: &Path) -> io::Result<File> {
    let file = File::options()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(path)?;
    let kind = file.metadata()?.file_type();
    match (kind.is_file(), kind.is_dir()) {
        (true, _) => Ok(file),
        (false, true) => Err(io::Error::new(ErrorKind::IsADirectory, "it is a directory")),
        (false, false) => Err(io::Error::other("it is a pipe, a socket or a device")),
    }
}

/// Reads a regular file of at most `limit` bytes.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    read_to(open(path)?, limit, &mut bytes)?;
    Ok(bytes)
}

/// Reads at most `limit` bytes behind those in `buffer`, which the caller wipes where they are secret. More are an
/// error of the kind `FileTooLarge`.
pub fn read_to(input: impl Read, limit: u64, buffer: &mut Vec<u8>) -> io::Result<()> {
    let read = input.take(limit + 1).read_to_end(buffer)?;
    match read as u64 > limit {
        true => Err(io::Error::new(
            ErrorKind::FileTooLarge,
            format!("it has more than {limit} bytes"),
        )),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_up_to_the_limit_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, "1234").unwrap();
        assert_eq!(read(&path, 4).unwrap(), b"1234");
        let error = read(&path, 3).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FileTooLarge);
        let fifo = directory.path().join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status();
        assert!(made.unwrap().success());
        for other in [
            &fifo,
            directory.path(),
            Path::new("/dev/null"),
            Path::new("/nowhere"),
        ] {
            assert!(read(other, 4).is_err(), "{other:?}");
        }
        // A link leads to a file as its target does.
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(read(&link, 4).unwrap(), b"1234");
    }
}
