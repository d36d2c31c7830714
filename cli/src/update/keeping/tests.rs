use std::sync::LazyLock;

use client::credentials::Credentials;

use super::*;

static STEADY: LazyLock<Instant> = LazyLock::new(Instant::now);

fn at(seconds: u64) -> Moment {
    let begin: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
    Moment {
        wall: begin,
        steady: *STEADY,
    }
    .later(Duration::from_secs(seconds))
}

fn minute(key: &str, begin: u64) -> Status {
    let credentials = Credentials {
        access_key_id: key.into(),
        secret_access_key: "s3cret".into(),
        session_token: "t0ken".into(),
        expiration: at(begin + 60).wall,
    };
    let session = Session::new(credentials, at(begin), None, None);
    let mut status = Status::default();
    status.session = Some(Arc::new(session));
    status
}

fn put(task: Option<Task>) -> String {
    match task {
        Some(Task::Put(session)) => session.credentials.access_key_id.clone(),
        other => panic!("{other:?}"),
    }
}

fn done(profile: &mut Profile, now: Moment) {
    let task = profile.task(now).unwrap();
    profile.note(&task, Ok(()), now);
}

#[test]
fn what_ended_goes_and_what_is_new_comes() {
    let mut profile = Profile::new("web".parse().unwrap());
    assert!(matches!(profile.task(at(0)), Some(Task::Withdraw(_)))); // of an earlier run
    done(&mut profile, at(0));
    assert!(profile.task(at(0)).is_none() && profile.wait(at(0)).is_none());
    profile.hear(minute("A", 0), at(1));
    assert_eq!(put(profile.task(at(1))), "A");
    done(&mut profile, at(1));
    assert!(profile.task(at(58)).is_none());
    assert_eq!(profile.wait(at(1)), Some(Duration::from_secs(58)));
    assert!(matches!(profile.task(at(59)), Some(Task::Withdraw(_))));
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
    let wait = profile.wait(at(1)).unwrap();
    assert!(wait <= Duration::from_secs(1), "{wait:?}");
    let (due, wall) = (at(1).later(wait), at(1).wall);
    // Whatever the wall clock says.
    for wall in [wall - Duration::from_hours(2), due.wall] {
        let now = Moment { wall, ..due };
        assert_eq!(put(profile.task(now)), "A");
    }
    done(&mut profile, due);
    assert_eq!(profile.failures, 0);
}

#[test]
fn a_clock_that_is_set_takes_nothing_that_is_good_and_leaves_nothing_that_is_not() {
    let off = |now: Moment, wall| Moment { wall, ..now };
    let mut profile = Profile::new("web".parse().unwrap());
    profile.hear(minute("A", 0), at(1));
    done(&mut profile, at(1));
    // Forward, and right again.
    let ahead = off(at(2), at(7200).wall);
    assert!(matches!(profile.task(ahead), Some(Task::Withdraw(_))));
    done(&mut profile, ahead);
    assert_eq!(put(profile.task(at(3))), "A");
    done(&mut profile, at(3));
    // Back, and the session ends.
    let behind = off(at(60), at(0).wall);
    match profile.task(behind) {
        Some(Task::Withdraw(end)) => assert_eq!(end, at(60).wall),
        other => panic!("{other:?}"),
    }
}
