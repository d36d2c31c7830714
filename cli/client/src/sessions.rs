//! The engine: a session for a target, fresh enough, asked for only once however many want it.
//!
//! Within the process, those that want the same session at the same time share one request and its
//! outcome. With a [`Cache`], so do all processes of the user, and later ones find the session there.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::agent_client::{self, Certificate};
use crate::cache::{Cache, CacheError, Failure, Lock};
use crate::create_session::{Tries, create_session};
use crate::diagnostic::Diagnostic;
use crate::error::Error;
use crate::moment::Moment;
use crate::progress::Progress;
use crate::session::Session;
use crate::target::Target;

/// Sessions of any number of targets; shared by the threads of a process.
pub struct Sessions {
    create: Create,
    cache: Option<Cache>,
    progress: Progress,
    calls: Mutex<HashMap<String, Arc<Call>>>,
}

/// What asks AWS; another in tests.
pub(crate) type Create =
    Box<dyn Fn(&Target, Instant, Tries) -> Result<Session, Error> + Send + Sync>;

/// Why there is no session; shared by all who wanted it.
pub type Shared = Result<Arc<Session>, Arc<Error>>;

/// For all tries and the wait for another process. AWS's Go SDK gives a credential process a minute, of
/// which the agent may take the other half.
const TOTAL: Duration = Duration::from_secs(30);

/// Another process that fails at its own deadline shall still be able to say so.
const GRACE: Duration = Duration::from_secs(2);

/// An AWS tool that gets a session with less asks again at once: botocore, from ten minutes on, before each call.
const IN_NEED: Duration = Duration::from_mins(5);

/// Who waited in vain for a process that was killed still has so much time for a request.
const AT_LEAST: Duration = Duration::from_secs(10);

impl Sessions {
    /// Without a cache, sessions stay within the process.
    pub fn new(cache: Option<Cache>, progress: Progress) -> Sessions {
        let told = progress.clone();
        let create =
            move |target: &Target, deadline, tries| create_session(target, deadline, tries, &told);
        Sessions::by(Box::new(create), cache, progress)
    }

    pub(crate) fn by(create: Create, cache: Option<Cache>, progress: Progress) -> Sessions {
        Sessions {
            create,
            cache,
            progress,
            calls: Mutex::default(),
        }
    }

    /// A fresh session: the one at hand, or a new one. While AWS does not give one, an old one that has more than five
    /// minutes left. Waits 30 s for AWS, at most, and as long for the agent.
    pub fn get(&self, target: &Target) -> Shared {
        let wanted = Wanted {
            will_do: &|session, now| session.fresh(now),
            tries: Tries::Several,
            in_need: Some(IN_NEED),
        };
        self.run_once(target, &wanted)
    }

    /// The same for who repeats failed tries by a schedule, and has used up old sessions.
    pub(crate) fn create(&self, target: &Target, tries: Tries) -> Shared {
        let wanted = Wanted {
            will_do: &|session, now| session.fresh(now),
            tries,
            in_need: None,
        };
        self.run_once(target, &wanted)
    }

    /// A fresh session that is newer than `old`: for who renews ahead of time. One try.
    pub fn renew(&self, target: &Target, old: &Session) -> Shared {
        // By AWS's clock: ours may have been set back since.
        let end = old.credentials.expiration;
        let wanted = Wanted {
            will_do: &|session, now| session.fresh(now) && session.credentials.expiration > end,
            tries: Tries::Once,
            in_need: None,
        };
        self.run_once(target, &wanted)
    }

    /// The valid session of the cache, fresh or not, without a request to AWS.
    pub(crate) fn cached(&self, target: &Target) -> Option<Arc<Session>> {
        let key = target.key();
        let cache = self.cache.as_ref()?;
        let turn = || cache.lock(&key, Instant::now() + agent_client::GLANCE).ok();
        let valid = |session: &Session, now| session.valid(now);
        let session = kept(cache, target, &key, &valid, Timestamp::now(), turn)?;
        let session = Arc::new(session);
        self.call(&key).state().latest = Some(Arc::clone(&session));
        Some(session)
    }

    /// Drops the session of a target that is not wanted any more. Another user of the target keeps its own, and asks anew
    /// when that is due.
    pub(crate) fn forget(&self, target: &Target) {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.remove(&target.key());
    }

    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.len()
    }

    /// Asks the agent whether this user may still have the session, which is used on. An error is the refusal: then
    /// the target's session is kept neither here nor in the cache.
    pub(crate) fn check(&self, target: &Target, session: &Session) -> Result<(), Arc<Error>> {
        let begin = Moment::now();
        let unsigned = target.session.unsigned();
        let refused = agent_client::may_create_session(&target.socket, unsigned);
        session.check(begin);
        refused.map_err(|error| {
            let key = target.key();
            self.call(&key).state().latest = None;
            if let Some(cache) = &self.cache {
                cache.remove(&key);
            }
            Arc::new(error.into())
        })
    }

    /// The latest session if it will do. Otherwise one thread asks, and the others get what it gets.
    fn run_once(&self, target: &Target, wanted: &Wanted) -> Shared {
        let key = target.key();
        let call = self.call(&key);
        let mut state = call.state();
        let now = Moment::now();
        let good =
            |session: &&Arc<Session>| (wanted.will_do)(session, now) && !session.unchecked(now);
        if let Some(session) = state.latest.as_ref().filter(good) {
            return Ok(Arc::clone(session));
        }
        if state.running {
            let completed = state.completed;
            while state.completed == completed {
                state = call
                    .completion
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            return state.outcome();
        }
        state.running = true;
        drop(state);
        let guard = CompletionGuard(&call);
        let outcome = self.obtain(target, &key, wanted);
        guard.complete(outcome)
    }

    /// From the cache or from AWS.
    fn obtain(&self, target: &Target, key: &str, wanted: &Wanted) -> Result<Session, Error> {
        let (begin, began) = (Timestamp::now(), Instant::now());
        let deadline = began + TOTAL;
        let create = |deadline, tries| (self.create)(target, deadline, tries);
        let Some(cache) = &self.cache else {
            return create(deadline, wanted.tries);
        };
        let unlocked = || cache.lock(key, Instant::now() + agent_client::GLANCE).ok();
        if let Some(session) = kept(cache, target, key, wanted.will_do, begin, unlocked) {
            return Ok(session);
        }
        self.progress
            .waiting_for("another roleseal that asks for the same session");
        let mut lock = match cache.lock(key, deadline + GRACE) {
            Ok(lock) => lock,
            Err(error @ CacheError::Busy { .. }) => return Err(error.into()),
            Err(error) => {
                self.progress.warn(&error);
                return create(deadline, wanted.tries);
            }
        };
        let usable = |session: &Session, now| wanted.may_use(session, now);
        let old = kept(cache, target, key, &usable, begin, || None);
        let old = match old {
            Some(session) if (wanted.will_do)(&session, Moment::now()) => return Ok(session),
            old => old,
        };
        let recent = lock.last_failure().is_some_and(|last| last.is_recent());
        if recent && let Some(old) = old {
            return Ok(old);
        }
        let tries = match old {
            Some(_) => Tries::Once,
            None => wanted.tries,
        };
        if let Some(failure) = lock.failure_since(begin) {
            return Err(failure.into());
        }
        let deadline = deadline.max(Instant::now() + AT_LEAST);
        let outcome = create(deadline, tries);
        self.keep(cache, key, &mut lock, &outcome);
        match (outcome, old) {
            (Err(error), Some(old)) if !error.refused_by_agent() => {
                self.progress.warn(&error);
                Ok(old)
            }
            (outcome, _) => outcome,
        }
    }

    fn keep(&self, cache: &Cache, key: &str, lock: &mut Lock, outcome: &Result<Session, Error>) {
        match outcome {
            Ok(session) => {
                lock.clear();
                if let Err(error) = cache.store(key, session) {
                    self.progress.warn(&error);
                }
            }
            Err(error) => {
                if error.refused_by_agent() {
                    cache.remove(key); // so that nobody uses it up
                }
                let at = Moment::now();
                let mut schedule = lock
                    .last_failure()
                    .map(|last| last.schedule)
                    .unwrap_or_default();
                let at_hand = cache.load(key).and_then(|session| session.at_hand(at));
                let pause = schedule.failed(error.setback(), at_hand, fastrand::f64());
                lock.leave(&Failure {
                    at: at.wall,
                    exit: error.exit() as u8,
                    message: error.to_string(),
                    hint: error.hint(),
                    kind: error.setback().kind,
                    schedule,
                    next: at.wall + pause,
                });
            }
        }
    }

    fn call(&self, key: &str) -> Arc<Call> {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(calls.entry(key.to_owned()).or_default())
    }
}

/// What a caller wants, and what it can do with instead.
struct Wanted<'f> {
    will_do: WillDo<'f>,
    tries: Tries,
    /// An old session with more time left will do where there is no new one.
    in_need: Option<Duration>,
}

impl Wanted<'_> {
    fn may_use(&self, session: &Session, now: Moment) -> bool {
        let in_need = self.in_need.is_some_and(|least| session.left(now) > least);
        in_need || (self.will_do)(session, now)
    }
}

type WillDo<'f> = &'f dyn Fn(&Session, Moment) -> bool;

/// The cache's session, if it will do, the agent still permits it, and it is of the certificate that the agent signs
/// with now. Without an answer from the agent it is good as well: nothing else about it has changed. Of the processes
/// that find that the agent has to be asked, one asks at a time, which has the `turn`.
fn kept(
    cache: &Cache,
    target: &Target,
    key: &str,
    will_do: WillDo,
    begin: Timestamp,
    turn: impl FnOnce() -> Option<Lock>,
) -> Option<Session> {
    let load = || {
        let session = cache.load(key);
        session.filter(|session| will_do(session, Moment::now()))
    };
    let mut session = load()?;
    // What is from after now was made by a clock that has been set back since.
    if (begin..=Timestamp::now()).contains(&session.issued) {
        return Some(session); // made while this process waited for it
    }
    if session.unchecked(Moment::now()) {
        let _turn = turn();
        session = load()?;
        let now = Moment::now();
        if session.unchecked(now) {
            let unsigned = target.session.unsigned();
            if agent_client::may_create_session(&target.socket, unsigned).is_err() {
                cache.remove(key);
                return None; // a new request is refused alike
            }
            session.check(now);
            cache.note_check(key, now.wall);
        }
    }
    let identity = target.session.identity.as_deref();
    let same = match agent_client::certificate(&target.socket, identity) {
        Certificate::Serial(serial) => session.serial.as_deref() == Some(serial.as_str()),
        Certificate::None => false,
        Certificate::Unknown => true,
    };
    same.then_some(session)
}

/// What happens to one target's session in this process.
#[derive(Default)]
struct Call {
    state: Mutex<State>,
    completion: Condvar,
}

#[derive(Default)]
struct State {
    /// A thread is asking.
    running: bool,
    /// How many times one had an outcome.
    completed: u64,
    latest: Option<Arc<Session>>,
    /// Why the last one brought none.
    failure: Option<Arc<Error>>,
}

impl Call {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The outcome of the last request.
    fn outcome(&self) -> Shared {
        match (&self.failure, &self.latest) {
            (Some(failure), _) => Err(Arc::clone(failure)),
            (None, Some(session)) => Ok(Arc::clone(session)),
            (None, None) => Err(Arc::new(Error::Lost)),
        }
    }

    fn complete(&mut self, outcome: Result<Session, Error>) {
        self.running = false;
        self.completed += 1;
        match outcome {
            Ok(session) => {
                self.latest = Some(Arc::new(session));
                self.failure = None;
            }
            Err(error) => {
                if error.refused_by_agent() {
                    self.latest = None; // the one before it is not permitted, either
                }
                self.failure = Some(Arc::new(error));
            }
        }
    }
}

/// Wakes those that wait, whatever becomes of the thread that asks.
struct CompletionGuard<'f>(&'f Call);

impl CompletionGuard<'_> {
    fn complete(self, outcome: Result<Session, Error>) -> Shared {
        let mut state = self.0.state();
        state.complete(outcome);
        state.outcome()
    }
}

impl Drop for CompletionGuard<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        if state.running {
            state.complete(Err(Error::Lost)); // it panicked
        }
        drop(state);
        self.0.completion.notify_all();
    }
}

#[cfg(test)]
mod tests;
