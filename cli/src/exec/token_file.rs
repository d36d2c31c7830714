//! The endpoint's token in a file, for tools that read it from nowhere else (Rust's object_store).

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};

/// A file for this user only; removed when dropped.
pub(super) struct TokenFile(PathBuf);

impl TokenFile {
    /// A new one in a directory that others may write to: its name is of no file before, and cannot be guessed.
    pub(super) fn create(directory: &Path, token: &SecretString) -> io::Result<TokenFile> {
        let name = format!("roleseal-exec.{:016x}.token", fastrand::u64(..));
        let path = directory.join(name);
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        let created = TokenFile(path);
        file.write_all(token.expose_secret().as_bytes())?;
        Ok(created)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TokenFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0); // somebody else may have done it
    }
}
