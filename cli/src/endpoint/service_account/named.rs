//! The sessions of a target whose role session's name is the service account's: one for each name, made when it is first
//! asked for and kept fresh while somebody uses it.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use client::refresher::{Start, Status};
use client::sessions::Sessions;
use client::target::Target;
use service_account::{ServiceAccount, SessionNameTemplate};
use thiserror::Error;

use super::super::metrics::TargetCounts;
use super::super::served::Served;
use super::recent::{ENTRIES, Recent};

/// The sessions of a target.
pub(crate) struct Named {
    target: Target,
    template: SessionNameTemplate,
    sessions: Arc<Sessions>,
    counts: TargetCounts,
    told: Told,
    served: Mutex<Recent<Arc<Served>>>,
}

/// Hears after each try how it stands with the session of a name.
type Told = Arc<dyn Fn(&str, &Status) + Send + Sync>;

/// Why there is no session of a name.
#[derive(Debug, Error)]
pub(super) enum NamedError {
    #[error("cannot name its session: {0}")]
    Name(String),
    #[error("{ENTRIES} names have a session that was used within the last minute")]
    Full,
    #[error("cannot request a session: {0}")]
    Io(#[from] io::Error),
}

impl Named {
    pub(crate) fn new(
        target: Target,
        template: SessionNameTemplate,
        sessions: &Arc<Sessions>,
        counts: TargetCounts,
        told: impl Fn(&str, &Status) + Send + Sync + 'static,
    ) -> Named {
        Named {
            target,
            template,
            sessions: Arc::clone(sessions),
            counts,
            told: Arc::new(told),
            served: Mutex::default(),
        }
    }

    /// Whether these are the sessions of that target with that template.
    pub(crate) fn is_of(&self, target: &Target, template: &SessionNameTemplate) -> bool {
        self.target.key() == target.key() && self.template == *template
    }

    pub(crate) fn name(&self) -> &str {
        self.target.shown()
    }

    /// The session of this account's name.
    pub(super) fn served(
        &self,
        account: &ServiceAccount,
        now: Instant,
    ) -> Result<Arc<Served>, NamedError> {
        let name = self.template.fill(account).map_err(NamedError::Name)?;
        let mut served = self.lock();
        if let Some(served) = served.get(&name.to_string(), now) {
            return Ok(served);
        }
        drop(served.make_room(now).map_err(|()| NamedError::Full)?);
        let mut target = self.target.clone();
        target.session.session_name = Some(name.clone());
        let (told, shown) = (Arc::clone(&self.told), name.to_string());
        let told = move |status: &Status| told(&shown, status);
        let (start, counts) = (Start::Awaited, self.counts.clone());
        let new = Arc::new(Served::start(&self.sessions, target, start, counts, told)?);
        served.insert(name.to_string(), Arc::clone(&new), now);
        Ok(new)
    }

    /// Drops the sessions that nobody has asked for during a session's life.
    pub(super) fn drop_idle(&self, now: Instant) {
        let life = Duration::from_secs(self.target.session.duration.seconds().into());
        drop(self.lock().idle(now, life));
    }

    pub(super) fn all(&self) -> Vec<Arc<Served>> {
        self.lock().all()
    }

    fn lock(&self) -> MutexGuard<'_, Recent<Arc<Served>>> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
