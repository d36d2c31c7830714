use std::sync::mpsc;

use jiff::SignedDuration;

use super::*;
use crate::cache::Cache;
use crate::progress::Progress;
use crate::session::tests::{credentials, moment, session};
use crate::target::tests::target;

const BEGIN: &str = "2026-01-01T12:00:00Z";

fn at(minutes: u64, seconds: u64) -> Moment {
    moment(BEGIN).later(Duration::from_secs(60 * minutes + seconds))
}

/// The same while the wall clock is off.
fn off(now: Moment, hours: i64) -> Moment {
    let wall = now.wall + SignedDuration::from_hours(hours);
    Moment { wall, ..now }
}

fn hour(key: &str) -> Shared {
    Ok(Arc::new(session(key, BEGIN, "2026-01-01T13:00:00Z")))
}

fn failure() -> Shared {
    Err(Arc::new(Error::Lost))
}

fn unavailable() -> Shared {
    Err(Arc::new(elsewhere(SetbackKind::Unavailable)))
}

fn elsewhere(kind: SetbackKind) -> Error {
    Error::Elsewhere {
        message: "on purpose".into(),
        hint: None,
        exit: 6,
        kind,
    }
}

#[test]
fn a_session_is_renewed_within_its_window() {
    for (random, next) in [(0.0, at(30, 0)), (0.5, at(37, 30)), (1.0, at(45, 0))] {
        let mut status = Status::default();
        status.note(hour("A"), at(0, 0), random);
        assert_eq!(status.next(at(0, 0)), Some(next.wall));
        assert!(status.wait(next).is_zero());
    }
    // However short or old it is, not at once again.
    let mut status = Status::default();
    status.note(hour("A"), at(59, 0), 0.0);
    assert_eq!(status.next(at(59, 0)), Some(at(59, 1).wall));
}

#[test]
fn failures_are_counted_and_the_session_stays() {
    let mut status = Status::default();
    status.note(hour("A"), at(0, 1), 0.0);
    status.note(unavailable(), at(45, 0), 1.0);
    assert_eq!(status.wait(at(45, 0)), Duration::from_secs(60));
    for minute in 46..50 {
        status.note(unavailable(), at(minute, 0), 1.0);
    }
    let failed = status.failure.clone().unwrap();
    assert_eq!((failed.since, failed.tries), (at(45, 0).wall, 5));
    assert_eq!(status.wait(at(49, 0)), Duration::from_mins(11)); // until it ends
    assert_eq!(
        status.session.as_ref().unwrap().credentials.access_key_id,
        "A"
    );
    // Without a session somebody waits for it.
    status.note(unavailable(), at(60, 0), 1.0);
    assert_eq!(status.wait(at(60, 0)), Duration::from_secs(450));
    status.note(hour("B"), at(50, 0), 0.0);
    assert!(status.failure.is_none());
    assert_eq!(status.session.unwrap().credentials.access_key_id, "B");
}

#[test]
fn a_change_of_this_host_is_seen() {
    let local = |agent, clock| Local { agent, clock };
    let before = local(None, at(0, 0));
    assert!(!before.differs(&local(None, at(1, 0))));
    for hours in [-2, 2] {
        assert!(before.differs(&local(None, off(at(1, 0), hours))));
    }
    let mut status = Status::default();
    assert!(!status.failed_at_aws());
    status.note(failure(), at(1, 0), 0.0);
    assert!(!status.failed_at_aws());
    status.note(unavailable(), at(1, 0), 0.0);
    assert!(status.failed_at_aws() && !status.refused());
    let refused = Err(Arc::new(elsewhere(SetbackKind::Refused)));
    status.note(refused, at(1, 0), 0.0);
    assert!(status.failed_at_aws() && status.refused());
}

#[test]
fn no_jump_of_the_wall_clock_moves_the_next_try_after_a_failure() {
    for (before, after) in [(2, 0), (0, -2), (0, 2), (-2, 0), (100_000, 0)] {
        let mut status = Status::default();
        for _ in 0..10 {
            status.note(failure(), off(at(1, 0), before), 1.0);
        }
        assert!(!status.wait(off(at(1, 59), after)).is_zero());
        assert!(
            status.wait(off(at(2, 0), after)).is_zero(),
            "{before} {after}"
        );
        let shown = status.next(off(at(1, 0), after)).unwrap();
        assert_eq!(shown, off(at(2, 0), after).wall);
    }
}

#[test]
fn a_jump_of_the_wall_clock_costs_a_renewal_at_most_a_look() {
    let mut status = Status::default();
    status.note(hour("A"), at(0, 1), 0.0);
    // Set back: by the clock of waits it is due all the same.
    assert!(!status.wait(off(at(29, 59), -2)).is_zero());
    assert!(status.wait(off(at(30, 0), -2)).is_zero());
    // Set forward, or suspended: the session has ended.
    assert!(status.at_hand(off(at(2, 0), 2)).is_none());
    assert!(status.wait(off(at(2, 0), 2)).is_zero());
    // Not again and again while it is wrong.
    assert!(!status.wait(off(at(0, 2), 2)).is_zero());
    assert!(status.wait(off(at(0, 2), 2)) <= LOOK);
    // A try that failed meanwhile leaves the session, which is good again once the clock is right.
    status.note(failure(), off(at(3, 0), 2), 0.0);
    assert!(matches!(status.at_hand(off(at(3, 1), 2)), Some(Err(_))));
    status.session.as_ref().unwrap().check(at(3, 0));
    assert!(matches!(status.at_hand(at(3, 1)), Some(Ok(_))));
}

#[test]
fn a_failure_is_told_to_who_asks_and_to_the_listener() {
    // No agent is there: each try fails at once.
    let sessions = Arc::new(Sessions::new(None, Progress::quiet()));
    let nowhere = target("endpoint = \"https://localhost:1\"\nidentity = \"web\"");
    let (tell, told) = mpsc::channel();
    let now = Start::Within(Duration::ZERO);
    let refresher = SessionRefresher::start(sessions, nowhere, now, move |event| {
        if let Event::Ended(status) = event {
            let _ = tell.send(status.failure.clone().unwrap().tries);
        }
    })
    .unwrap();
    assert_eq!(refresher.target().session.identity.as_deref(), Some("web"));
    let error = refresher.session().unwrap_err().to_string();
    assert!(error.contains("/agent.sock"), "{error}");
    assert_eq!(told.recv_timeout(Duration::from_secs(60)), Ok(1));
    assert_eq!(told.recv_timeout(Duration::from_secs(60)), Ok(2)); // by itself
    assert!(refresher.status().session.is_none());
    drop(refresher);
    while told.recv_timeout(Duration::from_secs(60)).is_ok() {}
    assert_eq!(told.try_recv(), Err(mpsc::TryRecvError::Disconnected)); // it stopped
}

/// Sessions of four seconds: the first and the third try succeed, the second and all from the fourth on fail.
#[test]
fn a_session_is_renewed_ahead_kept_through_failures_and_not_beyond_its_end() {
    let mut tries = 0;
    let create = move || {
        tries += 1;
        let now = Moment::now();
        let end = now.wall + SignedDuration::from_secs(4);
        match tries {
            1 | 3 => {
                let credentials = credentials(&format!("A{tries}"), &end.to_string());
                Ok(Session::new(credentials, now, None, None))
            }
            _ => Err(Error::Lost),
        }
    };
    let create = Mutex::new(create);
    let create = move |_: &Target, _, _| create.lock().unwrap()();
    let sessions = Sessions::by(Box::new(create), None, Progress::quiet());
    let sessions = Arc::new(sessions);
    let refresher = SessionRefresher::start(sessions, target(""), Start::Awaited, |_| {}).unwrap();
    let mut seen: Vec<String> = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(60);
    while Instant::now() < deadline && seen.last().is_none_or(|last| last != "none") {
        let asked = Timestamp::now();
        let now = match refresher.session() {
            Ok(session) => {
                assert!(session.credentials.expiration > asked);
                session.credentials.access_key_id.clone()
            }
            Err(_) => "none".to_owned(),
        };
        if seen.last() != Some(&now) {
            seen.push(now);
        }
        thread::sleep(Duration::from_millis(5));
    }
    // The third try may come too late for the first session.
    assert!(
        seen == ["A1", "none"] || seen == ["A1", "A3", "none"],
        "{seen:?}"
    );
}

/// The tries that a refresher makes, one after the other: `None` is a pause.
fn tries_of(start: Start, outcomes: Vec<bool>) -> (SessionRefresher, mpsc::Receiver<Tries>) {
    let (tell, told) = mpsc::channel();
    let outcomes = Mutex::new(outcomes.into_iter());
    let create = move |_: &Target, _, tries| {
        let _ = tell.send(tries);
        match outcomes.lock().unwrap().next() {
            Some(true) => {
                let now = Moment::now();
                let end = now.wall + SignedDuration::from_secs(1);
                Ok(Session::new(
                    credentials("A", &end.to_string()),
                    now,
                    None,
                    None,
                ))
            }
            _ => Err(elsewhere(SetbackKind::Unavailable)),
        }
    };
    let sessions = Arc::new(Sessions::by(Box::new(create), None, Progress::quiet()));
    let refresher = SessionRefresher::start(sessions, target(""), start, |_| {}).unwrap();
    (refresher, told)
}

const LONG: Duration = Duration::from_secs(60);

#[test]
fn several_tries_are_for_who_waits_for_the_first_session() {
    let (awaited, tries) = tries_of(Start::Awaited, vec![true, false]);
    assert_eq!(tries.recv_timeout(LONG), Ok(Tries::Several));
    assert_eq!(tries.recv_timeout(LONG), Ok(Tries::Once)); // ahead of its end
    assert_eq!(tries.recv_timeout(LONG), Ok(Tries::Once)); // after it
    drop(awaited);
    let (_alone, tries) = tries_of(Start::Within(Duration::ZERO), vec![]);
    assert_eq!(tries.recv_timeout(LONG), Ok(Tries::Once));
    assert_eq!(tries.recv_timeout(LONG), Ok(Tries::Once));
}

#[test]
fn the_first_try_waits_for_the_splay_or_for_who_needs_a_session() {
    let (refresher, tries) = tries_of(Start::Within(Duration::MAX / 2), vec![true]);
    assert!(refresher.at_hand().is_none());
    assert_eq!(tries.recv_timeout(LONG), Ok(Tries::Several));
}

#[test]
fn a_failed_try_is_repeated_at_once_when_something_has_changed() {
    let (refresher, tries) = tries_of(Start::Within(Duration::ZERO), vec![false; 100]);
    tries.recv_timeout(LONG).unwrap();
    refresher.session().unwrap_err();
    for _ in 0..20 {
        refresher.retry(); // without it, pauses grow to minutes
        tries.recv_timeout(LONG).unwrap();
    }
}

#[test]
fn a_session_of_the_cache_that_ends_soon_is_replaced_and_used_where_that_fails() {
    for (answers, expected) in [(true, "new"), (false, "old")] {
        let runtime = tempfile::tempdir_in("/dev/shm").unwrap();
        let cache = || Cache::open(runtime.path()).unwrap();
        let now = Moment::now();
        let session = move |key, begin, end| {
            let at = |minutes| now.wall + SignedDuration::from_mins(minutes);
            let wall = at(begin);
            let credentials = credentials(key, &at(end).to_string());
            Session::new(credentials, Moment { wall, ..now }, None, None)
        };
        let key = target("").key();
        let cached = cache().unwrap();
        cached.store(&key, &session("old", -50, 10)).unwrap();
        let create = move |_: &Target, _, _| match answers {
            true => Ok(session("new", 0, 60)),
            false => Err(elsewhere(SetbackKind::Unavailable)),
        };
        let sessions = Sessions::by(Box::new(create), cache(), Progress::quiet());
        let start = Start::Awaited;
        let refresher = SessionRefresher::start(Arc::new(sessions), target(""), start, |_| {});
        let got = refresher.unwrap().session().unwrap();
        assert_eq!(got.credentials.access_key_id, expected);
    }
}

#[test]
fn the_session_of_a_target_that_is_dropped_is_not_kept() {
    let create = |_: &Target, _, _| {
        let now = Moment::now();
        let end = now.wall + SignedDuration::from_hours(1);
        let credentials = credentials("A", &end.to_string());
        Ok(Session::new(credentials, now, None, None))
    };
    let sessions = Sessions::by(Box::new(create), None, Progress::quiet());
    let sessions = Arc::new(sessions);
    let start = Start::Awaited;
    let refresher =
        SessionRefresher::start(Arc::clone(&sessions), target(""), start, |_| {}).unwrap();
    refresher.session().unwrap();
    assert_eq!(sessions.count(), 1);
    drop(refresher);
    let deadline = Instant::now() + LONG;
    while sessions.count() > 0 {
        assert!(Instant::now() < deadline);
        thread::yield_now();
    }
}
