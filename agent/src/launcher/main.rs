//! How `roleseal-agent` begins when it is its own launcher.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::Arc;

use rustix::stdio::dup2_stdin;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::server;

/// `roleseal-agent`'s one argument when it is started as its own launcher. Not for people: what it takes at its standard
/// input is nobody else's to say.
pub(super) const ARGUMENT: &str = "--launcher";

/// The launcher's name in `ps` and `top`: 15 characters are shown.
const NAME: &std::ffi::CStr = c"roleseal-launch";

/// Whether this process was started as a launcher.
pub fn is_asked_for() -> bool {
    let mut arguments = std::env::args_os().skip(1);
    arguments
        .next()
        .is_some_and(|argument| argument == ARGUMENT)
        && arguments.next().is_none()
}

/// A launcher's `main`.
pub fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("roleseal-agent: its launcher: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<()> {
    token::program::harden_process()?;
    if !token::program::stdin_is_a_socket() {
        return Err(io::Error::other("the agent starts it by itself"));
    }
    close_inherited()?;
    rustix::thread::set_name(NAME)?;
    // Not ignored, but caught: what is ignored is so in the token programs too.
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        signal_hook::flag::register(signal, Arc::default())?;
    }
    let agent = io::stdin().as_fd().try_clone_to_owned()?;
    dup2_stdin(File::open("/dev/null")?)?;
    let own = std::env::current_exe()?;
    let programs = own
        .parent()
        .ok_or_else(|| io::Error::other("no directory holds this program"))?;
    server::run(agent, programs.to_owned())
}

/// Whatever was left open for the agent, such as a socket of systemd's, is not ours. Nothing has been
/// opened here yet.
fn close_inherited() -> io::Result<()> {
    let mut open: Vec<i32> = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        open.extend(entry?.file_name().to_string_lossy().parse::<i32>());
    }
    for descriptor in open {
        if descriptor > 2 {
            let _ = nix::unistd::close(descriptor); // one of them was the directory
        }
    }
    Ok(())
}
