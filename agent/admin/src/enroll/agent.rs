//! The running agent, if there is one: it is told to read its configuration again, and has the identity.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use wire::{Client, State};

use super::plan::Plan;
use crate::command::{self, Stop};
use crate::failure::Failure;
use crate::output;
use crate::token_program::hold_signals;

/// How long it may take until the identity is settled: slow tokens take seconds to open.
const LIMIT: Duration = Duration::from_secs(60);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(200);

/// Its unit's name, for an agent whose socket systemd holds.
const RELOAD: &str = "systemctl reload-or-restart roleseal-agent.service >&2";

/// Who listens at the socket.
#[derive(Debug, PartialEq, Eq)]
enum Listener {
    Nobody,
    Agent(Pid),
    /// systemd, for an agent that may not run yet.
    Manager,
}

impl Listener {
    /// The first process is systemd; or, in a container, the agent itself.
    fn of(pid: Pid, program: Option<&Path>) -> Listener {
        match pid == Pid::INIT && !program.is_some_and(is_agent) {
            true => Listener::Manager,
            false => Listener::Agent(pid),
        }
    }
}

/// Reloads it, and waits until the identity is ready.
pub(super) fn reload_and_wait(plan: &Plan) -> Result<(), Failure> {
    let socket = &plan.socket;
    match listener(socket)? {
        Listener::Nobody => {
            return output::print_step(&format!(
                "agent: none runs at {}: start it, such as by `systemctl enable --now roleseal-agent.socket \
                 roleseal-agent.service`\n",
                socket.display()
            ));
        }
        Listener::Agent(pid) => hang_up(pid)?,
        Listener::Manager => reload_by_manager()?,
    }
    wait(plan)
}

fn listener(socket: &Path) -> Result<Listener, Failure> {
    let at = |what: String| Failure::failed(format!("{}: {what}", socket.display()));
    let stream = match UnixStream::connect(socket) {
        Ok(stream) => stream,
        Err(error)
            if [ErrorKind::NotFound, ErrorKind::ConnectionRefused].contains(&error.kind()) =>
        {
            return Ok(Listener::Nobody);
        }
        Err(error) => return Err(at(error.to_string())),
    };
    let peer = getsockopt(&stream, PeerCredentials).map_err(|error| at(error.to_string()))?;
    match Pid::from_raw(peer.pid()) {
        Some(pid) => Ok(Listener::of(pid, program_of(pid).ok().as_deref())),
        None => Err(at(
            "who listens there cannot be told: reload the agent by hand".to_owned(),
        )),
    }
}

/// Sends SIGHUP to the agent of that number, and to nobody who has got it since.
fn hang_up(pid: Pid) -> Result<(), Failure> {
    let by_hand = |why: String| {
        Failure::failed(format!(
            "process {} is not told to reload: {why}: reload the agent by hand (SIGHUP)",
            pid.as_raw_nonzero()
        ))
    };
    // From here on, whatever has the number: if it is not the agent, it is not this process.
    let process =
        pidfd_open(pid, PidfdFlags::empty()).map_err(|error| by_hand(error.to_string()))?;
    let program = program_of(pid).map_err(|error| by_hand(error.to_string()))?;
    if !is_agent(&program) {
        return Err(by_hand(format!("it runs {}", program.display())));
    }
    pidfd_send_signal(&process, Signal::HUP).map_err(|error| by_hand(error.to_string()))
}

fn program_of(pid: Pid) -> io::Result<PathBuf> {
    std::fs::read_link(format!("/proc/{}/exe", pid.as_raw_nonzero()))
}

/// Also one whose file was replaced by a newer one.
fn is_agent(program: &Path) -> bool {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    name.trim_end_matches(" (deleted)") == "roleseal-agent"
}

fn reload_by_manager() -> Result<(), Failure> {
    let failed = |error: String| Failure::failed(format!("`{RELOAD}` failed: {error}"));
    let _held = hold_signals()?;
    let stop = Stop::new().map_err(|error| failed(error.to_string()))?;
    let nothing = File::open("/dev/null").map_err(|error| failed(error.to_string()))?;
    command::run(RELOAD, nothing, &[], LIMIT, &stop)
        .map(drop)
        .map_err(|error| failed(error.to_string()))
}

fn wait(plan: &Plan) -> Result<(), Failure> {
    let (name, socket) = (&plan.name, plan.socket.display());
    let deadline = Instant::now() + LIMIT;
    loop {
        let listed = Client::connect(&plan.socket).and_then(|mut agent| agent.list_identities());
        let listed = listed.unwrap_or_default(); // it may be busy: there is time
        let identity = listed.into_iter().find(|identity| identity.name == *name);
        match identity.as_ref().map(|identity| identity.state) {
            Some(State::Ready) => {
                return output::print_step(&format!(
                    "agent: reloaded at {socket}: {name} is ready\n"
                ));
            }
            Some(State::PinRejected | State::Unusable) => {
                let why = identity.and_then(|identity| identity.message);
                return Err(Failure::failed(format!(
                    "the agent cannot sign for {name}: {}",
                    why.unwrap_or_default()
                )));
            }
            Some(State::Opening | State::Unavailable) | None if Instant::now() < deadline => {
                std::thread::sleep(PAUSE);
            }
            _ => {
                return Err(Failure::failed(format!(
                    "{name} is not ready after {} s: `roleseal identities` and the agent's log say why; an agent \
                     that knew no certificate in this directory when it started has to be restarted",
                    LIMIT.as_secs()
                )));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_process_is_systemd_or_the_agent() {
        let other = Pid::from_raw(7).unwrap();
        for (pid, program, expected) in [
            (
                Pid::INIT,
                Some("/usr/lib/systemd/systemd"),
                Listener::Manager,
            ),
            (Pid::INIT, None, Listener::Manager),
            (
                Pid::INIT,
                Some("/usr/local/bin/roleseal-agent"),
                Listener::Agent(Pid::INIT),
            ),
            (other, None, Listener::Agent(other)),
        ] {
            assert_eq!(Listener::of(pid, program.map(Path::new)), expected);
        }
        assert!(is_agent(Path::new("/bin/roleseal-agent (deleted)")));
        assert!(!is_agent(Path::new("/bin/sh")));
    }
}
