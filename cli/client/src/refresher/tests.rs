use std::sync::mpsc;

use super::*;
use crate::progress::Progress;
use crate::session::tests::session;
use crate::target::tests::target;

const BEGIN: &str = "2026-01-01T12:00:00Z";

fn at(minutes: i64, seconds: i64) -> Timestamp {
    let begin: Timestamp = BEGIN.parse().unwrap();
    begin + SignedDuration::from_mins(minutes) + SignedDuration::from_secs(seconds)
}

fn hour(key: &str) -> Shared {
    Ok(Arc::new(session(key, BEGIN, "2026-01-01T13:00:00Z")))
}

fn failure() -> Shared {
    Err(Arc::new(Error::Lost))
}

#[test]
fn a_session_is_renewed_up_to_five_minutes_before_it_stops_being_fresh() {
    for (random, next) in [(0.0, at(45, 0)), (0.6, at(42, 0)), (1.0, at(40, 0))] {
        let mut status = Status::default();
        status.note(hour("A"), at(0, 1), random);
        assert_eq!(status.next, Some(next));
    }
    // However short or old it is, not at once again.
    let mut status = Status::default();
    status.note(hour("A"), at(59, 0), 0.0);
    assert_eq!(status.next, Some(at(59, 1)));
}

#[test]
fn failures_are_counted_and_the_session_stays() {
    let mut status = Status::default();
    status.note(hour("A"), at(0, 1), 0.0);
    status.note(failure(), at(45, 0), 1.0);
    assert_eq!(status.next, Some(at(45, 2)));
    for minute in 46..50 {
        status.note(failure(), at(minute, 0), 0.0);
    }
    let failed = status.failure.clone().unwrap();
    assert_eq!((failed.since, failed.tries), (at(45, 0), 5));
    assert_eq!(status.next, Some(at(49, 16)));
    assert_eq!(
        status.session.as_ref().unwrap().credentials.access_key_id,
        "A"
    );
    status.note(hour("B"), at(50, 0), 0.0);
    assert!(status.failure.is_none());
    assert_eq!(status.session.unwrap().credentials.access_key_id, "B");
}

#[test]
fn a_failure_is_told_to_who_asks_and_to_the_listener() {
    // No agent is there: each try fails at once.
    let sessions = Arc::new(Sessions::new(None, Progress::quiet()));
    let nowhere = target("endpoint = \"https://localhost:1\"\nidentity = \"web\"");
    let (tell, told) = mpsc::channel();
    let refresher = SessionRefresher::start(sessions, nowhere, move |status| {
        let _ = tell.send(status.failure.clone().unwrap().tries);
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
        let now = Timestamp::now();
        let end = now + SignedDuration::from_secs(4);
        match tries {
            1 | 3 => Ok(session(
                &format!("A{tries}"),
                &now.to_string(),
                &end.to_string(),
            )),
            _ => Err(Error::Lost),
        }
    };
    let create = Mutex::new(create);
    let create = move |_: &Target, _| create.lock().unwrap()();
    let sessions = Sessions::by(Box::new(create), None, Progress::quiet());
    let refresher = SessionRefresher::start(Arc::new(sessions), target(""), |_| {}).unwrap();
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
