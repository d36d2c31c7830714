//! Why a command failed, whichever layer it was.

use std::io;

use thiserror::Error;

use crate::agent::AgentError;
use crate::credentials::AnswerError;
use crate::exit::Exit;
use crate::http::HttpError;

/// Each message is complete: it names its causes itself, and after a line break what to do.
#[derive(Debug, Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Agent(#[from] AgentError),
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error(transparent)]
    Answer(#[from] AnswerError),
    #[error("cannot write to standard output: {0}")]
    Output(#[from] io::Error),
}

impl Error {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Error::Agent(error) => error.exit(),
            Error::Http(error) => error.exit(),
            Error::Answer(_) => Exit::RefusedByAws,
            Error::Output(_) => Exit::Failed,
        }
    }
}
