use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use tempfile::TempDir;

use super::*;
use crate::session::tests::credentials;
use crate::target::tests::target;

/// Counts what is asked for; each session lasts an hour from now and is named by its number.
struct Source(Arc<AtomicU64>);

impl Source {
    fn new() -> Source {
        Source(Arc::default())
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
        let count = Arc::clone(&self.0);
        let create = move |_: &Target, _| {
            let number = count.fetch_add(1, Ordering::SeqCst) + 1;
            thread::sleep(Duration::from_millis(20)); // long enough for others to come meanwhile
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
    Error::Elsewhere {
        message: "refused".into(),
        hint: None,
        exit: 6,
    }
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
