//! The keys of the cluster: read by a thread of their own, and used for as long as no others can be read.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use client::Diagnostic;
use client::http::{Http, HttpError};
use client::input;
use client::progress::Progress;
use client::target::Route;
use files::trust::{self, Untrusted};
use secrecy::{ExposeSecret, SecretString};
use service_account::{KEY_SET_LIMIT, KeySet, KeySetError, Pace, Refresh, TOKEN_LIMIT};
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::timeout;

use super::super::health::{KeysHealth, State as HealthState};

/// Where the keys of a cluster are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeySource {
    /// A file that an administrator keeps.
    File(PathBuf),
    /// The API server, or another.
    Server {
        url: String,
        /// `None` for the system's.
        ca_bundle: Option<PathBuf>,
        /// The token to show.
        token_file: Option<PathBuf>,
    },
}

/// The keys of a cluster, until this is dropped.
pub(crate) struct Keys(Arc<Inner>);

struct Inner {
    source: KeySource,
    log: Progress,
    state: Mutex<State>,
    changed: Condvar,
    /// Something changes after each read.
    reads: watch::Sender<()>,
    waiting: AtomicUsize,
}

struct State {
    keys: Option<Arc<KeySet>>,
    refresh: Refresh,
    reading: bool,
    failure: Option<String>,
    stop: bool,
}

#[derive(Debug, Error)]
enum KeysError {
    #[error("{0}")]
    Untrusted(String),
    #[error("{0}")]
    Unreadable(io::Error),
    #[error("cannot read the token {}: {error}", .path.display())]
    Token { path: PathBuf, error: io::Error },
    #[error("{0}")]
    Http(#[from] HttpError),
    #[error("HTTP status {0}")]
    Status(u16),
    #[error("{0}")]
    Set(#[from] KeySetError),
}

/// Of a file: reading one costs nothing.
const FILE_PACE: Pace = Pace {
    at_least: Duration::from_secs(1),
    usual: Duration::from_secs(10),
    after_failures: Duration::from_secs(10),
};

/// Of the API server, which has some thousand nodes to answer.
const SERVER_PACE: Pace = Pace {
    at_least: Duration::from_secs(10),
    usual: Duration::from_secs(600),
    after_failures: Duration::from_secs(60),
};

/// Of a set with other keys only, or with none.
const NONE_USABLE: &str = "no key for RS256 (RSA of 2048 bits or more) or ES256 (P-256) with an id";

/// For the API server's whole answer.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// For who waits for that.
const WAIT_TIMEOUT: Duration = Duration::from_secs(6);

/// Requests that may wait at once: each holds a connection, and anybody can make up a key id.
const WAITING: usize = 64;

impl KeySource {
    fn pace(&self) -> Pace {
        match self {
            KeySource::File(_) => FILE_PACE,
            KeySource::Server { .. } => SERVER_PACE,
        }
    }

    fn shown(&self) -> String {
        match self {
            KeySource::File(path) => path.display().to_string(),
            KeySource::Server { url, .. } => url.clone(),
        }
    }

    fn read(&self) -> Result<KeySet, KeysError> {
        let set = match self {
            // Who writes it can make tokens.
            KeySource::File(path) => {
                let file = trust::open(path).map_err(|error| match error {
                    Untrusted::Io { error, .. } => KeysError::Unreadable(error),
                    untrusted => KeysError::Untrusted(untrusted.explain()),
                });
                input::read_limited(file?, KEY_SET_LIMIT).map_err(KeysError::Unreadable)?
            }
            KeySource::Server {
                url,
                ca_bundle,
                token_file,
            } => get(url, ca_bundle.as_deref(), token_file.as_deref())?,
        };
        Ok(KeySet::parse(&set)?)
    }
}

/// Kubernetes replaces both files now and then: they are read anew.
fn get(
    url: &str,
    ca_bundle: Option<&Path>,
    token_file: Option<&Path>,
) -> Result<Vec<u8>, KeysError> {
    let token = token_file.map(read_token).transpose()?;
    let route = Route {
        ca_bundle: ca_bundle.map(Path::to_owned),
        proxy: None,
    };
    let answer = Http::new(&route)?.get(url, token.as_ref(), READ_TIMEOUT)?;
    match answer.status {
        200 => Ok(answer.body.expose_secret().to_vec()),
        status => Err(KeysError::Status(status)),
    }
}

fn read_token(path: &Path) -> Result<SecretString, KeysError> {
    let token = input::read_text(path, TOKEN_LIMIT as u64);
    let token = token.map_err(|error| KeysError::Token {
        path: path.to_owned(),
        error,
    })?;
    Ok(SecretString::from(token.trim_ascii()))
}

impl Keys {
    /// Begins to read. Until that succeeds, the `known` keys are in use.
    pub(crate) fn start(
        source: KeySource,
        known: Option<Arc<KeySet>>,
        log: Progress,
    ) -> io::Result<Keys> {
        let (reads, _) = watch::channel(());
        let state = State {
            keys: known,
            refresh: Refresh::new(source.pace()),
            reading: false,
            failure: None,
            stop: false,
        };
        let inner = Arc::new(Inner {
            source,
            log,
            state: Mutex::new(state),
            changed: Condvar::new(),
            reads,
            waiting: AtomicUsize::new(0),
        });
        let keeper = Arc::clone(&inner);
        let thread = thread::Builder::new().name("keys".to_owned());
        thread.spawn(move || keeper.keep())?;
        Ok(Keys(inner))
    }

    pub(crate) fn source(&self) -> &KeySource {
        &self.0.source
    }

    /// The latest keys that could be read; `None` where there are none.
    pub(crate) fn current(&self) -> Option<Arc<KeySet>> {
        let keys = self.0.state().keys.clone();
        keys.filter(|keys| keys.count() > 0)
    }

    /// Has the keys read again for a token whose key is not among them, as soon as that is due. Waits for a read that is
    /// under way or begins now.
    pub(super) async fn read_again(&self) {
        let mut reads = self.0.reads.subscribe();
        let is_soon = {
            let mut state = self.0.state();
            if state.refresh.want() {
                self.0.changed.notify_all();
            }
            state.reading || state.refresh.wait(Instant::now()).is_zero()
        };
        if let Some(_place) = is_soon.then(|| self.0.place()).flatten() {
            let _ = timeout(WAIT_TIMEOUT, reads.changed()).await; // either way, the keys are looked at again
        }
    }

    /// How many there are; none before the first read.
    pub(super) fn count(&self) -> usize {
        self.current().map_or(0, |keys| keys.count())
    }

    /// How it stands with them.
    pub(super) fn health(&self, in_full: bool) -> KeysHealth {
        let state = self.0.state();
        let has_keys = state.keys.as_ref().map(|keys| keys.count() > 0);
        let health = match (has_keys, &state.failure) {
            (Some(false), _) => HealthState::Failing,
            (Some(_), None) => HealthState::Ok,
            (Some(_), Some(_)) => HealthState::Degraded,
            (None, None) => HealthState::Starting,
            (None, Some(_)) => HealthState::Failing,
        };
        KeysHealth {
            state: health,
            count: state.keys.as_ref().map_or(0, |keys| keys.count()),
            error: state.failure.clone().filter(|_| in_full),
        }
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.0.state().stop = true;
        self.0.changed.notify_all();
    }
}

/// One that waits, until this is dropped.
struct Waiting<'k>(&'k AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Inner {
    fn place(&self) -> Option<Waiting<'_>> {
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let place = Waiting(&self.waiting);
        (before < WAITING).then_some(place)
    }

    fn keep(&self) {
        while self.wait_until_due() {
            let outcome = self.source.read();
            self.tell(&outcome);
            let mut state = self.state();
            state.reading = false;
            state
                .refresh
                .note(outcome.is_ok(), Instant::now(), fastrand::f64());
            match outcome {
                Ok(keys) => {
                    state.failure = (keys.count() == 0).then(|| NONE_USABLE.to_owned());
                    state.keys = Some(Arc::new(keys)); // without one, those of before are withdrawn
                }
                Err(error) => state.failure = Some(error.to_string()),
            }
            drop(state);
            self.reads.send_replace(());
        }
    }

    /// A line where something is new.
    fn tell(&self, outcome: &Result<KeySet, KeysError>) {
        let state = self.state();
        let (had, failed) = (state.keys.clone(), state.failure.is_some());
        drop(state);
        let from = self.source.shown();
        match outcome {
            Ok(keys) if keys.count() == 0 => {
                if had.is_none_or(|had| had.count() > 0) {
                    self.log.warn(&format!(
                        "the set of keys from {from} has {NONE_USABLE}; no token is accepted until it has one"
                    ));
                }
            }
            Ok(keys) if failed || had.as_ref().is_none_or(|had| !had.same_ids(keys)) => {
                let count = keys.count();
                self.log
                    .say(&format!("keys of the cluster: {count}, from {from}"));
            }
            Err(error) if !failed => {
                let until = match had {
                    Some(had) if had.count() > 0 => "those at hand are used until it can",
                    _ => "no token is accepted until it can",
                };
                let hint = match error {
                    KeysError::Http(error) => error.hint(),
                    _ => None,
                };
                let hint = hint
                    .map(|hint| format!("\nhint: {hint}"))
                    .unwrap_or_default();
                self.log.warn(&format!(
                    "cannot read the keys of the cluster from {from}: {error}; {until}{hint}"
                ));
            }
            Ok(_) | Err(_) => {}
        }
    }

    /// `false` to stop.
    fn wait_until_due(&self) -> bool {
        let mut state = self.state();
        loop {
            if state.stop {
                return false;
            }
            let left = state.refresh.wait(Instant::now());
            if left.is_zero() {
                state.refresh.begin();
                state.reading = true;
                return true;
            }
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const JWKS: &str = r#"{ "keys": [{ "kty": "EC", "crv": "P-256", "kid": "one",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0" }] }"#; // RFC 7515, A.3

    fn until(what: &str, is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !is_so() {
            assert!(Instant::now() < deadline, "{what}");
            thread::yield_now();
        }
    }

    #[test]
    fn a_set_without_keys_withdraws_them_and_an_unreadable_one_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().canonicalize().unwrap().join("jwks.json");
        let start =
            |known| Keys::start(KeySource::File(path.clone()), known, Progress::quiet()).unwrap();
        let state = |keys: &Keys| keys.health(true).state;
        fs::write(&path, JWKS).unwrap();
        let keys = start(None);
        until("they are read", || keys.current().is_some());
        let known = keys.current();
        let again = || {
            if keys.0.state().refresh.want() {
                keys.0.changed.notify_all();
            }
        };
        fs::write(&path, "{").unwrap();
        again();
        until("it fails", || state(&keys) == HealthState::Degraded);
        assert!(keys.current().is_some());
        fs::write(&path, r#"{ "keys": [] }"#).unwrap();
        again();
        until("they are withdrawn", || {
            state(&keys) == HealthState::Failing
        });
        assert!(keys.current().is_none());

        // Another source begins with the keys of the first.
        fs::remove_file(&path).unwrap();
        let keys = start(known);
        assert!(keys.current().is_some());
        until("it fails", || state(&keys) == HealthState::Degraded);
        assert!(keys.current().is_some());
    }
}
