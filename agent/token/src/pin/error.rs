//! Why a PIN cannot be read.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why a PIN cannot be read.
#[derive(Debug, Error)]
pub enum PinError {
    /// Opening or reading failed.
    #[error("cannot read the PIN from {path}: {error}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The file could show the PIN to others.
    #[error(
        "PIN file {path} has mode {mode:04o}, which gives access to others: run `chmod 600 {path}`"
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Not a plain file with one PIN.
    #[error("PIN file {path} {fault}")]
    Unfit {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        fault: &'static str,
    },
    /// systemd passed no credentials.
    #[error(
        "credential {0:?} is not there: systemd has to start this, with LoadCredential={0}:FILE"
    )]
    NoCredential(String),
    /// What systemd passed cannot be used.
    #[error(
        "{error}: mend what the service's LoadCredential={name}: names, then start the service again, since \
         systemd copies credentials only then"
    )]
    UnfitCredential {
        /// Its name.
        name: String,
        /// What is wrong.
        error: Box<PinError>,
    },
    /// No person gave it.
    #[error("{question}: {error}: start again, or name a file or a systemd credential that has it")]
    NotGiven {
        /// What was asked for.
        question: String,
        /// Why there is none.
        error: io::Error,
    },
}
