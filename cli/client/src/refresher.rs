//! A target's session for who hands it out for a long time: renewed ahead of its end by a thread of its
//! own; kept until its end where that fails; never handed out after it, nor once the agent no longer permits it.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use crate::agent_client::{self, Seen};
use crate::create_session::Tries;
use crate::error::Error;
use crate::moment::Moment;
use crate::refresh_policy::{Schedule, SetbackKind};
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
    /// Somebody waits for the first one.
    awaited: bool,
    /// Somebody has changed something since the latest try began.
    again: bool,
    /// The agent is being asked about the session at hand.
    checking: bool,
    /// This host after the latest try, if that failed.
    seen: Option<Local>,
    stop: bool,
}

/// When the first try is made, where no valid session is in the cache.
#[derive(Debug, Clone, Copy)]
pub enum Start {
    /// Somebody waits for it.
    Awaited,
    /// Within that time, or once somebody needs a session.
    Within(Duration),
}

/// What a listener hears.
#[derive(Debug, Clone, Copy)]
pub enum Event<'s> {
    /// A try has ended, or the agent has withdrawn its permission, and how it stands now.
    Ended(&'s Status),
    /// The cache had a valid session at the start.
    Cached(&'s Status),
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
    schedule: Schedule,
    /// When the next try is due; none before the first.
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

/// While a machine sleeps, so does the clock of waits, but not the one of sessions; and that one may be set:
/// look now and then. A clock that is wrong for long costs no more requests than that.
const LOOK: Duration = Duration::from_secs(30);

/// How often this host is looked at for a change that could end a failure. The agent answers in a millisecond.
const LOCAL_LOOK: Duration = Duration::from_secs(10);

/// A wall clock that moved so much against the other was set, or the host was suspended.
const CLOCK_SET: Duration = Duration::from_secs(60);

/// Who needs a session waits so long for a try to end, which takes a minute at most.
const TIMEOUT: Duration = Duration::from_secs(65);

impl SessionRefresher {
    /// Begins with the cache's session, or to ask. After each try and check `told` hears how it stands, in the
    /// thread that asks: to write the session somewhere, or a log line.
    pub fn start(
        sessions: Arc<Sessions>,
        target: Target,
        start: Start,
        told: impl Fn(Event) + Send + Sync + 'static,
    ) -> io::Result<SessionRefresher> {
        let state = State {
            awaited: matches!(start, Start::Awaited),
            ..State::default()
        };
        let inner = Arc::new(Inner {
            sessions,
            target,
            state: Mutex::new(state),
            changed: Condvar::new(),
            told: Box::new(told),
        });
        let keeper = Arc::clone(&inner);
        let thread = thread::Builder::new().name(inner.target.shown().to_owned());
        thread.spawn(move || keeper.keep(start))?;
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
                self.0.hurry(&mut state);
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
            self.0.hurry(&mut state);
        }
        outcome
    }

    /// Tries at once, where the latest try failed: somebody has changed something.
    pub fn retry(&self) {
        let mut state = self.0.state();
        if state.status.failure.is_some() {
            state.again = true;
            self.0.changed.notify_all();
        }
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
    fn keep(&self, start: Start) {
        let mut old = self.begin(start);
        while self.wait_until_due() {
            let outcome = self.attempt();
            // Before the pause begins: a change during it is seen.
            let refused = |error: &Arc<Error>| error.setback().kind == SetbackKind::Refused;
            let seen = outcome
                .as_ref()
                .err()
                .map(|error| self.look(refused(error)));
            let mut state = self.state();
            (state.hurry, state.awaited) = (false, false);
            state.seen = seen;
            if let (Err(_), Some(old)) = (&outcome, old.take()) {
                state.status.session.get_or_insert(old); // better than none
            }
            state.status.note(outcome, Moment::now(), fastrand::f64());
            let status = state.status.clone();
            drop(state);
            self.tell(Event::Ended(&status));
        }
        self.sessions.forget(&self.target);
    }

    /// Takes the cache's session, if there is a fresh one. Returns one that ends soon: a new one is better.
    fn begin(&self, start: Start) -> Option<Arc<Session>> {
        let cached = self.sessions.cached(&self.target);
        let mut state = self.state();
        let now = Moment::now();
        let (fresh, old) = match cached {
            Some(session) if session.fresh(now) => (Some(session), None),
            old => (None, old),
        };
        match (fresh, start) {
            (Some(session), _) => {
                (state.hurry, state.awaited) = (false, false); // who waits for it is told
                state.status.note(Ok(session), now, fastrand::f64());
                let status = state.status.clone();
                drop(state);
                self.tell(Event::Cached(&status));
            }
            (None, Start::Within(splay)) if !splay.is_zero() => {
                let pause = Schedule::start(splay, fastrand::f64());
                state.status.set_next(pause, now);
            }
            (None, _) => {}
        }
        old
    }

    /// Several tries only for who waits for the first session: all others come back by the schedule.
    fn attempt(&self) -> Shared {
        let state = self.state();
        let valid = |session: &&Arc<Session>| session.valid(Moment::now());
        let old = state.status.session.as_ref().filter(valid).cloned();
        let first = state.status.session.is_none() && state.status.failure.is_none();
        let tries = match first && state.awaited {
            true => Tries::Several,
            false => Tries::Once,
        };
        drop(state);
        match &old {
            Some(old) => self.sessions.renew(&self.target, old),
            None => self.sessions.create(&self.target, tries),
        }
    }

    fn hurry(&self, state: &mut State) {
        (state.hurry, state.awaited) = (true, true);
        self.changed.notify_all();
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
        let mut looked = Instant::now();
        let mut state = self.state();
        loop {
            if state.stop {
                return false;
            }
            let left = state.status.wait(Moment::now());
            if state.again {
                (state.again, state.status.schedule) = (false, Schedule::default());
                return true;
            }
            if left.is_zero() || state.hurry {
                return true;
            }
            if state.status.failed_at_aws() && looked.elapsed() >= LOCAL_LOOK {
                let refused = state.status.refused();
                drop(state);
                let seen = self.look(refused);
                looked = Instant::now();
                state = self.state();
                let state = &mut *state;
                let before = state.seen.get_or_insert(seen.clone());
                state.again |= before.differs(&seen);
                if before.agent.is_none() {
                    before.agent = seen.agent;
                }
                continue;
            }
            let look = match state.status.failed_at_aws() {
                true => LOCAL_LOOK,
                false => LOOK,
            };
            state = self.wait(state, left.min(look));
        }
    }

    fn look(&self, at_agent: bool) -> Local {
        let identity = self.target.session.identity.as_deref();
        let agent = || agent_client::look(&self.target.socket, identity);
        Local {
            agent: at_agent.then(agent).flatten(),
            clock: Moment::now(),
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

/// What of this host could end a failure at AWS.
#[derive(Debug, Clone)]
struct Local {
    /// `None` while the agent does not tell.
    agent: Option<Seen>,
    clock: Moment,
}

impl Local {
    fn differs(&self, now: &Local) -> bool {
        let agent = match (&self.agent, &now.agent) {
            (Some(before), Some(now)) => before != now,
            _ => false,
        };
        let wall = now.clock.wall.duration_since(self.clock.wall);
        let steady = now
            .clock
            .steady
            .saturating_duration_since(self.clock.steady);
        let moved = wall - SignedDuration::try_from(steady).unwrap_or(SignedDuration::MAX);
        agent || moved.unsigned_abs() > CLOCK_SET
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
                let at_hand = session.at_hand(now).unwrap_or_default();
                let wait = self.schedule.succeeded(at_hand, random);
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
                let at_hand = self
                    .session
                    .as_ref()
                    .and_then(|session| session.at_hand(now));
                let pause = self.schedule.failed(error.setback(), at_hand, random);
                self.failure = Some(Failure {
                    error,
                    since,
                    tries,
                });
                pause
            }
        };
        self.set_next(wait, now);
    }

    fn set_next(&mut self, wait: Duration, now: Moment) {
        self.next = Some(Next {
            due: now.steady + wait,
            at_the_earliest: now.steady + LOOK,
        });
    }

    fn setback(&self) -> Option<SetbackKind> {
        let failure = self.failure.as_ref()?;
        Some(failure.error.setback().kind)
    }

    /// Whether AWS refused the latest try: until something changes, the next one fails alike.
    fn refused(&self) -> bool {
        self.setback() == Some(SetbackKind::Refused)
    }

    /// Whether a clock that is set could end the failure: signatures, TLS and sessions need a right one.
    fn failed_at_aws(&self) -> bool {
        self.setback()
            .is_some_and(|kind| kind != SetbackKind::Local)
    }
}

#[cfg(test)]
mod tests;
