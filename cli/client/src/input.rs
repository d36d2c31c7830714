//! Files that the user names: of a limited length, and pipes as well, such as the shell's `<(…)`.

use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::time::Timespec;

/// How long a pipe may take to its end. A command behind one may ask AWS first.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The file's bytes, at most so many.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    read_with_timeout(path, limit, TIMEOUT)
}

/// The same of UTF-8 text, without the byte order mark that some editors and shells put before it.
pub fn read_text(path: &Path, limit: u64) -> io::Result<String> {
    to_text(read(path, limit)?)
}

/// The same of an open file.
pub fn text_of(file: File, limit: u64) -> io::Result<String> {
    to_text(read_limited(file, limit)?)
}

fn to_text(bytes: Vec<u8>) -> io::Result<String> {
    let text = String::from_utf8(bytes)
        .map_err(|_| io::Error::new(ErrorKind::InvalidData, "it is not UTF-8 text"))?;
    Ok(match text.strip_prefix('\u{feff}') {
        Some(text) => text.to_owned(),
        None => text,
    })
}

/// Returns whether this is a device, such as /dev/null, or a pipe of this process's user, such as the shell's `<(…)`:
/// its mode and place do not tell who writes what is read.
pub fn is_stream(path: &Path) -> bool {
    let is_stream = |metadata: Metadata| {
        let own = metadata.uid() == rustix::process::geteuid().as_raw();
        let kind = metadata.file_type();
        kind.is_char_device() || (kind.is_fifo() && own)
    };
    std::fs::metadata(path).is_ok_and(is_stream)
}

/// What comes from there, at most so many bytes.
pub fn read_limited(input: impl Read, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    files::read_to(input, limit, &mut bytes)?;
    Ok(bytes)
}

fn read_with_timeout(path: &Path, limit: u64, timeout: Duration) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if file.metadata()?.file_type().is_fifo() {
        return read_limited(Pipe::new(file, timeout), limit);
    }
    rustix::fs::fcntl_setfl(&file, OFlags::empty())?; // a terminal is waited for
    read_limited(file, limit)
}

/// A pipe that is not waited for without an end, whether nobody writes to it or its writer hangs.
struct Pipe {
    file: File, // non-blocking: another reader may take what `poll` saw
    opened: Instant,
    timeout: Duration,
}

impl Pipe {
    fn new(file: File, timeout: Duration) -> Pipe {
        Pipe {
            file,
            opened: Instant::now(),
            timeout,
        }
    }

    /// Returns once a writer has written, or come and gone.
    fn wait(&self) -> io::Result<()> {
        let left = self.timeout.saturating_sub(self.opened.elapsed());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        let mut polled = [PollFd::new(&self.file, PollFlags::IN)];
        if poll(&mut polled, Some(&left))? > 0 {
            return Ok(());
        }
        let fault = format!(
            "this pipe has not ended within {} s: nobody writes to it, or its writer has not closed it",
            self.timeout.as_secs()
        );
        Err(io::Error::new(ErrorKind::TimedOut, fault))
    }
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.wait()?;
            match self.file.read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                done => return done,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::io::Write;
    use std::path::PathBuf;
    use std::sync::mpsc;
    use std::thread;

    use rustix::fs::{CWD, mkfifoat};

    use super::*;

    const SHORT: Duration = Duration::from_millis(10);

    fn pipe(directory: &Path) -> PathBuf {
        let path = directory.join("pipe");
        mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
        path
    }

    #[test]
    fn a_pipe_is_read_to_its_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = pipe(directory.path());
        let written = path.clone();
        let writer = thread::spawn(move || fs::write(written, "abc"));
        assert_eq!(read(&path, 3).unwrap(), b"abc");
        writer.join().unwrap().unwrap();
    }

    #[test]
    fn a_pipe_is_not_waited_for_without_an_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = pipe(directory.path());
        let silent = read_with_timeout(&path, 3, SHORT).unwrap_err();
        let both = OpenOptions::new().read(true).write(true).open(&path);
        let mut hanging = both.unwrap(); // at both ends, so that opening it waits for nobody
        hanging.write_all(b"a").unwrap();
        let (outcome, read) = mpsc::channel();
        thread::spawn(move || outcome.send(read_with_timeout(&path, 3, SHORT)));
        let begun = read.recv_timeout(Duration::from_secs(30)).unwrap();
        for error in [silent, begun.unwrap_err()] {
            assert_eq!(error.kind(), ErrorKind::TimedOut);
            assert!(error.to_string().contains("has not ended"), "{error}");
        }
    }

    #[test]
    fn a_file_is_read_as_far_as_its_limit() {
        let directory = tempfile::tempdir().unwrap();
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
