//! Sessions that other runs of roleseal may use: one file for each target in a directory of this user's
//! own, in memory, never on a disk. A lock for each target makes those that want the same session at the
//! same time ask for it once.

pub mod directory;
mod entry;

use std::io::{self, Seek, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use files::Unlocked;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::diagnostic::Diagnostic;
use crate::environment::Environment;
use crate::exit::Exit;
use crate::progress::Progress;
use crate::refresh_policy::{Schedule, SetbackKind};
use crate::session::Session;

/// The directory, held open: whoever replaces it later replaces nothing for us.
#[derive(Debug)]
pub struct Cache {
    directory: OwnedFd,
    path: PathBuf,
}

/// The only right to ask for a target's session, among the processes of this user.
#[derive(Debug)]
pub(crate) struct Lock {
    held: files::Lock,
    /// Another process had it first.
    waited: bool,
}

/// Why there is no session of another run.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "each message says it")]
pub enum CacheError {
    #[error("{} is not used to keep sessions: {fault}", .path.display())]
    Refused { path: PathBuf, fault: String },
    #[error("cannot keep sessions in {}: {error}", .path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error(
        "another roleseal has been requesting the same session for {} s and does not end", .waited.as_secs()
    )]
    Busy { path: PathBuf, waited: Duration },
}

impl Diagnostic for CacheError {
    fn exit(&self) -> Exit {
        Exit::Failed
    }

    fn hint(&self) -> Option<String> {
        match self {
            CacheError::Busy { path, .. } => {
                Some(format!("\"fuser {}\" shows its process", path.display()))
            }
            CacheError::Refused { .. } | CacheError::Io { .. } => None,
        }
    }
}

impl Cache {
    /// The cache of this user or service, where there is one. It never stops anybody's work.
    pub fn usual(environment: &Environment, progress: &Progress) -> Option<Cache> {
        Cache::open(&environment.runtime_directory()?).unwrap_or_else(|error| {
            progress.warn(&error);
            None
        })
    }

    /// The cache below a user's or a service's runtime directory. `None` where that is not there, or is
    /// not in memory.
    pub(crate) fn open(runtime_directory: &Path) -> Result<Option<Cache>, CacheError> {
        let path = runtime_directory.join(directory::NAME);
        let directory = directory::open(runtime_directory, &path)?;
        Ok(directory.map(|directory| Cache { directory, path }))
    }

    /// The session of a target that is kept, whatever its age. What cannot be read is dropped.
    pub(crate) fn load(&self, key: &str) -> Option<Session> {
        entry::load(&self.directory, key)
    }

    /// Keeps a session in the place of an earlier one.
    pub(crate) fn store(&self, key: &str, session: &Session) -> Result<(), CacheError> {
        entry::store(&self.directory, key, session).map_err(|error| self.io(error))
    }

    /// Notes that the agent was asked at that time whether this user may have the session. Where that cannot be
    /// written, it is asked again.
    pub(crate) fn note_check(&self, key: &str, at: Timestamp) {
        let _ = entry::note_check(&self.directory, key, at);
    }

    /// Drops the session of a target.
    pub(crate) fn remove(&self, key: &str) {
        entry::remove(&self.directory, key);
    }

    /// Waits for the lock, until the deadline.
    pub(crate) fn lock(&self, key: &str, deadline: Instant) -> Result<Lock, CacheError> {
        let name = format!("{key}.lock");
        let begin = Instant::now();
        let lock = files::Lock::take(&self.directory, &name, deadline, Unlocked::Kept)
            .map_err(|error| self.io(error))?;
        let Some(lock) = lock else {
            return Err(CacheError::Busy {
                path: self.path.join(name),
                waited: begin.elapsed(),
            });
        };
        directory::check_own(lock.file()).map_err(|error| self.io(error))?;
        let waited = lock.waited();
        Ok(Lock { held: lock, waited })
    }

    fn io(&self, error: impl Into<io::Error>) -> CacheError {
        CacheError::Io {
            path: self.path.clone(),
            error: error.into(),
        }
    }
}

/// What a process that failed leaves in its lock file, for those that waited for it, and for those that can do without
/// a new session for a while.
#[derive(Debug, Serialize, Deserialize)]
pub struct Failure {
    pub(crate) at: Timestamp,
    /// Its exit code.
    pub(crate) exit: u8,
    pub(crate) message: String,
    #[serde(default)]
    pub(crate) hint: Option<String>,
    pub(crate) kind: SetbackKind,
    /// Of all tries since the last session.
    pub(crate) schedule: Schedule,
    /// The next try is due.
    pub(crate) next: Timestamp,
}

impl Failure {
    /// Whether the next try is not yet due.
    pub(crate) fn is_recent(&self) -> bool {
        (self.at..self.next).contains(&Timestamp::now())
    }
}

/// A message has some hundred bytes.
const FAILURE_LIMIT: u64 = 16 * 1024;

impl Lock {
    /// How the process that had the lock before failed, if that was since `begin`: to ask at once again
    /// would only multiply what AWS has just refused.
    pub(crate) fn failure_since(&mut self, begin: Timestamp) -> Option<Failure> {
        if !self.waited {
            return None;
        }
        self.last_failure().filter(|failure| failure.at >= begin)
    }

    /// How the last try failed, if it did.
    pub(crate) fn last_failure(&mut self) -> Option<Failure> {
        let mut text = Vec::new();
        self.held.file().rewind().ok()?;
        files::read_to(self.held.file(), FAILURE_LIMIT, &mut text).ok()?;
        let failure: Failure = serde_json::from_slice(&text).ok()?;
        // One from after now was left by a clock that has been set back since, and tells nothing.
        (failure.at <= Timestamp::now()).then_some(failure)
    }

    /// Forgets failures: there is a session.
    pub(crate) fn clear(&mut self) {
        let _ = self.held.file().set_len(0); // an old failure only delays a try
    }

    /// Leaves how this process failed. Where that cannot be written, the others ask for themselves.
    pub(crate) fn leave(&mut self, failure: &Failure) {
        let mut file = self.held.file();
        let mut write = || -> io::Result<()> {
            file.rewind()?;
            file.set_len(0)?;
            file.write_all(&serde_json::to_vec(failure)?)
        };
        let _ = write();
    }
}

#[cfg(test)]
mod tests;
