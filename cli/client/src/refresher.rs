//! A target's session for who hands it out for a long time: renewed ahead of its end by a thread of its
//! own; kept until its end where that fails; never handed out after it, nor once the agent no longer permits it.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::error::Error;
use crate::moment::Moment;
use crate::retry::Backoff;
use crate::session::Session;
use crate::sessions::{Sessions, Shared};
use crate::target::Target;

/// A target whose session is kept fresh until this is dropped.
pub struct SessionRefresher(Arc<Inner>);

struct Inner {
    sessions: Arc<Sessions>,
    target: Target,
    state: Mutex<State>,
    changed: Condvar,
    told: Box<dyn Fn(Event) + Send + Sync>,
}

#[derive(Default)]
struct State {
    status: Status,
    /// Tries that have ended.
    outcomes: u64,
    /// Somebody needs a session before the next try is due.
    hurry: bool,
    /// The agent is being asked about the session at hand.
    checking: bool,
    stop: bool,
}

/// What a listener hears.
#[derive(Debug, Clone, Copy)]
pub enum Event<'s> {
    /// A try has ended, or the agent has withdrawn its permission, and how it stands now.
    Ended(&'s Status),
    /// The agent has been asked, and has nothing against the session at hand.
    Checked,
}

/// How it stands with a target.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// The latest session; it may have ended.
    pub session: Option<Arc<Session>>,
    /// The tries that have failed since.
    pub failure: Option<Failure>,
    /// When the next try is due; none before the first has ended.
    next: Option<Next>,
}

#[derive(Debug, Clone, Copy)]
struct Next {
    due: Instant,
    /// Where the wall clock says that the session ends earlier.
    at_the_earliest: Instant,
}

/// Tries that failed.
#[derive(Debug, Clone)]
pub struct Failure {
    /// How the latest did.
    pub error: Arc<Error>,
    /// When the first did.
    pub since: Timestamp,
    /// Each of them may have asked AWS several times.
    pub tries: u32,
}

/// A service that is back should be noticed within seconds at first, and within a minute after hours.
const BACKOFF: Backoff = Backoff {
    base: Duration::from_secs(2),
    cap: Duration::from_secs(60),
};

/// Until the next try after AWS has said no: somebody has to change something first.
const REFUSED: Duration = Duration::from_secs(15);

/// However short a session is, AWS is not asked more often.
const AT_LEAST: Duration = Duration::from_secs(1);

/// While a machine sleeps, so does the clock of waits, but not the one of sessions; and that one may be set:
/// look now and then. A clock that is wrong for long costs no more requests than that.
const LOOK: Duration = Duration::from_secs(30);

/// Who needs a session waits so long for a try to end, which takes a minute at most.
const TIMEOUT: Duration = Duration::from_secs(65);

impl SessionRefresher {
    /// Begins to ask. After each try and check `told` hears how it stands, in the thread that asks: to write the
    /// session somewhere, or a log line.
    pub fn start(
        sessions: Arc<Sessions>,
        target: Target,
        told: impl Fn(Event) + Send + Sync + 'static,
    ) -> io::Result<SessionRefresher> {
        let inner = Arc::new(Inner {
            sessions,
            target,
            state: Mutex::default(),
            changed: Condvar::new(),
            told: Box::new(told),
        });
        let keeper = Arc::clone(&inner);
        let thread = thread::Builder::new().name(inner.target.shown().to_owned());
        thread.spawn(move || keeper.keep())?;
        Ok(SessionRefresher(inner))
    }

    /// The target.
    pub fn target(&self) -> &Target {
        &self.0.target
    }

    /// A valid session, or why there is none. Waits where a try is under way and there is none, and for the agent's
    /// word, once a minute.
    pub fn session(&self) -> Shared {
        let deadline = Instant::now() + TIMEOUT;
        let mut state = self.0.state();
        let outcomes = state.outcomes;
        loop {
            if let Some(outcome) = state.status.at_hand(Moment::now()) {
                return outcome;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let checking = self.0.begin_check(&mut state);
            if left.is_zero() || !checking && state.outcomes != outcomes {
                return Err(Arc::new(Error::Lost));
            }
            if !checking {
                state.hurry = true;
                self.0.changed.notify_all();
            }
            state = self.0.wait(state, left);
        }
    }

    /// The same without a wait: `None` where a try or a check is under way, which begins at once. The listener
    /// hears how it ended.
    pub fn at_hand(&self) -> Option<Shared> {
        let mut state = self.0.state();
        let outcome = state.status.at_hand(Moment::now());
        if outcome.is_none() && !self.0.begin_check(&mut state) && !state.hurry {
            state.hurry = true;
            self.0.changed.notify_all();
        }
        outcome
    }

    /// Has the agent asked about the session at hand, where that is due; the listener hears of it.
    pub fn check(&self) {
        self.0.begin_check(&mut self.0.state());
    }

    /// How it stands.
    pub fn status(&self) -> Status {
        self.0.state().status.clone()
    }
}

impl Drop for SessionRefresher {
    fn drop(&mut self) {
        self.0.state().stop = true;
        self.0.changed.notify_all();
    }
}

impl Inner {
    fn keep(&self) {
        while self.wait_until_due() {
            let old = self.state().status.session.clone();
            let outcome = match &old {
                Some(old) => self.sessions.renew(&self.target, old),
                None => self.sessions.get(&self.target),
            };
            let mut state = self.state();
            state.hurry = false;
            state.status.note(outcome, Moment::now(), fastrand::f64());
            let status = state.status.clone();
            drop(state);
            self.tell(Event::Ended(&status));
        }
    }

    fn tell(&self, event: Event) {
        (self.told)(event);
        // Only now: who is woken may look at what was written.
        self.state().outcomes += 1;
        self.changed.notify_all();
    }

    /// Has the agent asked about the session at hand, where that is due. Says whether it is. A thread of its own asks,
    /// since a try may take half a minute, while the session at hand is good.
    fn begin_check(self: &Arc<Self>, state: &mut State) -> bool {
        let Some(session) = state.status.unchecked(Moment::now()) else {
            return false;
        };
        let (session, inner) = (Arc::clone(session), Arc::clone(self));
        if !state.checking {
            let check = move || inner.check(&session);
            state.checking = thread::Builder::new().spawn(check).is_ok(); // or who comes next tries
        }
        true
    }

    fn check(&self, session: &Arc<Session>) {
        let outcome = self.sessions.check(&self.target, session);
        let mut state = self.state();
        state.checking = false;
        let same = |at_hand: &Arc<Session>| Arc::ptr_eq(at_hand, session);
        match outcome {
            Err(error) if state.status.session.as_ref().is_some_and(same) => {
                state
                    .status
                    .note(Err(error), Moment::now(), fastrand::f64());
                let status = state.status.clone();
                drop(state);
                self.tell(Event::Ended(&status));
            }
            // A newer one had the agent's permission.
            Ok(()) | Err(_) => {
                drop(state);
                self.tell(Event::Checked);
            }
        }
    }

    /// `false` to stop.
    fn wait_until_due(&self) -> bool {
        let mut state = self.state();
        loop {
            if state.stop {
                return false;
            }
            let left = state.status.wait(Moment::now());
            if left.is_zero() || state.hurry {
                return true;
            }
            state = self.wait(state, left.min(LOOK));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State>, time: Duration) -> MutexGuard<'s, State> {
        self.changed
            .wait_timeout(state, time)
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }
}

impl Status {
    /// When the next try is due, by the wall clock; none before the first has ended.
    pub fn next(&self, now: Moment) -> Option<Timestamp> {
        Some(now.wall + self.next?.due.saturating_duration_since(now.steady))
    }

    /// Whether there is a session that may still be used.
    pub fn valid(&self, now: Moment) -> bool {
        self.session.as_ref().is_some_and(|one| one.valid(now))
    }

    /// The valid session on which the agent has to be asked first.
    fn unchecked(&self, now: Moment) -> Option<&Arc<Session>> {
        let session = self.session.as_ref()?;
        (session.valid(now) && session.unchecked(now)).then_some(session)
    }

    /// The session while it is valid, or how the latest try failed.
    fn at_hand(&self, now: Moment) -> Option<Shared> {
        if self.unchecked(now).is_some() {
            return None;
        }
        let valid = self.session.as_ref().filter(|session| session.valid(now));
        match (valid, &self.failure) {
            (Some(session), _) => Some(Ok(Arc::clone(session))),
            (None, Some(failure)) => Some(Err(Arc::clone(&failure.error))),
            (None, None) => None,
        }
    }

    /// How long until the next try.
    fn wait(&self, now: Moment) -> Duration {
        let Some(next) = self.next else {
            return Duration::ZERO;
        };
        let session = self.session.as_ref().filter(|_| self.failure.is_none());
        let due = match session.is_some_and(|session| !session.fresh(now)) {
            true => next.due.min(next.at_the_earliest),
            false => next.due,
        };
        due.saturating_duration_since(now.steady)
    }

    /// Takes in how a try ended at `now`. `random` is from 0 to 1.
    fn note(&mut self, outcome: Shared, now: Moment, random: f64) {
        let wait = match outcome {
            Ok(session) => {
                let wait = renewal(&session, now, random);
                self.session = Some(session);
                self.failure = None;
                wait
            }
            Err(error) => {
                if error.refused_by_agent() && self.session.take().is_some() {
                    self.failure = None; // that of AWS or the network is another matter
                }
                let (since, tries) = match &self.failure {
                    Some(failure) => (failure.since, failure.tries.saturating_add(1)),
                    None => (now.wall, 1),
                };
                let pause = match error.refused_by_aws() {
                    true => REFUSED,
                    false => BACKOFF.steady_pause(tries, random),
                };
                self.failure = Some(Failure {
                    error,
                    since,
                    tries,
                });
                pause
            }
        };
        self.next = Some(Next {
            due: now.steady + wait.max(AT_LEAST),
            at_the_earliest: now.steady + LOOK,
        });
    }
}

/// Within the third of a margin before it stops being fresh: many hosts that started together shall not
/// come together for ever.
fn renewal(session: &Session, now: Moment, random: f64) -> Duration {
    let ahead = session.margin().mul_f64(1.0 + random.clamp(0.0, 1.0) / 3.0);
    session.left(now).saturating_sub(ahead)
}

#[cfg(test)]
mod tests;
