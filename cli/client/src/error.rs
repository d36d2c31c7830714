//! Why there is no session, whichever layer it was.

use thiserror::Error;

use crate::agent_client::AgentError;
use crate::cache::{CacheError, Failure};
use crate::credentials::AnswerError;
use crate::exit::Exit;
use crate::http::HttpError;
use crate::target::TargetError;

/// Each message is complete: it names its causes itself, and after a line break what to do.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "each message says it")]
pub enum Error {
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error(transparent)]
    Agent(#[from] AgentError),
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error(transparent)]
    Answer(#[from] AnswerError),
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// More than one try ended like the last.
    #[error("{error}\nTried {tries} times.")]
    Persistent { error: Box<Error>, tries: u32 },
    /// What another process got that asked for the same session while this one waited for it.
    #[error(
        "{message}\n(That is the answer to another roleseal, which asked for the same session.)"
    )]
    Elsewhere { message: String, exit: u8 },
    /// Whoever asked ended without an outcome.
    #[error("the request for a session ended without an outcome: this is a fault of roleseal")]
    Lost,
    /// Who asked has waited long enough.
    #[error("the session is still being asked for: try again")]
    Pending,
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        Error::Elsewhere {
            message: failure.message,
            exit: failure.exit,
        }
    }
}

impl Error {
    /// The exit code of a command that fails for this.
    pub fn exit(&self) -> Exit {
        match self {
            Error::Target(_) => Exit::Usage,
            Error::Agent(error) => error.exit(),
            Error::Http(error) => error.exit(),
            Error::Answer(_) => Exit::RefusedByAws,
            Error::Cache(_) | Error::Lost | Error::Pending => Exit::Failed,
            Error::Persistent { error, .. } => error.exit(),
            Error::Elsewhere { exit, .. } => Exit::from_code(*exit),
        }
    }

    /// Whether the same request may succeed in a moment.
    pub fn passing(&self) -> bool {
        match self {
            Error::Http(error) => error.passing(),
            Error::Answer(AnswerError::Refused(refusal)) => refusal.passing(),
            _ => false,
        }
    }

    /// Whether AWS has said no, and will until somebody changes something.
    pub(crate) fn refused_by_aws(&self) -> bool {
        match self {
            Error::Answer(AnswerError::Refused(refusal)) => !refusal.passing(),
            _ => false,
        }
    }

    /// The same, and how often it was tried.
    pub fn after(self, tries: u32) -> Error {
        match tries {
            0 | 1 => self,
            tries => Error::Persistent {
                error: Box::new(self),
                tries,
            },
        }
    }
}
