//! Why a command failed, and what its exit status is.

use thiserror::Error;
use token::TokenError;

/// Why a command failed: what, on what, and what to do.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    /// The arguments are wrong, or do not fit together.
    #[error(transparent)]
    Usage(Fault),
    /// Something was not done.
    #[error(transparent)]
    Failed(Fault),
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

/// `cannot ACTION OBJECT: CAUSE`, and the remedy.
#[derive(Debug, Error)]
#[error("{text}{}", hint.as_ref().map(|hint| format!("\nhint: {hint}")).unwrap_or_default())]
pub(crate) struct Fault {
    text: String,
    hint: Option<String>,
}

impl Failure {
    /// Something was not done.
    pub(crate) fn failed(text: impl Into<String>) -> Failure {
        Failure::Failed(Fault::new(text.into()))
    }

    /// The arguments are at fault.
    pub(crate) fn usage(text: impl Into<String>) -> Failure {
        Failure::Usage(Fault::new(text.into()))
    }

    /// The same, with what to do.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Failure {
        if let Failure::Usage(fault) | Failure::Failed(fault) = &mut self {
            fault.hint = Some(hint.into());
        }
        self
    }
}

impl Fault {
    fn new(text: String) -> Fault {
        Fault { text, hint: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_is_a_line_of_its_own() {
        let failure = Failure::failed("cannot write x: full").hint("free some space");
        assert_eq!(
            failure.to_string(),
            "cannot write x: full\nhint: free some space"
        );
        let told = Failure::Told.hint("no text to add it to");
        assert!(!told.to_string().contains("hint"), "{told}");
    }
}
