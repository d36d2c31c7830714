//! What every token program does around its work: it is started by the agent and by nobody else, keeps
//! its secrets in, and ends in good order.

use std::fs::File;
use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::host::{self, Opened, PinGuard};
use crate::link::Open;
use crate::{Key, TokenError};

/// A token program's `main`: serves the agent with the token that `open` opens. `name` and `about` are
/// for whoever starts it by hand.
pub fn run<K: Key + Send>(
    name: &str,
    about: &str,
    open: impl FnMut(Open, &PinGuard) -> Result<Opened<K>, TokenError>,
) -> ExitCode {
    let about = format!(
        "{name} {}: {about}, for roleseal-agent.\n\
         The agent starts it by itself; there is nothing to run by hand.",
        env!("CARGO_PKG_VERSION")
    );
    if let Some(argument) = std::env::args_os().nth(1) {
        if argument == "--help" || argument == "--version" {
            println!("{about}");
            return ExitCode::SUCCESS;
        }
        eprintln!("{about}");
        return ExitCode::from(2);
    }
    if let Err(error) = keep_secrets_in() {
        eprintln!("{name}: cannot keep the PIN out of core dumps: {error}");
        return ExitCode::FAILURE;
    }
    if !stdin_is_a_socket() {
        eprintln!("{about}");
        return ExitCode::from(2);
    }
    match end_on_signals().and_then(|()| host::serve(open)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: lost the agent: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Before anything is read: the PIN will be in this process.
fn keep_secrets_in() -> io::Result<()> {
    let no_core = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, no_core)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

fn stdin_is_a_socket() -> bool {
    let stdin = io::stdin().as_fd().try_clone_to_owned().map(File::from);
    let metadata = stdin.and_then(|stdin| stdin.metadata());
    metadata.is_ok_and(|metadata| metadata.file_type().is_socket())
}

/// A signal counts as the agent's end: sessions and loaded keys are closed all the same.
fn end_on_signals() -> io::Result<()> {
    let agent = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    std::thread::spawn(move || {
        signals.forever().next();
        agent.shutdown(Shutdown::Read)
    });
    Ok(())
}
