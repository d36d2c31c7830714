//! The shared credentials file of AWS's tools: any number of runs may write to it at once and be killed at
//! any moment, and it is whole, with everything in it that is not theirs.

mod ini;
mod lock;
mod place;
mod profile;
mod replace;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use client::Diagnostic;
use client::exit::Exit;
use client::session::Session;
use files::PlaceError;
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;

pub(crate) use profile::{ProfileFault, ProfileName};

/// A credentials file, which need not be there yet.
#[derive(Debug)]
pub(crate) struct CredentialsFile {
    path: PathBuf,
    /// Overwrite keys that roleseal has not written.
    force: bool,
}

/// Why a credentials file is as it was.
#[derive(Debug, Error)]
pub(crate) enum FileError {
    #[error("cannot {doing} {}: {error}", .path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        error: io::Error,
    },
    #[error("{} {fault}", .path.display())]
    Refused { path: PathBuf, fault: String },
    #[error("{}: {fault}", .path.display())]
    Profile { path: PathBuf, fault: ProfileFault },
    #[error(
        "another roleseal has been writing to {} for {} s and does not end", .path.display(), .waited.as_secs()
    )]
    Busy {
        path: PathBuf,
        lock: PathBuf,
        waited: Duration,
    },
    #[error("somebody else writes to {} all the time", .path.display())]
    Restless { path: PathBuf },
    #[error("cannot write {}: {error}", .path.display())]
    Strange { path: PathBuf, error: PlaceError },
}

impl Diagnostic for FileError {
    fn exit(&self) -> Exit {
        Exit::Failed
    }

    fn hint(&self) -> Option<String> {
        match self {
            FileError::Profile { fault, .. } => fault.hint(),
            FileError::Busy { lock, .. } => {
                Some(format!("\"fuser {}\" shows its process", lock.display()))
            }
            FileError::Strange { error, .. } => error.hint(),
            FileError::Io { .. } | FileError::Refused { .. } | FileError::Restless { .. } => None,
        }
    }
}

/// How often an edit begins anew because another program, which knows no lock of ours, has changed the file.
const EDITS: u32 = 10;

impl CredentialsFile {
    pub(crate) fn new(path: PathBuf, force: bool) -> CredentialsFile {
        CredentialsFile { path, force }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether these profiles may be written, before anything is done for it. Returns what is worth a
    /// warning.
    pub(crate) fn check<'p>(
        &self,
        profiles: impl IntoIterator<Item = &'p ProfileName>,
    ) -> Result<Option<String>, FileError> {
        let old = replace::read(&place::find(&self.path)?)?;
        for profile in profiles {
            profile::vet(old.text.expose_secret(), profile, self.force)
                .map_err(|fault| self.profile(fault))?;
        }
        let open = old.mode().filter(|mode| mode & 0o007 != 0);
        Ok(open.map(|mode| {
            let path = self.path.display();
            format!("every user of this host may use {path}, its mode is {mode:04o}: chmod 600")
        }))
    }

    /// Writes the sessions into their profiles, all at once.
    pub(crate) fn put<'s>(
        &self,
        sessions: impl IntoIterator<Item = (&'s ProfileName, &'s Session)> + Clone,
    ) -> Result<(), FileError> {
        self.edit(|text| {
            let mut edited = SecretString::from(text);
            for (profile, session) in sessions.clone() {
                profile::vet(edited.expose_secret(), profile, self.force)?;
                edited =
                    profile::put(edited.expose_secret(), profile, &session.credentials)?.into();
            }
            Ok(Some(edited))
        })
        .map(|_| ())
    }

    /// Takes the credentials out of a profile if roleseal wrote them there and they end before `end`. Tells
    /// whether there were such.
    pub(crate) fn withdraw(
        &self,
        profile: &ProfileName,
        end: Timestamp,
    ) -> Result<bool, FileError> {
        self.edit(|text| {
            let edited = profile::withdraw(text, profile, end)?;
            Ok(edited.map(SecretString::from))
        })
    }

    /// Tells whether there was something to change.
    fn edit(
        &self,
        change: impl Fn(&str) -> Result<Option<SecretString>, ProfileFault>,
    ) -> Result<bool, FileError> {
        let place = place::find(&self.path)?;
        let _lock = lock::lock(&place)?;
        replace::sweep(&place)
            .map_err(|error| FileError::io("clean up beside", &place.path, error))?;
        for _ in 0..EDITS {
            let old = replace::read(&place)?;
            let text = old.text.expose_secret();
            let edited = change(text).map_err(|fault| self.profile(fault))?;
            let Some(edited) = edited.filter(|edited| edited.expose_secret() != text) else {
                return Ok(false);
            };
            if replace::replace(&place, &old, &edited)? {
                return Ok(true);
            }
        }
        Err(FileError::Restless {
            path: self.path.clone(),
        })
    }

    fn profile(&self, fault: ProfileFault) -> FileError {
        FileError::Profile {
            path: self.path.clone(),
            fault,
        }
    }
}

impl FileError {
    fn io(doing: &'static str, path: &Path, error: impl Into<io::Error>) -> FileError {
        FileError::Io {
            doing,
            path: path.to_owned(),
            error: error.into(),
        }
    }

    fn strange(path: &Path, error: PlaceError) -> FileError {
        FileError::Strange {
            path: path.to_owned(),
            error,
        }
    }

    fn refused(path: &Path, fault: &str) -> FileError {
        FileError::Refused {
            path: path.to_owned(),
            fault: fault.to_owned(),
        }
    }
}
