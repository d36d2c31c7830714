//! The agent's socket: whether it exists, permits this user, and has a listener.

use client::agent_client::AgentError;
use client::socket_access::SocketFile;
use wire::Client;

use super::finding::{Check, Finding};
use super::target::ResolvedTarget;

/// Connects to the socket.
pub(super) fn probe(target: &ResolvedTarget) -> (Finding, Option<Client>) {
    let path = &target.socket;
    let from = &target.socket_from;
    let about = match SocketFile::read(path) {
        Ok(file) => format!("({from}, {file})"),
        Err(_) => format!("({from})"),
    };
    match Client::connect(path) {
        Ok(client) => {
            let detail = format!("{} {about} accepts connections", path.display());
            (Finding::ok(Check::Socket, detail), Some(client))
        }
        Err(error) => {
            let error = AgentError::new(path, error);
            let mut finding = Finding::error(Check::Socket, &error);
            finding.detail += &format!(" {about}");
            (finding, None)
        }
    }
}
