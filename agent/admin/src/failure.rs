//! Why a command failed, and what its exit status is.

use thiserror::Error;
use token::TokenError;

/// Why a command failed: what, on what, and what to do.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    /// The arguments are wrong, or do not fit together.
    #[error("{0}")]
    Usage(String),
    /// Something was not done.
    #[error("{0}")]
    Failed(String),
    /// A token program's word.
    #[error(transparent)]
    Token(TokenError),
    /// Something was not done, and its reason has been printed.
    #[error("failed")]
    Told,
    /// A signal ended it.
    #[error("ended by signal {0}")]
    Interrupted(i32),
}

impl Failure {
    /// Something was not done.
    pub(crate) fn failed(text: impl Into<String>) -> Failure {
        Failure::Failed(text.into())
    }

    /// The arguments are at fault.
    pub(crate) fn usage(text: impl Into<String>) -> Failure {
        Failure::Usage(text.into())
    }
}
