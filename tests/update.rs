pub(crate) mod stage;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use hsm_fixtures::{Fault, Process};
use serde_json::Value;

use crate::agent::until;
use stage::{ORIGINAL, Stage};

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The access key of a profile in a text, and how many lines of ours it has.
fn key(text: &str, profile: &str) -> Option<String> {
    let (_, section) = text.split_once(&format!("[{profile}]"))?;
    let section = section.split("\n[").next()?;
    let mut lines = section.lines();
    let line = lines.find_map(|line| line.strip_prefix("aws_access_key_id = "))?;
    Some(line.to_owned())
}

#[test]
fn several_profiles_are_written_at_once_and_nothing_else_changes() {
    let stage = Stage::new(None);
    fs::set_permissions(stage.file(), PermissionsExt::from_mode(0o640)).unwrap();
    let watch = stage.watch(&["web", "batch"]);
    let output = stage.once(&["--target", "web", "--target", "batch"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stdout, b"");
    let said = stderr(&output);
    assert!(
        said.contains("profile web: credentials until 20") && said.contains(".aws/credentials"),
        "{said}"
    );
    let seen = watch.end();
    for profile in ["web", "batch"] {
        let key = key(&stage.text(), profile).unwrap();
        assert!(key.starts_with("ASIA"), "{key}");
        let keys = seen[profile].as_array().unwrap();
        assert!(
            keys.iter().all(|seen| seen.is_null() || *seen == key),
            "{seen}"
        );
        for arn in [stage.aws_cli(profile), stage.boto3(profile)] {
            let arn = arn.as_str().unwrap();
            assert!(arn.contains(&format!("assumed-role/{profile}-")), "{arn}");
        }
    }
    let mode = fs::metadata(stage.file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o640);
    assert_eq!(stage.service().sessions_created(), 2);

    // Each run asks anew; by other names they are other profiles.
    let before = stage.text();
    let output = stage.once(&["--target", "web", "--profile", "my web", "--quiet"]);
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
    let after = stage.text();
    let new = after.strip_prefix(&before).unwrap();
    assert!(
        new.starts_with("\n\n[my web]\naws_access_key_id = ASIA"),
        "{new}"
    );
    stage.boto3("my web");
}

#[test]
fn a_file_of_its_own_is_made() {
    let stage = Stage::new(None);
    let file = stage.scene.path("new/credentials");
    let path = file.display().to_string();
    let mut command = stage.update(&["--once", "--target", "web"]);
    command.env("AWS_SHARED_CREDENTIALS_FILE", &path);
    assert!(command.output().unwrap().status.success());
    let from_environment = fs::read_to_string(&file).unwrap();
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let named = ["--target", "web", "--credentials-file", &path];
    assert!(stage.once(&named).status.success());
    assert_ne!(from_environment, fs::read_to_string(&file).unwrap());
    assert_eq!(stage.text(), ORIGINAL);
}

#[test]
fn what_others_wrote_is_left_alone_and_aws_is_not_asked() {
    let stage = Stage::new(None);
    let refused = |arguments: &[&str], code: i32, reason: &str| {
        let before = stage.text();
        let output = stage.once(arguments);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let said = stderr(&output);
        assert!(
            said.contains(reason) && !said.contains("other/+="),
            "{said}"
        );
        assert_eq!(stage.text(), before);
        // One that is to be kept fresh ends at once as well.
        let output = stage.update(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{output:?}");
    };
    let default = ["--target", "web", "--profile", "default"];
    refused(&default, 1, "[default], line 4, holds long-lived keys");
    refused(
        &["--target", "web", "--profile", "a]b"],
        2,
        "profile's name",
    );
    refused(&["--target", "web", "--target", "web"], 2, "written twice");
    let two = ["--target=web", "--target=batch", "--profile=x"];
    refused(&two, 2, "1 times, for 2 targets");
    fs::write(stage.file(), format!("{ORIGINAL}\n[broken\n")).unwrap();
    refused(&["--target", "web"], 1, "closing bracket");
    fs::write(stage.file(), ORIGINAL).unwrap();
    assert_eq!(stage.service().create_session_requests(), 0);

    let output = stage.once(&[&default[..], &["--force"]].concat());
    assert!(output.status.success(), "{output:?}");
    assert!(
        stage
            .text()
            .starts_with("# mine\n\n[default]\naws_access_key_id = ASIA")
    );
    assert!(stage.once(&default).status.success()); // they are ours now
}

#[test]
fn profiles_are_kept_fresh_for_the_aws_cli_and_boto3() {
    let stage = Stage::new(Some(20));
    let socket = stage.scene.path("notify.sock");
    let systemd = UnixDatagram::bind(&socket).unwrap();
    systemd
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let watch = stage.watch(&["web", "batch"]);
    let mut command = stage.update(&["--target", "web", "--target", "batch", "--splay", "0"]);
    command.env("NOTIFY_SOCKET", &socket);
    let update = Process::spawn(command, &stage.scene.path("update.log")).unwrap();
    let mut told = String::new();
    while !told.contains("READY=1") {
        let mut buffer = [0; 4096];
        let length = systemd.recv(&mut buffer).unwrap();
        told.push_str(str::from_utf8(&buffer[..length]).unwrap());
    }
    assert!(
        told.contains("STATUS=") && told.contains("batch until 20"),
        "{told}"
    );
    // systemd goes on reading: a full socket would hold up who writes to it.
    std::thread::spawn(move || while systemd.recv(&mut [0; 4096]).is_ok() {});
    // Ready means that all are there.
    let mut keys = [Vec::new(), Vec::new()];
    let deadline = Instant::now() + Duration::from_secs(120);
    while keys.iter().any(|keys| keys.len() < 3) {
        assert!(Instant::now() < deadline, "{keys:?}\n{}", update.log());
        for (profile, keys) in ["web", "batch"].into_iter().zip(&mut keys) {
            let key = key(&stage.text(), profile).unwrap();
            if !keys.contains(&key) {
                keys.push(key);
            }
            for arn in [stage.aws_cli(profile), stage.boto3(profile)] {
                assert!(arn.as_str().unwrap().contains(profile), "{arn}");
            }
        }
    }
    assert!(update.stop().unwrap().success());
    let seen = watch.end();
    let gaps = |profile: &str| {
        seen[profile]
            .as_array()
            .unwrap()
            .iter()
            .filter(|key| key.is_null())
            .count()
    };
    assert_eq!((gaps("web"), gaps("batch")), (1, 1), "{seen}"); // before the first
    assert!(key(&stage.text(), "web").is_some()); // what is left of them can be used
}

/// What is in the file is whole, of the present, and of nobody else, whatever the service does; and it is there again
/// when the service is.
#[test]
fn while_the_service_fails_nothing_wrong_is_in_the_file() {
    let troubles: [&(dyn Fn(&Stage) + Sync); 6] = [
        &|stage| stage.service().stop_listening().unwrap(),
        &|stage| stage.service().set_fault(Some(Fault::Status(500))),
        &|stage| stage.service().set_fault(Some(Fault::Status(403))),
        &|stage| stage.service().set_fault(Some(Fault::Hang)),
        &|stage| stage.service().set_fault(Some(Fault::Expired)),
        &|stage| stage.service().set_fault(Some(Fault::Partial)),
    ];
    std::thread::scope(|scope| {
        for trouble in troubles {
            scope.spawn(move || outlast(trouble));
        }
    });
}

fn outlast(trouble: &dyn Fn(&Stage)) {
    let stage = Stage::new(Some(10));
    let watch = stage.watch(&["web"]);
    trouble(&stage); // from the start
    let update = stage.keep(&["--target", "web"]);
    until("it says that it failed", || {
        update
            .log()
            .contains("There are no credentials")
            .then_some(())
    });
    assert_eq!(stage.text(), ORIGINAL);
    let mend = || {
        stage.service().set_fault(None);
        stage.service().listen_again().unwrap();
        until("there are credentials", || key(&stage.text(), "web"))
    };
    let first = mend();
    trouble(&stage);
    until("they have ended and are gone", || {
        key(&stage.text(), "web").is_none().then_some(())
    });
    until("it says so", || {
        update.log().contains("are no longer in").then_some(())
    });
    assert_eq!(stage.text(), ORIGINAL);
    let last = mend();
    assert_ne!(first, last);
    stage.aws_cli("web");
    assert!(update.stop().unwrap().success());
    let seen = watch.end();
    let keys = seen["web"].as_array().unwrap();
    assert!(
        keys.contains(&Value::Null) && keys.contains(&last.into()),
        "{seen}"
    );
}

/// Every two faults one after the other, and what `--once` makes of them.
#[test]
fn whatever_order_the_service_fails_in_once_writes_a_session_or_nothing() {
    let faults = [
        Fault::Status(500),
        Fault::Status(503),
        Fault::Status(429),
        Fault::Truncated,
        Fault::Status(403),
        Fault::Garbage,
        Fault::Empty,
        Fault::Partial,
        Fault::Expired,
    ];
    std::thread::scope(|scope| {
        for chunk in faults.chunks(3) {
            scope.spawn(move || {
                let stage = Stage::new(None);
                let watch = stage.watch(&["web"]);
                for pair in chunk.iter().flat_map(|one| faults.map(|two| [*one, two])) {
                    recover_from(&stage, pair);
                }
                watch.end();
            });
        }
    });
}

/// Runs until the faults are over: each run writes a session, or fails and leaves what there was.
fn recover_from(stage: &Stage, faults: [Fault; 2]) {
    stage.service().fail_next(faults);
    for _ in 0..=faults.len() {
        let before = stage.text();
        let output = stage.once(&["--target", "web"]);
        if output.status.success() {
            assert_ne!(key(&stage.text(), "web"), key(&before, "web"));
            return;
        }
        assert_eq!(output.status.code(), Some(6), "{faults:?} {output:?}");
        assert_eq!(stage.text(), before, "{faults:?}");
    }
    panic!("{faults:?} are not over");
}

/// Two write at the same time, each is killed a hundred times at any moment of its run.
#[test]
fn two_hundred_kills_leave_the_file_whole() {
    let stage = Stage::new(None);
    let watch = stage.watch(&["web", "batch"]);
    let begin = Instant::now();
    assert!(
        stage
            .once(&["--target", "web", "--target", "batch"])
            .status
            .success()
    );
    let run = begin.elapsed();
    std::thread::scope(|scope| {
        for (profile, seed) in [("web", 0x2545_f491), ("batch", 0x9e37_79b9)] {
            let stage = &stage;
            scope.spawn(move || kill_often(stage, profile, run, seed));
        }
    });
    let output = stage.once(&["--target", "web", "--target", "batch"]);
    assert!(output.status.success(), "{output:?}");
    let seen = watch.end();
    for profile in ["web", "batch"] {
        assert!(seen[profile].as_array().unwrap().len() > 10, "{seen}"); // some came through
        stage.aws_cli(profile);
    }
    let mut names: Vec<_> = fs::read_dir(stage.scene.path(".aws"))
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, [".credentials.roleseal.lock", "credentials"]);
}

fn kill_often(stage: &Stage, profile: &str, run: Duration, mut random: u32) {
    for _ in 0..100 {
        random ^= random << 13; // xorshift
        random ^= random >> 17;
        random ^= random << 5;
        let mut command = stage.update(&["--once", "--target", profile]);
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Not to wait for something: it is the moment of death, mostly towards the end of a run.
        std::thread::sleep(run.mul_f64(0.5 + f64::from(random) / f64::from(u32::MAX)));
        let _ = child.kill();
        child.wait().unwrap();
    }
}
