//! A lock on SoftHSM's tokens, and whether one of them is hidden.
//!
//! SoftHSM 2.6 writes `token.object` anew at each `C_Login`, in place: it locks the file, truncates it, unlocks it, and
//! only then writes. For a moment other processes read an empty file: they see no token, or one without a user PIN. All
//! programs of roleseal therefore start the module, look at its slots and log in under a lock of their own.
//!
//! The lock is flock(2) on the directory of each token. SoftHSM creates them with mode 0700: exactly those who can log in
//! can lock them, nothing has to be created, and a process that dies leaves no lock behind. SoftHSM's own locks are
//! fcntl(2)'s, on files. Nobody waits for the lock without end, and no failure of it is an error: it prevents a race that
//! programs of others can cause all the same.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{Access, FlockOperation, access, flock};
use rustix::rand::{GetRandomFlags, getrandom};
use token::softhsm;

/// The directory of SoftHSM's tokens.
pub(crate) struct Store(PathBuf);

/// The lock, until it is dropped.
pub(crate) struct Lock(#[expect(dead_code, reason = "their descriptors are the lock")] Vec<File>);

/// How long the lock is waited for: thirty logins on a busy machine, and three such waits within the daemon's limit for
/// opening a token.
const LOCK_LIMIT: Duration = Duration::from_secs(8);

/// The longest pause between two tries for the lock.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// More tokens than this are not locked: each takes a descriptor.
const LOCKED_LIMIT: usize = 256;

/// The file of a token that SoftHSM writes at each login.
const TOKEN_OBJECT: &str = "token.object";

impl Store {
    /// The store, where SoftHSM's module is loaded: as itself, or behind another module.
    pub(crate) fn in_process() -> Option<Store> {
        let mapped = fs::read_to_string("/proc/self/maps").ok()?;
        let mut paths = mapped
            .lines()
            .filter_map(|line| line.get(line.find('/')?..));
        paths
            .any(|path| softhsm::is_module(Path::new(path)))
            .then(Store::configured)?
    }

    /// The store that the configuration names.
    pub(crate) fn configured() -> Option<Store> {
        softhsm::store(env::var_os(softhsm::VARIABLE).as_deref()).map(Store)
    }

    /// Locks all tokens that this user can read, or those that are free within [`LOCK_LIMIT`].
    pub(crate) fn lock(&self) -> Lock {
        self.lock_within(LOCK_LIMIT)
    }

    fn lock_within(&self, limit: Duration) -> Lock {
        let until = Instant::now() + limit;
        let mut locked = Vec::new();
        // In one order for all: nobody waits for a lock of whoever waits for theirs.
        for token in self.tokens().iter().take(LOCKED_LIMIT) {
            let Ok(directory) = File::open(token) else {
                continue;
            };
            while flock(&directory, FlockOperation::NonBlockingLockExclusive).is_err()
                && Instant::now() < until
            {
                thread::sleep(jittered(LOCK_PAUSE));
            }
            locked.push(directory);
        }
        Lock(locked)
    }

    /// How many tokens there are that this user can read.
    pub(crate) fn token_count(&self) -> usize {
        self.tokens().len()
    }

    /// Where they are.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    fn tokens(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.0).into_iter().flatten().flatten();
        let mut tokens: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        tokens.retain(|token| access(token.join(TOKEN_OBJECT), Access::READ_OK).is_ok());
        tokens.sort();
        tokens
    }
}

/// Between half of it and all of it, so that those who wait do not meet again.
pub(crate) fn jittered(longest: Duration) -> Duration {
    let mut random = [0];
    let _ = getrandom(&mut random, GetRandomFlags::empty()); // without it, all wait half of it
    let [random] = random;
    longest / 2 + longest / 2 * u32::from(random) / 255
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        for token in ["a", "b"] {
            fs::create_dir(directory.path().join(token)).unwrap();
            fs::write(directory.path().join(token).join(TOKEN_OBJECT), "").unwrap();
        }
        fs::create_dir(directory.path().join("other")).unwrap();
        let store = Store(directory.path().to_owned());
        (directory, store)
    }

    fn is_free(store: &Store, token: &str) -> bool {
        let directory = File::open(store.path().join(token)).unwrap();
        flock(&directory, FlockOperation::NonBlockingLockExclusive).is_ok()
    }

    #[test]
    fn each_token_is_locked_and_nothing_is_left() {
        let (_directory, store) = store();
        assert_eq!(store.token_count(), 2);
        let lock = store.lock();
        assert!(!is_free(&store, "a") && !is_free(&store, "b"));
        assert!(is_free(&store, "other"));
        drop(lock);
        assert!(is_free(&store, "a") && is_free(&store, "b"));
    }

    #[test]
    fn a_lock_that_somebody_keeps_is_no_error() {
        let (_directory, store) = store();
        let kept = File::open(store.path().join("a")).unwrap();
        flock(&kept, FlockOperation::LockExclusive).unwrap();
        let _lock = store.lock_within(Duration::from_millis(1));
        assert!(!is_free(&store, "b"));
        assert_eq!(Store(PathBuf::from("/nowhere")).token_count(), 0);
        drop(Store(PathBuf::from("/nowhere")).lock());
    }

    #[test]
    fn pauses_differ_within_their_bounds() {
        let longest = Duration::from_millis(100);
        let pauses: Vec<Duration> = (0..64).map(|_| jittered(longest)).collect();
        assert!(
            pauses
                .iter()
                .all(|pause| (longest / 2..=longest).contains(pause))
        );
        assert!(pauses.iter().any(|pause| Some(pause) != pauses.first()));
    }
}
