//! What the service decided, for tests and for the terminal.

use std::collections::VecDeque;
use std::fmt;

use jiff::Timestamp;

/// Decisions that are kept; a service that runs for days shall not grow.
const KEPT: usize = 10_000;

/// One request, and what became of it.
#[derive(Clone, Debug)]
pub struct Decision {
    /// When, by the service's clock.
    pub time: Timestamp,
    /// Which operation was asked for.
    pub operation: Operation,
    /// Who asked, as far as the Authorization header could be read: a certificate's serial in decimal, or an access
    /// key id.
    pub credential: Option<String>,
    /// HTTP status of the answer.
    pub status: u16,
    /// What the client was told: the error's message, or the session's ARN.
    pub message: String,
    /// The exact rule that a refused request broke, with the statement and condition of a trust policy that decided;
    /// empty for success.
    pub reason: String,
    /// Which statement of the role's trust policy allowed a session; empty otherwise.
    pub allowed_by: String,
}

/// The operations of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each name says it")]
pub enum Operation {
    CreateSession,
    GetCallerIdentity,
}

impl Decision {
    /// Whether the request was granted.
    #[must_use]
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status) && self.reason.is_empty()
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Decision {
            time,
            operation,
            credential,
            status,
            message,
            reason,
            allowed_by,
        } = self;
        let credential = credential.as_deref().unwrap_or("-");
        write!(f, "{time:.0} {operation:?} {credential} {status} {message}")?;
        if !reason.is_empty() && reason != message {
            write!(f, ": {reason}")?;
        }
        if !allowed_by.is_empty() {
            write!(f, " ({allowed_by})")?;
        }
        Ok(())
    }
}

#[derive(Default)]
pub(crate) struct Journal {
    decisions: VecDeque<Decision>,
    sessions_created: u64,
    create_session_requests: u64,
}

impl Journal {
    pub(crate) fn record(&mut self, decision: Decision) {
        if decision.operation == Operation::CreateSession {
            self.create_session_requests += 1;
            self.sessions_created += u64::from(decision.is_success());
        }
        if self.decisions.len() == KEPT {
            self.decisions.pop_front();
        }
        self.decisions.push_back(decision);
    }

    pub(crate) fn decisions(&self) -> Vec<Decision> {
        self.decisions.iter().cloned().collect()
    }

    pub(crate) fn create_session_requests(&self) -> u64 {
        self.create_session_requests
    }

    pub(crate) fn sessions_created(&self) -> u64 {
        self.sessions_created
    }
}
