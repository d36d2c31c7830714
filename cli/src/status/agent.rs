//! The state of the agent's identities.

use std::path::PathBuf;

use client::agent_client::{self, AgentError};
use jiff::Timestamp;
use wire::Identity;

use crate::identity_table::identity_table;

pub(super) struct AgentStatus {
    pub(super) socket: PathBuf,
    pub(super) identities: Result<Vec<Identity>, AgentError>,
}

impl AgentStatus {
    pub(super) fn ask(socket: PathBuf) -> AgentStatus {
        AgentStatus {
            identities: agent_client::identities(&socket),
            socket,
        }
    }

    pub(super) fn show(&self, now: Timestamp) -> String {
        let socket = self.socket.display();
        match &self.identities {
            Ok(identities) => {
                format!(
                    "roleseal-agent at {socket}\n{}",
                    identity_table(identities, now)
                )
            }
            Err(_) => format!("roleseal-agent at {socket}: no answer\n"),
        }
    }
}
