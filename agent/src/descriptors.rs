//! How many files and connections this process may have open.

use std::io;

use rustix::process::{Resource, Rlimit};

/// Descriptors beside those of the connections: for token programs and files.
const OTHER_DESCRIPTORS: u64 = 1024;

/// Allows as many descriptors as so many connections take, as far as the system lets us; systemd's default
/// of 1,024 is too few.
pub fn allow_for(connections: u32) -> io::Result<()> {
    let wanted = u64::from(connections) + OTHER_DESCRIPTORS;
    let files = rustix::process::getrlimit(Resource::Nofile);
    if files.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    let files = Rlimit {
        current: Some(files.maximum.map_or(wanted, |hard| hard.min(wanted))),
        ..files
    };
    rustix::process::setrlimit(Resource::Nofile, files)?;
    Ok(())
}
