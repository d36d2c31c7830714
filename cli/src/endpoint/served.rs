//! A target that is served: its session, kept fresh, for any number of requests at once.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use client::moment::Moment;
use client::refresher::{Event, SessionRefresher, Start, Status};
use client::sessions::{Sessions, Shared};
use client::target::Target;

use super::health::TargetHealth;
use super::metrics::TargetCounts;

/// A target that is served.
pub(crate) struct Served {
    name: String,
    sessions: Arc<Sessions>,
    told: Told,
    counts: TargetCounts,
    refresher: RwLock<Arc<SessionRefresher>>,
    handed_out: AtomicU64,
    /// Something changes after each try and check.
    tries: watch::Sender<()>,
}

type Told = Arc<dyn Fn(Event) + Send + Sync>;

/// No AWS tool waits longer for an endpoint.
const TIMEOUT: Duration = Duration::from_secs(20);

impl Served {
    /// Begins to ask; `told` hears after each try how it stands.
    pub(crate) fn start(
        sessions: &Arc<Sessions>,
        target: Target,
        start: Start,
        counts: TargetCounts,
        told: impl Fn(&Status) + Send + Sync + 'static,
    ) -> io::Result<Served> {
        let name = target.shown().to_owned();
        let tried = counts.clone();
        let told = move |event: Event| match event {
            Event::Ended(status) => {
                tried.tried(status);
                told(status);
            }
            Event::Cached(status) => told(status),
            Event::Checked => {}
        };
        let told = Arc::new(told) as Told;
        let (tries, _) = watch::channel(());
        let refresher = refresher(sessions, target, start, &told, &tries)?;
        Ok(Served {
            name,
            sessions: Arc::clone(sessions),
            told,
            counts,
            refresher: RwLock::new(Arc::new(refresher)),
            handed_out: AtomicU64::new(0),
            tries,
        })
    }

    /// Serves the sessions of another target from now on. `false` if it is the same one; a failed try is then repeated.
    pub(crate) fn change(&self, target: Target) -> io::Result<bool> {
        if target.key() == self.target().key() {
            self.refresher().retry();
            return Ok(false);
        }
        let start = Start::Within(Duration::ZERO);
        let new = refresher(&self.sessions, target, start, &self.told, &self.tries)?;
        *self
            .refresher
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
        self.tries.send_replace(()); // who waits for the old one waits for the new one
        Ok(true)
    }

    /// A valid session, or why there is none. Waits for a try that is under way.
    pub(super) async fn session(&self) -> Shared {
        let deadline = Instant::now() + TIMEOUT;
        let mut tries = self.tries.subscribe();
        loop {
            tries.mark_unchanged(); // what comes after this line is waited for below
            if let Some(outcome) = self.refresher().at_hand() {
                if outcome.is_ok() {
                    self.handed_out.fetch_add(1, Ordering::Relaxed);
                    self.counts.served();
                }
                return outcome;
            }
            if !matches!(timeout_at(deadline, tries.changed()).await, Ok(Ok(()))) {
                return Err(Arc::new(client::Error::Pending));
            }
        }
    }

    /// How it stands.
    pub(crate) fn status(&self) -> Status {
        self.refresher().status()
    }

    /// How it stands, with the number of times that somebody got a session since the start.
    pub(super) fn health(&self, now: Moment, in_full: bool) -> TargetHealth {
        let status = self.status();
        let handed_out = self.handed_out.load(Ordering::Relaxed);
        TargetHealth::of(&self.name, (&status, handed_out), now, in_full)
    }

    pub(crate) fn refresher(&self) -> Arc<SessionRefresher> {
        let refresher = self.refresher.read();
        Arc::clone(&refresher.unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn target(&self) -> Target {
        self.refresher().target().clone()
    }

    /// What messages and paths call it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

fn refresher(
    sessions: &Arc<Sessions>,
    target: Target,
    start: Start,
    told: &Told,
    tries: &watch::Sender<()>,
) -> io::Result<SessionRefresher> {
    let (told, tries) = (Arc::clone(told), tries.clone());
    SessionRefresher::start(Arc::clone(sessions), target, start, move |event| {
        told(event);
        tries.send_replace(());
    })
}
