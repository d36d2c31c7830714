//! Why there is no session, whichever layer it was.

use thiserror::Error;

use crate::agent_client::AgentError;
use crate::aws_refusal::AwsRefusal;
use crate::cache::{CacheError, Failure};
use crate::credentials::AnswerError;
use crate::diagnostic::Diagnostic;
use crate::exit::Exit;
use crate::http::HttpError;
use crate::refresh_policy::{Setback, SetbackKind};
use crate::target::TargetError;

/// Why there is no session.
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
    #[error("{error} (tried {tries} times)")]
    Persistent { error: Box<Error>, tries: u32 },
    /// The failure of another process, for whose request this one waited.
    #[error("{message} (the answer to another roleseal, which requested the same session)")]
    Elsewhere {
        message: String,
        hint: Option<String>,
        exit: u8,
        kind: SetbackKind,
    },
    /// The thread that asked ended without an outcome.
    #[error("the request for a session ended without an outcome: this is a fault of roleseal")]
    Lost,
    /// The caller has waited long enough.
    #[error("the session is still being requested")]
    Pending,
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        Error::Elsewhere {
            message: failure.message,
            hint: failure.hint,
            exit: failure.exit,
            kind: failure.kind,
        }
    }
}

impl Diagnostic for Error {
    fn exit(&self) -> Exit {
        match self {
            Error::Target(error) => error.exit(),
            Error::Agent(error) => error.exit(),
            Error::Http(error) => error.exit(),
            Error::Answer(error) => error.exit(),
            Error::Cache(error) => error.exit(),
            Error::Persistent { error, .. } => error.exit(),
            Error::Elsewhere { exit, .. } => Exit::from_code(*exit),
            Error::Lost | Error::Pending => Exit::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Error::Target(error) => error.hint(),
            Error::Agent(error) => error.hint(),
            Error::Http(error) => error.hint(),
            Error::Answer(error) => error.hint(),
            Error::Cache(error) => error.hint(),
            Error::Persistent { error, .. } => error.hint(),
            Error::Elsewhere { hint, .. } => hint.clone(),
            Error::Lost => None,
            Error::Pending => Some("try again".to_owned()),
        }
    }
}

impl Error {
    /// Returns AWS's refusal, where there is one.
    pub fn aws_refusal(&self) -> Option<&AwsRefusal> {
        match self {
            Error::Answer(AnswerError::Refused(refusal)) => Some(refusal),
            Error::Persistent { error, .. } => error.aws_refusal(),
            _ => None,
        }
    }

    /// Returns whether the same request may succeed in a moment.
    pub fn passing(&self) -> bool {
        match self {
            Error::Http(error) => error.passing(),
            error => error.aws_refusal().is_some_and(AwsRefusal::passing),
        }
    }

    /// Returns whether the agent's policy refuses the session: one that is kept must not be used either.
    pub fn refused_by_agent(&self) -> bool {
        match self {
            Error::Agent(error) => error.is_by_policy(),
            Error::Persistent { error, .. } => error.refused_by_agent(),
            _ => false,
        }
    }

    /// Returns what it means for the next try.
    pub(crate) fn setback(&self) -> Setback {
        Setback {
            kind: self.setback_kind(),
            retry_after: self.aws_refusal().and_then(AwsRefusal::retry_after),
        }
    }

    /// Returns who has to do something about it.
    pub fn setback_kind(&self) -> SetbackKind {
        match self {
            Error::Http(error) if error.stage().is_some() => SetbackKind::Unavailable,
            Error::Answer(AnswerError::Refused(refusal)) if refusal.throttled() => {
                SetbackKind::Throttled
            }
            Error::Answer(AnswerError::Refused(refusal)) if !refusal.passing() => {
                SetbackKind::Refused
            }
            Error::Answer(_) => SetbackKind::Unavailable,
            Error::Persistent { error, .. } => error.setback_kind(),
            Error::Elsewhere { kind, .. } => *kind,
            Error::Target(_)
            | Error::Agent(_)
            | Error::Http(_)
            | Error::Cache(_)
            | Error::Lost
            | Error::Pending => SetbackKind::Local,
        }
    }

    /// Returns this error with the number of tries.
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
