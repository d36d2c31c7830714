use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use secrecy::ExposeSecret;
use tempfile::TempDir;

use super::*;
use crate::session::tests::session;

const KEY: &str = "00ff";

/// A directory in memory: every Linux has this one.
fn runtime() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap()
}

fn hour(name: &str) -> Session {
    session(name, "2026-01-01T12:00:00Z", "2026-01-01T13:00:00Z")
}

fn open(runtime: &TempDir) -> Cache {
    Cache::open(runtime.path()).unwrap().unwrap()
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

#[test]
fn a_session_is_found_again_by_its_key_alone() {
    let runtime = runtime();
    open(&runtime).store(KEY, &hour("A")).unwrap();
    open(&runtime).store("other", &hour("B")).unwrap();
    let found = open(&runtime).load(KEY).unwrap();
    assert_eq!(found.credentials.access_key_id, "A");
    assert_eq!(
        found.credentials.secret_access_key.expose_secret(),
        "s3cret"
    );
    assert_eq!(found.credentials.session_token.expose_secret(), "t0ken");
    assert_eq!(
        found.credentials.expiration,
        hour("A").credentials.expiration
    );
    assert_eq!(
        (found.issued, found.serial),
        (hour("A").issued, Some("42".into()))
    );
    open(&runtime).store(KEY, &hour("C")).unwrap();
    assert_eq!(
        open(&runtime).load(KEY).unwrap().credentials.access_key_id,
        "C"
    );
    assert!(open(&runtime).load("third").is_none());

    let directory = runtime.path().join("roleseal");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory), 0o700);
    let names: Vec<_> = fs::read_dir(&directory)
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names.iter().all(|path| mode(path) == 0o600));
}

#[test]
fn a_corrupt_entry_is_dropped() {
    let runtime = runtime();
    let cache = open(&runtime);
    cache.store(KEY, &hour("A")).unwrap();
    let path = runtime.path().join("roleseal/00ff.json");
    let good = fs::read_to_string(&path).unwrap();
    for bad in [
        String::new(),
        "garbage".into(),
        good[..good.len() - 1].into(),
        good.replace("\"A\"", "\"\""),
        good.replace("s3cret", "s3\\ncret"),
        good.replace("t0ken", ""),
        good.replace("secretAccessKey", "secret"),
        good.replace("2026-01-01T13:00:00Z", "soon"),
        good.replace("issued", "i"),
        format!("{good}{}", " ".repeat(70_000)) + "x",
    ] {
        fs::write(&path, &bad).unwrap();
        assert!(cache.load(KEY).is_none(), "{bad}");
        assert!(!path.exists(), "{bad}");
    }
    fs::write(&path, &good).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(cache.load(KEY).is_none()); // others may have read or written it
    fs::write(runtime.path().join("elsewhere"), &good).unwrap();
    symlink("../elsewhere", &path).unwrap();
    assert!(cache.load(KEY).is_none());
    assert!(runtime.path().join("elsewhere").exists());
}

#[test]
fn there_is_none_without_a_directory_in_memory() {
    let missing = runtime();
    let path = missing.path().join("missing");
    assert!(Cache::open(&path).unwrap().is_none());
    // Nothing can be made there: that would be an error.
    assert!(Cache::open(Path::new("/proc")).unwrap().is_none());
}

#[test]
fn a_directory_that_others_have_a_hand_in_is_refused() {
    let refused = |make: &dyn Fn(&Path), expected: &str| {
        let runtime = runtime();
        let path = runtime.path().join("roleseal");
        make(&path);
        let error = Cache::open(runtime.path()).unwrap_err().to_string();
        assert!(
            error.contains(expected) && error.contains("roleseal"),
            "{error}"
        );
    };
    let with_mode = |mode| {
        move |path: &Path| {
            fs::create_dir(path).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
    };
    refused(&with_mode(0o755), "0755");
    refused(&with_mode(0o770), "0770");
    refused(&|path| symlink("/dev/shm", path).unwrap(), "no directory");
    refused(&|path| fs::write(path, "").unwrap(), "no directory");
}

#[test]
fn a_directory_of_another_user_is_refused_and_nothing_made_there() {
    if as_root::by_sudo!() {
        return;
    }
    let (other, ours) = (runtime(), runtime());
    open(&ours);
    let directory = ours.path().join("roleseal");
    for (runtime, directory) in [(&other, other.path()), (&ours, &directory)] {
        chown(directory, Some(65534), None).unwrap();
        let error = Cache::open(runtime.path()).unwrap_err().to_string();
        assert!(error.contains("owner is the user 65534"), "{error}");
    }
    assert!(!other.path().join("roleseal").exists());
}

#[test]
fn one_at_a_time_has_the_lock() {
    let runtime = runtime();
    let (inside, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let lock = open(&runtime).lock(KEY, soon()).unwrap();
                most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                thread::sleep(Duration::from_millis(2)); // give the others a chance to err
                inside.fetch_sub(1, Ordering::SeqCst);
                drop(lock);
            });
        }
    });
    assert_eq!(most.into_inner(), 1);
}

#[test]
fn who_waits_too_long_is_told_for_whom() {
    let runtime = runtime();
    let _held = open(&runtime).lock(KEY, soon()).unwrap();
    let error = open(&runtime).lock(KEY, Instant::now()).unwrap_err();
    assert!(matches!(error, CacheError::Busy { .. }));
    assert!(error.hint().unwrap().contains("roleseal/00ff.lock"));
    assert!(open(&runtime).lock("other", Instant::now()).is_ok());
}

#[test]
fn who_waited_shares_the_failure_and_nobody_else() {
    let runtime = runtime();
    let cache = open(&runtime);
    let begin: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
    let later = begin + jiff::SignedDuration::from_secs(1);
    let mut lock = cache.lock(KEY, soon()).unwrap();
    let failure = |at, message: &str| Failure {
        hint: None,
        at,
        exit: 6,
        message: message.into(),
        kind: SetbackKind::Refused,
        schedule: Schedule::default(),
        next: at,
    };
    lock.leave(&failure(begin, "a longer one, which is replaced"));
    lock.leave(&failure(begin, "refused"));
    let mut waiting = thread::scope(|scope| {
        let waiter = scope.spawn(|| cache.lock(KEY, soon()).unwrap());
        // Nothing outside shows that it waits: either way it must not see more than it should.
        thread::sleep(Duration::from_millis(50));
        drop(lock);
        waiter.join().unwrap()
    });
    assert!(waiting.waited);
    assert!(waiting.failure_since(later).is_none());
    let shared = waiting.failure_since(begin).unwrap();
    assert_eq!((shared.exit, shared.message.as_str()), (6, "refused"));
    drop(waiting);
    let mut next = cache.lock(KEY, soon()).unwrap();
    assert!(next.failure_since(begin).is_none()); // it did not wait

    // Left by a clock that was ahead.
    next.waited = true;
    let ahead = Timestamp::now() + jiff::SignedDuration::from_hours(1);
    next.leave(&failure(ahead, "refused"));
    assert!(next.failure_since(begin).is_none());
}

#[test]
fn what_is_older_than_any_session_is_swept() {
    let runtime = runtime();
    let cache = open(&runtime);
    let directory = runtime.path().join("roleseal");
    let write = |name: &str, hours: i64| {
        let path = directory.join(name);
        fs::write(&path, "").unwrap();
        let age = jiff::SignedDuration::from_hours(hours);
        let seconds = (hour("A").issued - age).as_second();
        let time = std::time::UNIX_EPOCH + Duration::from_secs(seconds.cast_unsigned());
        fs::File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(time)
            .unwrap();
        path
    };
    let old = [
        write("a.json", 13),
        write("b.1.new", 13),
        write("b.new.1", 13),
    ];
    let kept = [
        write("c.json", 11),
        write("d.lock", 13),
        write("agent.sock", 13),
    ];
    cache.store(KEY, &hour("A")).unwrap();
    assert!(old.iter().all(|path| !path.exists()));
    assert!(kept.iter().all(|path| path.exists()));
}
