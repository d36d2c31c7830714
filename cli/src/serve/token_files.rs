//! The files from which a client takes the token of a target: for this user only. A token stays the same
//! until the directory goes, so that clients outlive a restart of the server.

use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use client::cache::directory;
use client::progress::Progress;
use files::{NewFile, Storage};
use secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};
use thiserror::Error;

use crate::endpoint::Secret;

/// The directory with the files.
pub(super) struct TokenFiles {
    directory: OwnedFd,
    path: PathBuf,
}

/// Why there is no token file.
#[derive(Debug, Error)]
pub(crate) enum TokenFileError {
    #[error(
        "there is no directory for token files: neither $XDG_RUNTIME_DIR nor $RUNTIME_DIRECTORY is set"
    )]
    NoDirectory,
    #[error("{} is not used for token files: {fault}", .path.display())]
    Refused { path: PathBuf, fault: String },
    #[error("cannot keep the token file {}: {error}", .path.display())]
    Io { path: PathBuf, error: io::Error },
}

impl TokenFileError {
    pub(super) fn hint(&self) -> Option<String> {
        match self {
            TokenFileError::NoDirectory => Some("name one with --token-directory".to_owned()),
            TokenFileError::Refused { .. } | TokenFileError::Io { .. } => None,
        }
    }
}

impl TokenFiles {
    /// Below this directory, in one of ours.
    pub(super) fn open(parent: Option<PathBuf>) -> Result<TokenFiles, TokenFileError> {
        let parent = parent.ok_or(TokenFileError::NoDirectory)?;
        let path = parent.join(directory::NAME);
        let opened = directory::open_parent(&parent)
            .map_err(directory::OpenError::Io)
            .and_then(|parent| directory::open_below(&parent));
        match opened {
            Ok(directory) => Ok(TokenFiles { directory, path }),
            Err(error) => Err(TokenFileError::Refused {
                path,
                fault: error.to_string(),
            }),
        }
    }

    /// The token of a target, and the file that it is in.
    pub(super) fn secret(
        &self,
        target: &str,
        log: &Progress,
    ) -> Result<(SecretString, PathBuf), TokenFileError> {
        let name = format!("{target}.token");
        let path = self.path.join(&name);
        match self.read_or_create(&name, log) {
            Ok(secret) => Ok((secret, path)),
            Err(error) => Err(TokenFileError::Io { path, error }),
        }
    }

    fn read_or_create(&self, name: &str, log: &Progress) -> io::Result<SecretString> {
        match self.read(name) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                directory::remove(&self.directory, name)?;
                let path = self.path.join(name);
                log.warn(&format!("{} holds no token: replaced", path.display()));
            }
            outcome => return outcome,
        }
        match self.create(name) {
            // Another server was faster.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => self.read(name),
            outcome => outcome,
        }
    }

    fn read(&self, name: &str) -> io::Result<SecretString> {
        let mut text = Zeroizing::new(Vec::new());
        let file = directory::open_to_read(&self.directory, name)?;
        match files::read_to(file, LIMIT, &mut text) {
            Err(error) if error.kind() == ErrorKind::FileTooLarge => {
                return Err(ErrorKind::InvalidData.into());
            }
            read => read?,
        }
        // An editor or `echo` adds a line break.
        match str::from_utf8(&text).map(str::trim_ascii) {
            Ok(token) if Secret::is_well_formed(token.as_bytes()) => Ok(token.into()),
            _ => Err(ErrorKind::InvalidData.into()),
        }
    }

    /// A reader sees all of it or nothing.
    fn create(&self, name: &str) -> io::Result<SecretString> {
        let secret = Secret::random()?;
        let mut new = NewFile::begin(&self.directory, format!("{name}.new."))?;
        new.write(secret.expose_secret().as_bytes())?;
        new.put(name, Storage::Memory)?;
        Ok(secret)
    }
}

/// More than any token.
const LIMIT: u64 = 1024;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_token_is_its_users_alone_and_stays_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let files = TokenFiles::open(Some(dir.path().to_owned())).unwrap();
        let (secret, path) = files.secret("web", &Progress::quiet()).unwrap();
        assert_eq!(path, dir.path().join("roleseal/web.token"));
        assert_eq!(fs::read_to_string(&path).unwrap(), secret.expose_secret()); // no line break
        let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(path.as_path()), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);

        let again = TokenFiles::open(Some(dir.path().to_owned())).unwrap();
        let same = again.secret("web", &Progress::quiet()).unwrap().0;
        assert_eq!(same.expose_secret(), secret.expose_secret());
        fs::write(&path, format!("{}\r\n", secret.expose_secret())).unwrap();
        let with_line_break = again.secret("web", &Progress::quiet()).unwrap().0;
        assert_eq!(with_line_break.expose_secret(), secret.expose_secret());
        let other = again.secret("batch", &Progress::quiet()).unwrap().0;
        assert_ne!(other.expose_secret(), secret.expose_secret());
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 2);
    }

    #[test]
    fn what_is_no_token_is_replaced_and_what_others_can_read_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let files = TokenFiles::open(Some(dir.path().to_owned())).unwrap();
        let (_, path) = files.secret("web", &Progress::quiet()).unwrap();
        fs::write(&path, "").unwrap();
        let (secret, _) = files.secret("web", &Progress::quiet()).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), secret.expose_secret());

        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = files
            .secret("web", &Progress::quiet())
            .unwrap_err()
            .to_string();
        assert!(error.contains("web.token"), "{error}");
        fs::remove_file(&path).unwrap();
        symlink("/dev/null", &path).unwrap();
        assert!(files.secret("web", &Progress::quiet()).is_err());

        let ours = dir.path().join("roleseal");
        fs::set_permissions(&ours, fs::Permissions::from_mode(0o755)).unwrap();
        let refused = TokenFiles::open(Some(dir.path().to_owned())).err().unwrap();
        assert!(refused.to_string().contains("chmod 700"), "{refused}");
        let none = TokenFiles::open(None).err().unwrap();
        assert!(none.hint().unwrap().contains("--token-directory"), "{none}");
    }
}
