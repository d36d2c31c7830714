//! What `roleseal` asks of the agent, and what it says when that fails.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use wire::{Client, ClientError, Identity, Refusal, Rule, State, UnsignedRequest};

use crate::diagnostic::Diagnostic;
use crate::exit::Exit;
use crate::socket_access;
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

/// Asks whether this process may still have the session of that request. `Err` only where the agent refuses: one
/// that is silent, busy, restarting or too old to be asked has nothing against it.
pub(crate) fn may_create_session(
    socket: &Path,
    unsigned: UnsignedRequest,
) -> Result<(), AgentError> {
    let path = socket.to_owned();
    let ask = move || Client::connect(&path)?.may_create_session(unsigned);
    match timeout(GLANCE, ask) {
        Some(Err(error)) => match AgentError::new(socket, error) {
            refused if refused.is_by_policy() => Err(refused),
            _ => Ok(()),
        },
        Some(Ok(())) | None => Ok(()),
    }
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
pub(crate) const GLANCE: Duration = Duration::from_millis(500);

/// Looks which certificate an identity has now. This needs no token.
pub fn certificate(socket: &Path, identity: Option<&str>) -> Certificate {
    let socket = socket.to_owned();
    match timeout(GLANCE, move || identities(&socket)) {
        Some(Ok(identities)) => certificate_of(&identities, identity),
        _ => Certificate::Unknown,
    }
}

/// What a user sees of the identities that a request could be signed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen(Vec<(String, Option<String>, State)>);

/// Looks at name, serial and state of an identity, or of all. `None` where the agent does not tell. This needs no token.
pub(crate) fn look(socket: &Path, identity: Option<&str>) -> Option<Seen> {
    let socket = socket.to_owned();
    let identities = timeout(GLANCE, move || identities(&socket))?.ok()?;
    let wanted = |one: &Identity| identity.is_none_or(|name| one.name == name);
    let seen = identities.into_iter().filter(wanted);
    Some(Seen(
        seen.map(|one| (one.name, one.serial, one.state)).collect(),
    ))
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

    /// Returns whether the agent's configuration gives this user no such session, now or later.
    pub(crate) fn is_by_policy(&self) -> bool {
        matches!(
            self.refusal(),
            Some(
                Refusal::NotPermitted { .. }
                    | Refusal::IdentityNotFound { .. }
                    | Refusal::IdentityAmbiguous { .. }
                    | Refusal::RequestRefused { .. }
            )
        )
    }
}

impl Diagnostic for AgentError {
    fn exit(&self) -> Exit {
        match &self.error {
            ClientError::Refused(refusal) => exit_of(refusal),
            ClientError::TooLarge => Exit::RefusedByAgent,
            _ => Exit::AgentUnreachable,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match &self.error {
            ClientError::Connect(error) => socket_access::hint(&self.socket, error.kind()),
            ClientError::Refused(refusal) => hint_of(refusal),
            ClientError::TooLarge => "give fewer instance properties".to_owned(),
            _ => "the agent's log shows the cause: journalctl -u roleseal-agent".to_owned(),
        })
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

fn hint_of(refusal: &Refusal) -> String {
    match refusal {
        Refusal::IdentityAmbiguous { identities, .. } => {
            format!("choose one with --identity or the target's identity: {}", identities.join(", "))
        }
        Refusal::IdentityNotFound { .. } => {
            "\"roleseal identities\" lists those that you may use".to_owned()
        }
        Refusal::NotPermitted { rule, .. } => format!(
            "{} this user's [[identity.allow]] rule in agent.toml; then: sudo systemctl reload roleseal-agent",
            remedy(*rule)
        ),
        Refusal::TokenUnavailable {
            retry_after_seconds: Some(seconds),
            ..
        } => format!("try again in {seconds} s"),
        _ if exit_of(refusal) == Exit::TokenTrouble => {
            "\"roleseal identities\" shows the token's state, and the agent's log its cause: journalctl -u \
             roleseal-agent"
                .to_owned()
        }
        _ => "correct the target, or the agent's configuration".to_owned(),
    }
}

/// Returns what to change in the rule, or in the request.
fn remedy(rule: Rule) -> &'static str {
    match rule {
        Rule::Caller => {
            "name this user (users), one of its groups (groups) or the systemd unit of its process (units) in"
        }
        Rule::Role => {
            "request another role or role session name, or add this one to role-session-names or roles of"
        }
        Rule::Profile => "use another profile, or add this one to profiles of",
        Rule::TrustAnchor => "use another trust anchor, or add this one to trust-anchors of",
        Rule::Duration => "request less with session-duration, or raise max-duration of",
    }
}

impl fmt::Display for AgentError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let socket = self.socket.display();
        match &self.error {
            ClientError::Connect(error) => {
                write!(f, "cannot connect to roleseal-agent at {socket}: {error}")
            }
            ClientError::Refused(refusal) => match exit_of(refusal) {
                Exit::TokenTrouble => write!(f, "roleseal-agent cannot sign: {refusal}"),
                _ => write!(f, "roleseal-agent refused: {refusal}"),
            },
            error => write!(f, "{error} (socket {socket})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, ErrorKind};

    use super::*;

    fn error(error: impl Into<ClientError>) -> AgentError {
        AgentError::new(Path::new("/a.sock"), error.into())
    }

    #[test]
    fn a_failed_connection_names_the_socket() {
        let silent = ClientError::Transport(io::Error::from(ErrorKind::ConnectionReset).into());
        for error in [
            error(ClientError::Connect(ErrorKind::NotFound.into())),
            error(ClientError::Connect(ErrorKind::PermissionDenied.into())),
            error(silent),
        ] {
            assert_eq!(error.exit(), Exit::AgentUnreachable);
            assert!(error.to_string().contains("/a.sock") && error.hint().is_some());
        }
    }

    #[test]
    fn a_refusal_has_its_exit_code_and_hint() {
        let message = || "why".to_owned();
        for (refusal, exit, hint) in [
            (
                Refusal::IdentityAmbiguous {
                    identities: vec!["a".into(), "b".into()],
                    message: message(),
                },
                Exit::RefusedByAgent,
                "a, b",
            ),
            (
                Refusal::TokenUnavailable {
                    retry_after_seconds: Some(3),
                    message: message(),
                },
                Exit::TokenTrouble,
                "3 s",
            ),
            (
                Refusal::PinRejected { message: message() },
                Exit::TokenTrouble,
                "journalctl",
            ),
        ] {
            let error = error(refusal);
            assert_eq!(error.exit(), exit);
            assert!(error.to_string().ends_with(": why"), "{error}");
            assert!(error.hint().unwrap().contains(hint), "{error}");
        }
    }

    #[test]
    fn a_hint_names_the_setting_of_the_rule() {
        for (rule, setting) in [
            (Rule::Caller, "users"),
            (Rule::Caller, "units"),
            (Rule::Role, "roles"),
            (Rule::Profile, "profiles"),
            (Rule::TrustAnchor, "trust-anchors"),
            (Rule::Duration, "max-duration"),
        ] {
            let message = "why".into();
            let error = error(Refusal::NotPermitted { rule, message });
            assert_eq!(error.exit(), Exit::RefusedByAgent);
            assert!(error.hint().unwrap().contains(setting));
        }
    }
}
