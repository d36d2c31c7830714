//! A Unix socket at a path: bound with its mode, in the place of one where nobody listens.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use thiserror::Error;

/// Why a socket is not bound.
#[derive(Debug, Error)]
pub enum BindError {
    /// Another program listens there.
    #[error("another program listens there")]
    Taken,
    /// A file, a link or a directory is there.
    #[error("not a socket")]
    NotASocket,
    /// The system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Binds `path`, in the place of a socket where nobody listens.
pub fn bind(path: &Path, mode: u32) -> Result<UnixListener, BindError> {
    match fs::symlink_metadata(path) {
        Err(_) => {} // nothing there; or the next call says what is wrong
        Ok(metadata) if !metadata.file_type().is_socket() => return Err(BindError::NotASocket),
        Ok(_) => match UnixStream::connect(path) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path)?,
            // Also one that this user may not connect to.
            _ => return Err(BindError::Taken),
        },
    }
    Ok(bind_with_mode(path, mode)?)
}

/// Binds under another name first: the socket has its mode before any other process can see it.
fn bind_with_mode(path: &Path, mode: u32) -> io::Result<UnixListener> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let temporary = path.with_file_name(name);
    let _ = fs::remove_file(&temporary); // of a killed process of the same number
    let socket = UnixListener::bind(&temporary)?;
    fs::set_permissions(&temporary, fs::Permissions::from_mode(mode))
        .and_then(|()| fs::rename(&temporary, path))
        .inspect_err(|_| {
            let _ = fs::remove_file(&temporary); // the first error is the one to return
        })?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_socket_without_a_listener_is_replaced() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("socket");
        let listener = bind(&path, 0o660).unwrap();
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        assert!(matches!(bind(&path, 0o660), Err(BindError::Taken)));
        drop(listener);
        bind(&path, 0o600).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "").unwrap();
        assert!(matches!(bind(&path, 0o600), Err(BindError::NotASocket)));
        let absent = place.path().join("absent/socket");
        assert!(matches!(bind(&absent, 0o600), Err(BindError::Io(_))));
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
    }
}
