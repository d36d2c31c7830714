//! What a process that speaks for keys takes from itself at the start.

use std::io;

use rustix::process::{Resource, Rlimit};

/// Descriptors for all connections that [`listener`](crate::listener) takes, their token programs, and
/// some more; systemd's default of 1,024 is too few.
const DESCRIPTORS: u64 = 2048;

/// What token programs take from themselves, too; and enough descriptors that nobody can use them up.
pub fn harden() -> io::Result<()> {
    token::program::keep_secrets_in()?;
    let files = rustix::process::getrlimit(Resource::Nofile);
    if files.current.is_some_and(|current| current < DESCRIPTORS) {
        let current = files
            .maximum
            .map_or(DESCRIPTORS, |hard| hard.min(DESCRIPTORS));
        let files = Rlimit {
            current: Some(current),
            ..files
        };
        rustix::process::setrlimit(Resource::Nofile, files)?;
    }
    Ok(())
}
