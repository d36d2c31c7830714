//! A Unix socket at a path: bound with its mode, in the place of one where nobody listens.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

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
    clear(path)?;
    bind_with_mode(path, mode).map_err(|error| ListenError::Io(path.to_owned(), error))
}

/// Makes room at `path`: removes a socket where nobody listens.
fn clear(path: &Path) -> Result<(), ListenError> {
    match fs::symlink_metadata(path) {
        Err(_) => Ok(()), // nothing there; or bind says what is wrong
        Ok(metadata) if !metadata.file_type().is_socket() => {
            Err(ListenError::NotASocket(path.to_owned()))
        }
        Ok(_) => match UnixStream::connect(path) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                fs::remove_file(path).map_err(|error| ListenError::Io(path.to_owned(), error))
            }
            // Also one that we may not connect to: somebody is there.
            _ => Err(ListenError::Taken(path.to_owned())),
        },
    }
}

/// Binds under another name first: the socket has its mode before anybody can see it.
fn bind_with_mode(path: &Path, mode: u32) -> io::Result<UnixListener> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let temporary = path.with_file_name(name);
    let _ = fs::remove_file(&temporary); // of an agent of the same number that was killed
    let socket = UnixListener::bind(&temporary)?;
    fs::set_permissions(&temporary, fs::Permissions::from_mode(mode))
        .and_then(|()| fs::rename(&temporary, path))
        .inspect_err(|_| {
            let _ = fs::remove_file(&temporary); // the first error is the one to tell
        })?;
    Ok(socket)
}
