use super::*;
use crate::test_support::session;

fn at(seconds: i64) -> Timestamp {
    let begin: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
    begin + SignedDuration::from_secs(seconds)
}

fn minute(key: &str, begin: i64) -> Status {
    let (issued, end) = (at(begin).to_string(), at(begin + 60).to_string());
    Status {
        session: Some(Arc::new(session(key, &issued, &end))),
        ..Status::default()
    }
}

fn put(task: Option<Task>) -> String {
    match task {
        Some(Task::Put(session)) => session.credentials.access_key_id.clone(),
        other => panic!("{other:?}"),
    }
}

fn done(profile: &mut Profile, now: Timestamp) {
    let task = profile.task(now).unwrap();
    profile.note(&task, Ok(()), now);
}

#[test]
fn what_ended_goes_and_what_is_new_comes() {
    let mut profile = Profile::new("web".parse().unwrap());
    assert!(matches!(profile.task(at(0)), Some(Task::Withdraw))); // of an earlier run
    done(&mut profile, at(0));
    assert!(profile.task(at(0)).is_none() && profile.due(at(0)).is_none());
    profile.hear(minute("A", 0), at(1));
    assert_eq!(put(profile.task(at(1))), "A");
    done(&mut profile, at(1));
    assert!(profile.task(at(58)).is_none());
    assert_eq!(profile.due(at(1)), Some(at(59)));
    assert!(matches!(profile.task(at(59)), Some(Task::Withdraw)));
    done(&mut profile, at(59));
    assert!(profile.task(at(70)).is_none() && profile.written.is_none());
    profile.hear(minute("B", 70), at(71));
    assert_eq!(put(profile.task(at(71))), "B");
    done(&mut profile, at(71));
    profile.hear(minute("C", 100), at(101));
    assert_eq!(put(profile.task(at(101))), "C");
}

#[test]
fn a_file_that_cannot_be_written_is_tried_again_later() {
    let mut profile = Profile::new("web".parse().unwrap());
    profile.hear(minute("A", 0), at(1));
    let task = profile.task(at(1)).unwrap();
    let full = FileError::Restless { path: "/f".into() };
    profile.note(&task, Err(full), at(1));
    assert!(profile.task(at(1)).is_none());
    let due = profile.due(at(1)).unwrap();
    assert!(due > at(1) && due <= at(2), "{due}");
    assert_eq!(put(profile.task(due)), "A");
    done(&mut profile, due);
    assert_eq!(profile.failures, 0);
}
