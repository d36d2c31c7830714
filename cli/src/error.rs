//! Why a command failed, whichever layer it was.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;

use crate::agent::AgentError;
use crate::aws_setup::AwsSetupError;
use crate::cache::CacheError;
use crate::credentials::AnswerError;
use crate::credentials_file::{FileError, ProfileName};
use crate::exec::ExecError;
use crate::exit::Exit;
use crate::http::HttpError;
use crate::inspect::InspectError;
use crate::serve::ServeError;
use crate::status::StatusError;
use crate::target::TargetError;
use crate::trust_policy::TrustPolicyError;

/// Each message is complete: it names its causes itself, and after a line break what to do.
#[derive(Debug, Error)]
pub(crate) enum Error {
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
    #[error(transparent)]
    File(#[from] FileError),
    /// Why a profile of the credentials file got no session.
    #[error("profile {profile}: {error}")]
    Profile {
        profile: ProfileName,
        error: Arc<Error>,
    },
    #[error("cannot keep the credentials file fresh: {0}")]
    Update(io::Error),
    /// More than one try ended like the last.
    #[error("{error}\nTried {tries} times.")]
    Persistent { error: Box<Error>, tries: u32 },
    /// What others who waited for the same session got as well.
    #[error(transparent)]
    Shared(Arc<Error>),
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
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error(transparent)]
    Exec(#[from] ExecError),
    #[error(transparent)]
    Status(#[from] StatusError),
    #[error(transparent)]
    Inspect(#[from] InspectError),
    #[error(transparent)]
    TrustPolicy(#[from] TrustPolicyError),
    #[error(transparent)]
    AwsSetup(#[from] AwsSetupError),
    #[error("cannot write the manual to {}: {error}", .directory.display())]
    Manual {
        directory: PathBuf,
        error: io::Error,
    },
    #[error("cannot write to standard output: {0}")]
    Output(#[from] io::Error),
}

impl Error {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Error::Target(_) => Exit::Usage,
            Error::Agent(error) => error.exit(),
            Error::Http(error) => error.exit(),
            Error::Answer(_) => Exit::RefusedByAws,
            Error::Serve(error) => error.exit(),
            Error::Exec(error) => error.exit(),
            Error::Status(error) => error.exit(),
            Error::Inspect(error) => error.exit(),
            Error::TrustPolicy(error) => error.exit(),
            Error::AwsSetup(error) => error.exit(),
            Error::Cache(_)
            | Error::File(_)
            | Error::Update(_)
            | Error::Lost
            | Error::Pending
            | Error::Manual { .. }
            | Error::Output(_) => Exit::Failed,
            Error::Persistent { error, .. } => error.exit(),
            Error::Shared(error) | Error::Profile { error, .. } => error.exit(),
            Error::Elsewhere { exit, .. } => Exit::from_code(*exit),
        }
    }

    /// Whether the same request may succeed in a moment.
    pub(crate) fn passing(&self) -> bool {
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
            Error::Shared(error) => error.refused_by_aws(),
            _ => false,
        }
    }

    /// The same, and how often it was tried.
    pub(crate) fn after(self, tries: u32) -> Error {
        match tries {
            0 | 1 => self,
            tries => Error::Persistent {
                error: Box::new(self),
                tries,
            },
        }
    }
}
