//! The first message of a token program: its version.
//!
//! The programs are files of their own, and an upgrade replaces one after the other: an agent that still runs the
//! previous version starts the next version's token programs. They must not misread each other, so the agent sends
//! nothing before it has this message. Its form never changes.

use std::io;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::link;

/// Of this build; the same for all programs of one release.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// How long a token program may take from its start: it has loaded no module yet. Milliseconds, on a busy machine a
/// second.
const LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug, Serialize, Deserialize)]
struct Greeting {
    version: String,
}

/// Why a token program cannot be used.
#[derive(Debug, Error)]
pub enum GreetingError {
    /// It is of another version.
    #[error("{program} is version {version}, this program is version {VERSION}")]
    Version {
        /// Its file name.
        program: &'static str,
        /// Its version, shortened.
        version: String,
    },
    /// It ended, said nothing in time, or what it said is not a version.
    #[error("cannot read the version of {program}: {cause}")]
    Unreadable {
        /// Its file name.
        program: &'static str,
        /// What went wrong.
        cause: io::Error,
    },
}

/// Sends the version of this token program.
pub(crate) fn send(link: &mut UnixStream) -> io::Result<()> {
    let version = VERSION.to_owned();
    link::send(link, &Greeting { version })
}

/// Waits for the version of the token program `program` at the other end, and compares it with this program's.
pub fn expect(link: &mut UnixStream, program: &'static str) -> Result<(), GreetingError> {
    let unreadable = |cause| GreetingError::Unreadable { program, cause };
    wait(link, Instant::now() + LIMIT).map_err(unreadable)?;
    match link::receive::<Greeting>(link).map_err(unreadable)? {
        Some(Greeting { version }) if version == VERSION => Ok(()),
        Some(Greeting { version }) => {
            let version = version.chars().take(32).collect();
            Err(GreetingError::Version { program, version })
        }
        None => Err(unreadable(io::ErrorKind::UnexpectedEof.into())),
    }
}

fn wait(link: &UnixStream, deadline: Instant) -> io::Result<()> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut events = [PollFd::new(link, PollFlags::IN)];
        match poll(&mut events, Timespec::try_from(left).ok().as_ref()) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(say: impl FnOnce(&mut UnixStream)) -> Result<(), GreetingError> {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        say(&mut theirs);
        drop(theirs);
        expect(&mut ours, "roleseal-tpm")
    }

    #[test]
    fn only_the_same_version_is_taken() {
        assert!(after(|link| send(link).unwrap()).is_ok());
        for version in ["", "0.0.9", "99.0.0", &"9".repeat(1000)] {
            let version = version.to_owned();
            let error = after(|link| link::send(link, &Greeting { version }).unwrap());
            assert!(
                matches!(error, Err(GreetingError::Version { .. })),
                "{error:?}"
            );
        }
        // What a later version may add is not looked at.
        let more = serde_json::json!({"version": VERSION, "more": 1});
        assert!(after(|link| link::send(link, &more).unwrap()).is_ok());
    }

    #[test]
    fn what_has_no_version_is_not_taken() {
        let nothing = after(|_| ());
        let other = after(|link| link::send(link, &"YourTurn").unwrap());
        for error in [nothing, other] {
            assert!(
                matches!(error, Err(GreetingError::Unreadable { .. })),
                "{error:?}"
            );
        }
    }
}
