//! The running agent, if there is one: it is told to read its configuration again, and has an identity ready.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use wire::{Client, State};

use crate::command::{self, Stop};
use crate::failure::Failure;
use crate::output;

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
    Process(Peer),
    /// systemd, for an agent that may not run yet.
    Manager,
}

/// A process that listens, by the kernel's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Peer {
    pid: Pid,
    uid: u32,
}

impl Listener {
    /// The first process is systemd; or, in a container, the agent itself.
    fn of(peer: Peer, is_agent: bool) -> Listener {
        match peer.pid == Pid::INIT && !is_agent {
            true => Listener::Manager,
            false => Listener::Process(peer),
        }
    }
}

/// Reloads it, and waits until the identity is ready, or its PIN refused and `has_tried`.
pub(crate) fn reload_and_wait(
    name: &str,
    socket: &Path,
    has_tried: impl Fn() -> bool,
) -> Result<(), Failure> {
    match listener(socket)? {
        Listener::Nobody => {
            return output::print_step(&format!(
                "agent: none runs at {}: start it, such as by `systemctl enable --now roleseal-agent.socket \
                 roleseal-agent.service`\n",
                socket.display()
            ));
        }
        Listener::Process(peer) => hang_up(peer)?,
        Listener::Manager => reload_by_manager()?,
    }
    wait(name, socket, has_tried)
}

fn listener(socket: &Path) -> Result<Listener, Failure> {
    let at = |what: String| {
        Failure::failed(format!(
            "cannot find the agent at {}: {what}",
            socket.display()
        ))
    };
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
    let uid = peer.uid();
    match Pid::from_raw(peer.pid()).map(|pid| Peer { pid, uid }) {
        Some(peer) => Ok(Listener::of(peer, check_agent(peer).is_ok())),
        None => Err(
            at("the process that listens there has no number here".to_owned())
                .hint("reload the agent by hand"),
        ),
    }
}

/// Sends SIGHUP to the agent of that number, and to nobody who has got it since.
fn hang_up(peer: Peer) -> Result<(), Failure> {
    let by_hand = |why: String| {
        Failure::failed(format!(
            "cannot reload process {}: {why}",
            peer.pid.as_raw_nonzero()
        ))
        .hint("reload the agent by hand: sudo systemctl reload roleseal-agent, or SIGHUP")
    };
    // From here on, whatever has the number: if it is not the agent, it is not this process.
    let process =
        pidfd_open(peer.pid, PidfdFlags::empty()).map_err(|error| by_hand(error.to_string()))?;
    check_agent(peer).map_err(by_hand)?;
    pidfd_send_signal(&process, Signal::HUP).map_err(|error| by_hand(error.to_string()))
}

/// Whether it is an agent: by its program, which the kernel shows of a process that keeps its secrets in to root
/// alone; else by its name, if it is this user's. Another user's would not take this user's signal either.
fn check_agent(peer: Peer) -> Result<(), String> {
    let own = rustix::process::geteuid();
    match fs::read_link(process_file(peer, "exe")) {
        Ok(program) if is_agent(&program) => Ok(()),
        Ok(program) => Err(format!("it runs {}", program.display())),
        Err(error) if error.kind() != ErrorKind::PermissionDenied => Err(error.to_string()),
        Err(_) if !own.is_root() && own.as_raw() != peer.uid => {
            Err(format!("it belongs to user {}", peer.uid))
        }
        Err(_) => match fs::read_to_string(process_file(peer, "comm")) {
            Ok(name) if is_agent(Path::new(name.trim_end())) => Ok(()),
            Ok(name) => Err(format!("it is called {:?}", name.trim_end())),
            Err(error) => Err(error.to_string()),
        },
    }
}

fn process_file(peer: Peer, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{}/{name}", peer.pid.as_raw_nonzero()))
}

/// Also one whose file was replaced by a newer one.
fn is_agent(program: &Path) -> bool {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    name.trim_end_matches(" (deleted)") == "roleseal-agent"
}

fn reload_by_manager() -> Result<(), Failure> {
    let failed = |error: String| Failure::failed(format!("cannot run `{RELOAD}`: {error}"));
    let stop = Stop::new().map_err(|error| failed(error.to_string()))?;
    let nothing = File::open("/dev/null").map_err(|error| failed(error.to_string()))?;
    command::run(RELOAD, nothing, &[], LIMIT, &stop)
        .map(drop)
        .map_err(|error| failed(error.to_string()))
}

fn wait(name: &str, path: &Path, has_tried: impl Fn() -> bool) -> Result<(), Failure> {
    let socket = path.display();
    let deadline = Instant::now() + LIMIT;
    loop {
        let listed = Client::connect(path).and_then(|mut agent| agent.list_identities());
        let listed = listed.unwrap_or_default(); // it may be busy: there is time
        let identity = listed.into_iter().find(|identity| identity.name == name);
        let state = identity.as_ref().map(|identity| identity.state);
        let settled = state != Some(State::PinRejected) || has_tried();
        match state {
            Some(State::Ready) => {
                return output::print_step(&format!(
                    "agent: reloaded at {socket}: {name} is ready\n"
                ));
            }
            Some(State::PinRejected | State::Unusable) if settled => {
                let why = identity.and_then(|identity| identity.message);
                return Err(Failure::failed(format!(
                    "cannot sign for {name} with the agent at {socket}: {}",
                    why.unwrap_or_default()
                )));
            }
            Some(State::Opening | State::Unavailable | State::PinRejected) | None
                if Instant::now() < deadline =>
            {
                std::thread::sleep(PAUSE);
            }
            _ => {
                return Err(Failure::failed(format!(
                    "cannot sign for {name} with the agent at {socket}: not ready after {} s",
                    LIMIT.as_secs()
                ))
                .hint(
                    "`roleseal identities` and the agent's log say why; restart an agent whose configuration named no \
                     certificate in this directory at startup",
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_process_is_systemd_or_the_agent() {
        let peer = |pid| Peer { pid, uid: 0 };
        let (first, other) = (peer(Pid::INIT), peer(Pid::from_raw(7).unwrap()));
        for (peer, is_agent, expected) in [
            (first, false, Listener::Manager),
            (first, true, Listener::Process(first)),
            (other, false, Listener::Process(other)),
        ] {
            assert_eq!(Listener::of(peer, is_agent), expected);
        }
        assert!(is_agent(Path::new("/bin/roleseal-agent (deleted)")));
        assert!(!is_agent(Path::new("/bin/sh")));
    }
}
