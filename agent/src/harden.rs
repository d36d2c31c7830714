//! What a process that speaks for keys takes from itself at the start.

use std::io;

use rustix::fs::Mode;
use rustix::process::{DumpableBehavior, Resource, Rlimit};

/// Descriptors for all connections that [`listener`](crate::listener) takes, their token programs, and
/// some more; systemd's default of 1,024 is too few.
const DESCRIPTORS: u64 = 2048;

/// No files for others, no core dumps, no debugger of the same user, no privileges by exec; and enough
/// descriptors that nobody can use them up.
pub fn harden() -> io::Result<()> {
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    rustix::process::setrlimit(Resource::Core, none)?;
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
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    rustix::thread::set_no_new_privs(true)?;
    Ok(())
}
