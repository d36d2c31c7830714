use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use tempfile::TempDir;

use super::*;
use crate::refresh_policy::SetbackKind;
use crate::session::tests::credentials;
use crate::target::tests::target;

/// Counts what is asked for; each session lasts an hour from now and is named by its number.
struct Source(Arc<AtomicU64>, Arc<Mutex<Option<Tries>>>);

impl Source {
    fn new() -> Source {
        Source(Arc::default(), Arc::default())
    }

    fn count(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    fn sessions(&self, cache: Option<Cache>) -> Sessions {
        self.sessions_by(cache, |number| Ok(hour(number)))
    }

    fn sessions_by(
        &self,
        cache: Option<Cache>,
        make: impl Fn(u64) -> Result<Session, Error> + Send + Sync + 'static,
    ) -> Sessions {
        let (count, last) = (Arc::clone(&self.0), Arc::clone(&self.1));
        let create = move |_: &Target, _, tries| {
            let number = count.fetch_add(1, Ordering::SeqCst) + 1;
            thread::sleep(Duration::from_millis(20)); // long enough for others to come meanwhile
            *last.lock().unwrap() = Some(tries);
            make(number)
        };
        Sessions::by(Box::new(create), cache, Progress::quiet())
    }
}

fn hour(number: u64) -> Session {
    hour_from(number, 0)
}

/// One that was asked for so many minutes after now.
fn hour_from(number: u64, minutes: i64) -> Session {
    let now = Moment::now();
    let wall = now.wall + jiff::SignedDuration::from_mins(minutes);
    let end = wall + jiff::SignedDuration::from_hours(1);
    let credentials = credentials(&format!("A{number}"), &end.to_string());
    Session::new(credentials, Moment { wall, ..now }, None, Some("42".into()))
}

fn refusal() -> Error {
    failure(SetbackKind::Refused)
}

fn failure(kind: SetbackKind) -> Error {
    Error::Elsewhere {
        message: "refused".into(),
        hint: None,
        exit: 6,
        kind,
    }
}

fn denial() -> Error {
    let refusal = wire::Refusal::NotPermitted {
        rule: wire::Rule::Caller,
        message: "denied".into(),
    };
    let error = wire::ClientError::Refused(refusal);
    agent_client::AgentError::new("/nowhere".as_ref(), error).into()
}

fn key(session: &Shared) -> &str {
    &session.as_ref().unwrap().credentials.access_key_id
}

fn runtime() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap()
}

fn cache(runtime: &TempDir) -> Option<Cache> {
    Cache::open(runtime.path()).unwrap()
}

/// Many threads with one engine each, or one for all, ask at once.
fn at_once(engines: &[Sessions]) -> Vec<Shared> {
    let target = target("");
    thread::scope(|scope| {
        let threads: Vec<_> = (0..16)
            .map(|number| {
                let engine = &engines[number % engines.len()];
                let target = &target;
                scope.spawn(move || engine.get(target))
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    })
}

#[test]
fn threads_that_want_the_same_share_it() {
    let source = Source::new();
    let sessions = at_once(&[source.sessions(None)]);
    assert!(sessions.iter().all(|session| key(session) == "A1"));
    assert_eq!(source.count(), 1);
}

#[test]
fn processes_that_want_the_same_share_it() {
    let (source, runtime) = (Source::new(), runtime());
    let engines: Vec<_> = (0..16).map(|_| source.sessions(cache(&runtime))).collect();
    let sessions = at_once(&engines);
    assert!(sessions.iter().all(|session| key(session) == "A1"));
    assert_eq!(source.count(), 1);
    // So does one that comes later; and without the cache it does not.
    assert_eq!(
        key(&source.sessions(cache(&runtime)).get(&target(""))),
        "A1"
    );
    assert_eq!(key(&source.sessions(None).get(&target(""))), "A2");
    let other = target("identity = \"other\"");
    assert_eq!(key(&source.sessions(cache(&runtime)).get(&other)), "A3");
}

#[test]
fn those_that_ask_together_fail_together() {
    let (source, runtime) = (Source::new(), runtime());
    let fail = |cache| source.sessions_by(cache, |_| Err(refusal()));
    let outcomes = at_once(&[fail(None)]);
    assert!(
        outcomes
            .iter()
            .all(|outcome| outcome.as_ref().unwrap_err().exit() as u8 == 6)
    );
    // Later threads may have come after the first failure, but never one for each.
    assert!(source.count() < 8, "{}", source.count());

    let before = source.count();
    let engines: Vec<_> = (0..16).map(|_| fail(cache(&runtime))).collect();
    let outcomes = at_once(&engines);
    assert!(
        outcomes
            .iter()
            .all(|outcome| outcome.as_ref().unwrap_err().exit() as u8 == 6)
    );
    assert!(source.count() - before < 8, "{}", source.count());
    // Who asks later asks anew.
    let before = source.count();
    assert_eq!(
        key(&source.sessions(cache(&runtime)).get(&target(""))),
        &format!("A{}", before + 1)
    );
}

#[test]
fn what_is_no_longer_fresh_is_replaced() {
    let source = Source::new();
    let short_of_time = |number| hour_from(number, -46);
    let runtime = runtime();
    let stale = source.sessions_by(cache(&runtime), move |number| Ok(short_of_time(number)));
    assert_eq!(key(&stale.get(&target(""))), "A1");
    assert_eq!(key(&stale.get(&target(""))), "A2"); // not from memory
    assert_eq!(
        key(&source.sessions(cache(&runtime)).get(&target(""))),
        "A3"
    ); // nor from the cache
}

#[test]
fn a_clock_that_was_set_back_keeps_no_session_of_an_identity_that_is_gone() {
    let source = Source::new();
    let runtime = runtime();
    let ahead = |number| hour_from(number, 30);
    let mut target = target("");
    target.socket = runtime.path().join("agent.sock");
    let early = source.sessions_by(cache(&runtime), move |number| Ok(ahead(number)));
    assert_eq!(key(&early.get(&target)), "A1");

    // An agent that has no identity for this user.
    let agent = UnixListener::bind(&target.socket).unwrap();
    thread::spawn(move || {
        for stream in agent.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"{\"parameters\":{\"identities\":[]}}\0");
        }
    });
    let later = source.sessions(cache(&runtime));
    assert_eq!(key(&later.get(&target)), "A2");
}

#[test]
fn a_session_is_renewed_ahead_of_time_once() {
    let source = Source::new();
    let engine = source.sessions(None);
    let old = engine.get(&target("")).unwrap();
    let renewed = thread::scope(|scope| {
        let renew = || key(&engine.renew(&target(""), &old)).to_owned();
        let threads = [(); 8].map(|()| scope.spawn(renew));
        threads.map(|thread| thread.join().unwrap())
    });
    assert_eq!(renewed, [(); 8].map(|()| "A2".to_owned()));
    assert_eq!(source.count(), 2);
}

#[test]
fn a_session_is_newer_by_the_clock_of_aws() {
    let source = Source::new();
    let runtime = runtime();
    // This host's clock is an hour ahead first, and then right.
    let ahead = Moment {
        wall: Timestamp::now() + jiff::SignedDuration::from_hours(1),
        ..Moment::now()
    };
    let end = Timestamp::now() + jiff::SignedDuration::from_mins(59);
    let old = credentials("A0", &end.to_string());
    let old = Session::new(old, ahead, Some(Timestamp::now()), None);
    for engine in [cache(&runtime), cache(&runtime)] {
        let renewed = source.sessions(engine).renew(&target(""), &old);
        assert_eq!(key(&renewed), "A1");
    }
}

#[test]
fn a_failed_renewal_keeps_what_is_valid() {
    let source = Source::new();
    let engine = source.sessions_by(None, |number| match number {
        1 => Ok(hour(1)),
        _ => Err(refusal()),
    });
    let old = engine.get(&target("")).unwrap();
    assert!(engine.renew(&target(""), &old).is_err());
    assert_eq!(key(&engine.get(&target(""))), "A1");
}

#[test]
fn what_the_agent_refuses_to_renew_is_used_no_more() {
    for cached in [false, true] {
        let (source, runtime) = (Source::new(), runtime());
        let cache = || cache(&runtime).filter(|_| cached);
        let engine = source.sessions_by(cache(), |number| match number {
            1 => Ok(hour(1)),
            _ => Err(denial()),
        });
        let old = engine.get(&target("")).unwrap();
        assert!(engine.renew(&target(""), &old).is_err());
        assert!(engine.get(&target("")).is_err());
        // Nor by another process.
        let other = source.sessions_by(cache(), |_| Err(failure(SetbackKind::Unavailable)));
        assert!(other.get(&target("")).is_err());
    }
}

#[test]
fn nobody_waits_for_a_thread_that_panicked() {
    let source = Source::new();
    let engine = source.sessions_by(None, |number| match number {
        1 => panic!("on purpose"),
        _ => Ok(hour(number)),
    });
    let outcomes = thread::scope(|scope| {
        let threads = [(); 4].map(|()| scope.spawn(|| engine.get(&target(""))));
        threads.map(|thread| thread.join())
    });
    let got = |outcome: &thread::Result<Shared>| outcome.is_ok();
    assert_eq!(outcomes.iter().filter(|outcome| !got(outcome)).count(), 1);
    assert!(engine.get(&target("")).is_ok());
}

/// One that was asked for so many minutes ago, in a cache.
fn runtime_with(age: i64) -> TempDir {
    let (source, runtime) = (Source::new(), runtime());
    let old = source.sessions_by(cache(&runtime), move |_| Ok(hour_from(0, -age)));
    assert_eq!(key(&old.get(&target(""))), "A0");
    runtime
}

#[test]
fn an_old_session_is_good_in_need_while_more_than_five_minutes_are_left() {
    use SetbackKind::{Refused, Unavailable};
    for (age, kind, good) in [
        (50, Unavailable, true),
        (50, Refused, true),
        (56, Unavailable, false),
    ] {
        let (source, runtime) = (Source::new(), runtime_with(age));
        let fail = || source.sessions_by(cache(&runtime), move |_| Err(failure(kind)));
        let first = fail().get(&target(""));
        let expected = if good { Tries::Once } else { Tries::Several };
        assert_eq!(*source.1.lock().unwrap(), Some(expected));
        assert_eq!(
            first.is_ok_and(|one| one.credentials.access_key_id == "A0"),
            good
        );
        // The next one makes no request before the pause is over.
        assert_eq!(fail().get(&target("")).is_ok(), good);
        assert_eq!(source.count(), if good { 1 } else { 2 });
    }
    // Otherwise it is replaced.
    let (source, runtime) = (Source::new(), runtime_with(50));
    assert_eq!(
        key(&source.sessions(cache(&runtime)).get(&target(""))),
        "A1"
    );
}

#[test]
fn a_session_ends_the_pauses_of_failures() {
    let (source, runtime) = (Source::new(), runtime_with(50));
    let fail = |_| Err(failure(SetbackKind::Unavailable));
    let engine = source.sessions_by(cache(&runtime), fail);
    let target = target("");
    let old = engine.get(&target).unwrap();
    for _ in 0..5 {
        assert!(engine.renew(&target, &old).is_err());
    }
    let lock = || {
        cache(&runtime)
            .unwrap()
            .lock(&target.key(), Instant::now() + TOTAL)
            .unwrap()
    };
    assert!(lock().last_failure().unwrap().is_recent());
    assert_eq!(
        key(&source.sessions(cache(&runtime)).renew(&target, &old)),
        "A7"
    );
    assert!(lock().last_failure().is_none());
}

#[test]
fn what_is_valid_in_the_cache_is_taken_without_a_request() {
    for (age, valid) in [(10, true), (50, true), (61, false)] {
        let (source, runtime) = (Source::new(), runtime_with(age));
        let engine = source.sessions(cache(&runtime));
        assert_eq!(engine.cached(&target("")).is_some(), valid, "{age}");
        assert_eq!(source.count(), 0);
    }
    assert!(Source::new().sessions(None).cached(&target("")).is_none());
}
