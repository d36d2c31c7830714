//! A target that is served: its session, kept fresh, for any number of requests at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use client::refresher::{SessionRefresher, Status};
use client::sessions::{Sessions, Shared};
use client::target::Target;

/// A target that is served.
pub(crate) struct Served {
    refresher: SessionRefresher,
    handed_out: AtomicU64,
    /// Something changes after each try.
    tries: watch::Receiver<()>,
}

/// No AWS tool waits longer for an endpoint.
const PATIENCE: Duration = Duration::from_secs(20);

impl Served {
    /// Begins to ask; `told` hears after each try how it stands.
    pub(crate) fn start(
        sessions: &Arc<Sessions>,
        target: Target,
        mut told: impl FnMut(&Status) + Send + 'static,
    ) -> io::Result<Served> {
        let (tried, tries) = watch::channel(());
        let refresher = SessionRefresher::start(Arc::clone(sessions), target, move |status| {
            told(status);
            tried.send_replace(());
        })?;
        Ok(Served {
            refresher,
            handed_out: AtomicU64::new(0),
            tries,
        })
    }

    /// A valid session, or why there is none. Waits for a try that is under way.
    pub(super) async fn session(&self) -> Shared {
        let deadline = Instant::now() + PATIENCE;
        let mut tries = self.tries.clone();
        loop {
            tries.mark_unchanged(); // what comes after this line is waited for below
            if let Some(outcome) = self.refresher.at_hand() {
                let got_one = u64::from(outcome.is_ok());
                self.handed_out.fetch_add(got_one, Ordering::Relaxed);
                return outcome;
            }
            if !matches!(timeout_at(deadline, tries.changed()).await, Ok(Ok(()))) {
                return Err(Arc::new(client::Error::Pending));
            }
        }
    }

    /// How many times somebody got a session, since the start.
    pub(super) fn handed_out(&self) -> u64 {
        self.handed_out.load(Ordering::Relaxed)
    }

    pub(crate) fn refresher(&self) -> &SessionRefresher {
        &self.refresher
    }

    pub(crate) fn target(&self) -> &Target {
        self.refresher.target()
    }

    /// What messages and paths call it.
    pub(crate) fn name(&self) -> &str {
        self.target().shown()
    }
}
