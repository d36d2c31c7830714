//! Files that the user names: of a limited length, and pipes as well, such as the shell's `<(…)`.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::time::Timespec;

/// A pipe that nobody writes to would be waited for without an end. A command behind one may ask AWS first.
const WRITER: Duration = Duration::from_secs(30);

/// The file's bytes, at most so many.
pub(crate) fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    read_limited(open(path, WRITER)?, limit)
}

/// The same of UTF-8 text, without the byte order mark that some editors and shells put before it.
pub(crate) fn read_text(path: &Path, limit: u64) -> io::Result<String> {
    let text = String::from_utf8(read(path, limit)?)
        .map_err(|_| io::Error::new(ErrorKind::InvalidData, "it is not UTF-8 text"))?;
    Ok(match text.strip_prefix('\u{feff}') {
        Some(text) => text.to_owned(),
        None => text,
    })
}

/// What comes from there, at most so many bytes.
pub(crate) fn read_limited(input: impl Read, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    input.take(limit + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > limit {
        true => Err(io::Error::new(
            ErrorKind::FileTooLarge,
            format!("it has more than {limit} bytes"),
        )),
        false => Ok(bytes),
    }
}

fn open(path: &Path, wait: Duration) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if file.metadata()?.file_type().is_fifo() && !is_written(&file, wait)? {
        let fault = format!("nobody has written to this pipe for {} s", wait.as_secs());
        return Err(io::Error::new(ErrorKind::TimedOut, fault));
    }
    rustix::fs::fcntl_setfl(&file, OFlags::empty())?; // wait for what comes next
    Ok(file)
}

/// Whether a writer has written, or come and gone.
fn is_written(pipe: &File, wait: Duration) -> io::Result<bool> {
    let wait = Timespec::try_from(wait).map_err(io::Error::other)?;
    let mut polled = [PollFd::new(pipe, PollFlags::IN)];
    Ok(poll(&mut polled, Some(&wait))? > 0)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::thread;

    use rustix::fs::{CWD, mkfifoat};

    use super::*;

    #[test]
    fn files_and_pipes_are_read_and_nothing_is_waited_for_without_an_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pipe");
        mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
        let error = open(&path, Duration::from_millis(10)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        let written = path.clone();
        let writer = thread::spawn(move || fs::write(written, "abc"));
        assert_eq!(read(&path, 3).unwrap(), b"abc");
        writer.join().unwrap().unwrap();

        let path = directory.path().join("file");
        fs::write(&path, "abc").unwrap();
        assert_eq!(read_text(&path, 3).unwrap(), "abc");
        let error = |path: &Path| read_text(path, 2).unwrap_err().to_string();
        assert_eq!(error(&path), "it has more than 2 bytes");
        assert_eq!(error(Path::new("/dev/zero")), "it has more than 2 bytes");
        assert!(error(directory.path()).contains("Is a directory"));
        fs::write(&path, "\u{feff}abc").unwrap();
        assert_eq!(read_text(&path, 6).unwrap(), "abc");
        fs::write(&path, b"\xff").unwrap();
        assert_eq!(error(&path), "it is not UTF-8 text");
    }
}
