//! What `roleseal` asks of the agent, and what it says when that fails.

use std::collections::BTreeMap;
use std::fmt;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use wire::{Client, ClientError, Identity, Refusal, UnsignedRequest};

use crate::exit::Exit;
use crate::timeout::timeout;

/// The headers that sign the request, by name.
pub fn sign(
    socket: &Path,
    unsigned: UnsignedRequest,
) -> Result<BTreeMap<String, String>, AgentError> {
    Client::connect(socket)
        .and_then(|mut client| client.sign_create_session(unsigned))
        .map_err(|error| AgentError::new(socket, error))
}

/// The identities that this process may use.
pub fn identities(socket: &Path) -> Result<Vec<Identity>, AgentError> {
    Client::connect(socket)
        .and_then(|mut client| client.list_identities())
        .map_err(|error| AgentError::new(socket, error))
}

/// The certificate that an identity signs with: base64 of DER, the leaf first.
pub fn certificate_chain(socket: &Path, identity: Option<&str>) -> Result<Vec<String>, AgentError> {
    Client::connect(socket)
        .and_then(|mut client| client.certificate(identity))
        .map_err(|error| AgentError::new(socket, error))
}

/// The certificate that the agent would sign with.
#[derive(Debug, PartialEq, Eq)]
pub enum Certificate {
    /// Its serial, decimal.
    Serial(String),
    /// There is no such identity for this user, or not just one.
    None,
    /// The agent does not tell.
    Unknown,
}

/// Whoever asks has credentials already, and should have them at once: an agent that is being restarted
/// is not waited for. The answer takes a millisecond.
const GLANCE: Duration = Duration::from_millis(500);

/// Looks which certificate an identity has now. This needs no token.
pub fn certificate(socket: &Path, identity: Option<&str>) -> Certificate {
    let socket = socket.to_owned();
    match timeout(GLANCE, move || identities(&socket)) {
        Some(Ok(identities)) => certificate_of(&identities, identity),
        _ => Certificate::Unknown,
    }
}

fn certificate_of(identities: &[Identity], wanted: Option<&str>) -> Certificate {
    let mut matching = identities
        .iter()
        .filter(|identity| wanted.is_none_or(|name| identity.name == name));
    match (matching.next(), matching.next()) {
        (Some(identity), None) => match &identity.serial {
            Some(serial) => Certificate::Serial(serial.clone()),
            None => Certificate::Unknown, // its token is being opened
        },
        _ => Certificate::None,
    }
}

/// Why the agent brought no result.
#[derive(Debug)]
pub struct AgentError {
    socket: PathBuf,
    error: ClientError,
}

impl std::error::Error for AgentError {}

impl AgentError {
    /// What went wrong with the agent at this socket.
    pub fn new(socket: &Path, error: ClientError) -> AgentError {
        AgentError {
            socket: socket.to_owned(),
            error,
        }
    }

    /// The agent's own word, where it gave one.
    pub fn refusal(&self) -> Option<&Refusal> {
        match &self.error {
            ClientError::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// The exit code of a command that fails for this.
    pub fn exit(&self) -> Exit {
        match &self.error {
            ClientError::Refused(refusal) => exit_of(refusal),
            ClientError::TooLarge => Exit::RefusedByAgent,
            _ => Exit::AgentUnreachable,
        }
    }
}

fn exit_of(refusal: &Refusal) -> Exit {
    match refusal {
        Refusal::IdentityUnusable { .. }
        | Refusal::TokenUnavailable { .. }
        | Refusal::PinRejected { .. }
        | Refusal::SignatureInvalid { .. }
        | Refusal::Busy { .. }
        | Refusal::DeadlineExceeded { .. } => Exit::TokenTrouble,
        Refusal::NotConfigured { .. } => Exit::AgentUnreachable,
        Refusal::IdentityNotFound { .. }
        | Refusal::IdentityAmbiguous { .. }
        | Refusal::NotPermitted { .. }
        | Refusal::RequestRefused { .. }
        | Refusal::MalformedMessage { .. }
        | Refusal::MessageTooLarge { .. }
        | Refusal::InterfaceNotFound { .. }
        | Refusal::MethodNotFound { .. }
        | Refusal::InvalidParameter { .. }
        | Refusal::ExpectedMore {} => Exit::RefusedByAgent,
    }
}

impl fmt::Display for AgentError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let socket = self.socket.display();
        match &self.error {
            ClientError::Connect(error) => write!(
                f,
                "cannot connect to roleseal-agent at {socket}: {error}\n{}",
                remedy(&self.socket, error.kind())
            ),
            ClientError::Refused(refusal) => write_refusal(f, refusal),
            ClientError::TooLarge => write!(f, "{}: give fewer instance properties", self.error),
            error => write!(
                f,
                "{error} (socket {socket})\nThe agent's log says why: journalctl -u roleseal-agent"
            ),
        }
    }
}

fn remedy(socket: &Path, kind: ErrorKind) -> String {
    match kind {
        ErrorKind::PermissionDenied => kept_out(socket),
        ErrorKind::ConnectionRefused => {
            "The socket is left over, and nobody listens: start roleseal-agent (sudo systemctl start \
             roleseal-agent.socket roleseal-agent)."
                .to_owned()
        }
        _ => "Is roleseal-agent running (systemctl status roleseal-agent)? Where its socket is another, name it with \
              --socket or ROLESEAL_SOCKET."
            .to_owned(),
    }
}

/// By the socket's mode, which the agent sets by its rules.
fn kept_out(socket: &Path) -> String {
    const GROUP_WRITES: u32 = 0o020;
    match socket.metadata() {
        Ok(socket) if socket.mode() & GROUP_WRITES == 0 => NO_RULES.to_owned(),
        Ok(socket) => format!(
            "The socket belongs to the group {}: have yourself made a member (sudo usermod -aG), then log in again.",
            socket.gid()
        ),
        Err(_) => format!(
            "A directory above it keeps you out: namei -l {} shows which one.",
            socket.display()
        ),
    }
}

/// Why a socket is its agent's user's alone.
pub const NO_RULES: &str = "\
It is for its owner alone, as an agent makes it that has no [[identity.allow]] rule for others: have a rule that names \
you (users or groups) added to agent.toml, then: sudo systemctl restart roleseal-agent (or SocketMode= changed, where \
systemd makes the socket).";

fn write_refusal(f: &mut fmt::Formatter, refusal: &Refusal) -> fmt::Result {
    match exit_of(refusal) {
        Exit::TokenTrouble => write!(f, "roleseal-agent could not sign: {refusal}")?,
        _ => write!(f, "roleseal-agent refused: {refusal}")?,
    }
    match refusal {
        Refusal::IdentityAmbiguous { identities, .. } => {
            write!(f, "\nChoose one with --identity: {}", identities.join(", "))
        }
        Refusal::IdentityNotFound { .. } => {
            write!(f, "\n\"roleseal identities\" lists those that you may use.")
        }
        Refusal::TokenUnavailable {
            retry_after_seconds: Some(seconds),
            ..
        } => write!(f, "\nTry again in {seconds} s."),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::{fs, io};

    use super::*;

    #[test]
    fn a_connection_that_fails_names_the_socket_and_the_remedy() {
        for (kind, expected) in [
            (ErrorKind::NotFound, "--socket or ROLESEAL_SOCKET"),
            (ErrorKind::ConnectionRefused, "start roleseal-agent"),
            (ErrorKind::PermissionDenied, "namei -l"),
        ] {
            let error = AgentError::new(Path::new("/a.sock"), ClientError::Connect(kind.into()));
            assert_eq!(error.exit(), Exit::AgentUnreachable);
            let text = error.to_string();
            assert!(
                text.contains("/a.sock") && text.contains(expected),
                "{text}"
            );
        }
    }

    #[test]
    fn who_is_kept_out_learns_by_what() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        for (mode, expected) in [(0o600, "[[identity.allow]]"), (0o660, "group")] {
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let text = remedy(&path, ErrorKind::PermissionDenied);
            assert!(text.contains(expected), "{mode:o}: {text}");
        }
    }

    #[test]
    fn an_agent_that_falls_silent_points_to_its_log() {
        let error = ClientError::Transport(io::Error::from(ErrorKind::ConnectionReset).into());
        let error = AgentError::new(Path::new("/a.sock"), error);
        assert_eq!(error.exit(), Exit::AgentUnreachable);
        assert!(error.to_string().contains("journalctl"));
    }

    #[test]
    fn a_refusal_says_what_to_do_where_its_members_tell() {
        let message = || "why".to_owned();
        let cases = [
            (
                Refusal::IdentityAmbiguous {
                    identities: vec!["a".into(), "b".into()],
                    message: message(),
                },
                Exit::RefusedByAgent,
                "roleseal-agent refused: why\nChoose one with --identity: a, b",
            ),
            (
                Refusal::TokenUnavailable {
                    retry_after_seconds: Some(3),
                    message: message(),
                },
                Exit::TokenTrouble,
                "roleseal-agent could not sign: why\nTry again in 3 s.",
            ),
            (
                Refusal::PinRejected { message: message() },
                Exit::TokenTrouble,
                "roleseal-agent could not sign: why",
            ),
        ];
        for (refusal, exit, text) in cases {
            let error = AgentError::new(Path::new("/a.sock"), refusal.into());
            assert_eq!((error.exit(), error.to_string().as_str()), (exit, text));
        }
    }
}
