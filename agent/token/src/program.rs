//! What every token program does around its work: it is started by the agent's launcher and by nobody
//! else, keeps its secrets in, and ends in good order.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;

use rustix::fs::Mode;
use rustix::process::{DumpableBehavior, Resource, Rlimit};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::host::{self, Opened, PinGuard};
use crate::link::Open;
use crate::operator::{self, Outcome, Tell};
use crate::sandbox::{Confined, Fence};
use crate::{Key, TokenError};

/// The one argument that a token program takes: it is not to confine itself, since its module would not
/// work so.
pub const UNCONFINED: &str = "--unconfined";

/// What the service manager has told the agent is not for its launcher, and for no token program.
pub const SERVICE_VARIABLES: [&str; 7] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "LISTEN_FDS_FIRST_FD",
];

/// The exit status of a token program that has done its work.
const SUCCESS: u8 = 0;

/// The exit status where it could not start, or lost the agent.
const FAILURE: u8 = 1;

/// The exit status where it was not started as the agent starts it.
const USAGE: u8 = 2;

/// A token program's `main`: serves the agent with the token that `open` opens. Before that, `confine`
/// drops the privileges that the token does not need. Or, started with [`operator::ARGUMENT`], does an operator's tasks by
/// `work`, as confined as the operator is. `name` and `about` are for whoever starts it by hand.
/// Returns the exit status.
pub fn run<K: Key + Send, T: DeserializeOwned, A: Serialize>(
    name: &str,
    about: &str,
    confine: impl FnOnce(&Open) -> Fence,
    open: impl FnMut(Open, &PinGuard) -> Result<Opened<K>, TokenError>,
    work: impl FnMut(T, Tell<A>) -> Outcome<A>,
) -> u8 {
    let about = format!(
        "{name} {}: {about}, for roleseal-agent.\n\
         The agent starts it by itself; there is nothing to run by hand.",
        env!("CARGO_PKG_VERSION")
    );
    let argument = std::env::args_os().nth(1);
    let (confined, for_operator) = match argument.as_deref().map(OsStr::to_str) {
        None => (true, false),
        Some(Some(UNCONFINED)) => (false, false),
        Some(Some(operator::ARGUMENT)) => (false, true),
        Some(Some("--help" | "--version")) => {
            println!("{about}");
            return SUCCESS;
        }
        Some(_) => {
            eprintln!("{about}");
            return USAGE;
        }
    };
    if let Err(error) = harden_process() {
        eprintln!("{name}: cannot keep the PIN out of core dumps: {error}");
        return FAILURE;
    }
    if !stdin_is_a_socket() {
        eprintln!("{about}");
        return USAGE;
    }
    let confine = |request: &Open| {
        if !confined {
            return;
        }
        for (by, confined) in confine(request) {
            // What a kernel does in part the agent tells of itself, once.
            if let Confined::Not(why) = confined {
                eprintln!("{name}: warning: not confined by {by}: {why}");
            }
        }
    };
    let served = match for_operator {
        true => operator::serve(work),
        false => host::serve(confine, open),
    };
    match served {
        Ok(()) => SUCCESS,
        Err(error) => {
            eprintln!("{name}: lost roleseal-agent: {error}");
            FAILURE
        }
    }
}

/// What a process with a PIN or a way to one does before anything else: no core dumps, no debugger of
/// the same user, no privileges by exec, no files for others.
pub fn harden_process() -> io::Result<()> {
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let no_core = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    rustix::process::setrlimit(Resource::Core, no_core)?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    rustix::thread::set_no_new_privs(true)?;
    Ok(())
}

/// Whether standard input is a socket, as it is for whom the agent has started.
pub fn stdin_is_a_socket() -> bool {
    let stdin = io::stdin().as_fd().try_clone_to_owned().map(File::from);
    let metadata = stdin.and_then(|stdin| stdin.metadata());
    metadata.is_ok_and(|metadata| metadata.file_type().is_socket())
}
