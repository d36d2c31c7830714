//! A Unix socket at a path: bound with its mode, in the place of one where nobody listens.

use std::io;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use files::BindError;
use thiserror::Error;

/// Why nobody can connect.
#[derive(Debug, Error)]
pub enum ListenError {
    /// Another agent is there.
    #[error("another agent listens at {0}: stop it, or configure another socket")]
    Taken(PathBuf),
    /// What is there is not a socket.
    #[error("{0} exists and is not a socket: remove it, or configure another socket")]
    NotASocket(PathBuf),
    /// The system refused.
    #[error("cannot listen at {0}: {1}; its directory must exist and be writable for this user")]
    Io(PathBuf, #[source] io::Error),
    /// systemd passed something else.
    #[error(
        "the socket from systemd cannot be used: {0}; it must be one ListenStream= Unix socket"
    )]
    Activation(#[source] io::Error),
}

/// Binds `path`, in the place of a socket where nobody listens.
pub(crate) fn bind_at(path: &Path, mode: u32) -> Result<UnixListener, ListenError> {
    let place = path.to_owned();
    files::bind(path, mode).map_err(|error| match error {
        BindError::Taken => ListenError::Taken(place),
        BindError::NotASocket => ListenError::NotASocket(place),
        BindError::Io(error) => ListenError::Io(place, error),
    })
}
