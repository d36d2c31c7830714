//! What is wrong with a configuration.

use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why a configuration is refused.
#[derive(Debug, Error)]
#[error("{path}{line}: {message}", path = path.display(), line = line.map(|n| format!(":{n}")).unwrap_or_default())]
pub struct ConfigError {
    pub(crate) path: PathBuf,
    pub(crate) line: Option<usize>,
    pub(crate) message: String,
    pub(crate) lookup_failed: bool,
}

impl ConfigError {
    pub(crate) fn new(path: &Path, message: String) -> ConfigError {
        ConfigError {
            path: path.to_owned(),
            line: None,
            message,
            lookup_failed: false,
        }
    }

    /// Whether the same file may be accepted later: the user database did not answer.
    pub fn may_pass(&self) -> bool {
        self.lookup_failed
    }
}

/// What is wrong with the content of a configuration.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The file has to be corrected.
    Invalid(String),
    /// The user database did not answer.
    Lookup(String),
}

impl From<String> for Fault {
    fn from(message: String) -> Fault {
        Fault::Invalid(message)
    }
}

impl Fault {
    pub(crate) fn of_identity(self, name: &str) -> Fault {
        let named = |message| format!("identity {name:?}: {message}");
        match self {
            Fault::Invalid(message) => Fault::Invalid(named(message)),
            Fault::Lookup(message) => Fault::Lookup(named(message)),
        }
    }
}
