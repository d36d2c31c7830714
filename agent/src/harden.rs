//! What a process that speaks for keys takes from itself at the start.

use std::io;

use rustix::fs::Mode;
use rustix::process::{DumpableBehavior, Resource, Rlimit};

/// Descriptors beside those of the connections: for token programs and files.
const OTHER_DESCRIPTORS: u64 = 1024;

/// Allows as many descriptors as so many connections take, as far as the system lets us; systemd's default
/// of 1,024 is too few.
pub fn allow_descriptors(connections: u32) -> io::Result<()> {
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

/// No files for others, no core dumps, no debugger of the same user, no privileges by exec.
pub fn harden() -> io::Result<()> {
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    rustix::process::setrlimit(Resource::Core, none)?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    rustix::thread::set_no_new_privs(true)?;
    Ok(())
}
