use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use hsm_fixtures::{AgentIdentity, Fault, KeyKind, Scene, Service, WEB_ROLE_ARN};
use serde_json::Value;
use tempfile::TempDir;

use crate::agent::{Lab, Web, in_memory, json_of, log_with, until};

/// A scene whose runs of `roleseal` keep their sessions.
struct Keeping {
    web: Web,
    runtime: TempDir,
}

impl Keeping {
    fn start() -> Keeping {
        Keeping::of(Lab::new(KeyKind::EcP256))
    }

    fn of(lab: Lab) -> Keeping {
        Keeping {
            web: lab.start(),
            runtime: in_memory(),
        }
    }

    fn credential_process(&self) -> Command {
        let mut command = self.web.credential_process();
        command.env("XDG_RUNTIME_DIR", self.runtime.path());
        command
    }

    fn key(&self) -> String {
        key_of(&self.credential_process().output().unwrap())
    }

    fn service(&self) -> &Service {
        self.web.scene.service()
    }

    fn directory(&self) -> std::path::PathBuf {
        self.runtime.path().join("roleseal")
    }
}

fn key_of(output: &Output) -> String {
    json_of(output)["AccessKeyId"].as_str().unwrap().to_owned()
}

fn start(mut command: Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

#[test]
fn a_hundred_at_once_ask_once_and_later_ones_not_at_all() {
    let keeping = Keeping::start();
    let running: Vec<_> = (0..100)
        .map(|_| start(keeping.credential_process()))
        .collect();
    let mut keys: Vec<_> = running
        .into_iter()
        .map(|child| key_of(&child.wait_with_output().unwrap()))
        .collect();
    keys.dedup();
    assert_eq!(keys.len(), 1, "{keys:?}");
    assert_eq!(keeping.service().create_session_requests(), 1);

    // Neither network nor agent is needed for it.
    keeping.service().stop_listening().unwrap();
    let Keeping { web, runtime } = keeping;
    let Web { agent, scene } = web;
    let log = log_with(&agent, "signed identity=web ");
    assert_eq!(log.matches("signed identity=").count(), 1, "{log}");
    agent.stop().unwrap();
    let again = |more: &[&str]| {
        let arguments = scene.credential_process("web", WEB_ROLE_ARN);
        let mut command = scene.roleseal(&arguments).unwrap();
        command
            .args(more)
            .env("XDG_RUNTIME_DIR", runtime.path())
            .output()
            .unwrap()
    };
    assert_eq!(key_of(&again(&[])), keys[0]);
    for another in [
        &["--no-cache"][..],
        &["--session-duration=900"],
        &["--role-session-name=ci"],
    ] {
        let output = again(another);
        assert_eq!(output.status.code(), Some(3), "{another:?} {output:?}");
        assert_eq!(output.stdout, b"");
    }
}

#[test]
fn without_a_runtime_directory_nothing_is_kept() {
    let web = Web::start();
    let keys = [(); 2].map(|()| key_of(&web.credential_process().output().unwrap()));
    assert_ne!(keys[0], keys[1]);
    let missing = web.scene.path("missing");
    let mut command = web.credential_process();
    command.env("XDG_RUNTIME_DIR", &missing);
    json_of(&command.output().unwrap());
    assert!(!missing.exists());
    // A service of systemd's has another.
    let runtime = in_memory();
    let keys = [(); 2].map(|()| {
        let mut command = web.credential_process();
        command.env("RUNTIME_DIRECTORY", runtime.path());
        key_of(&command.output().unwrap())
    });
    assert_eq!(keys[0], keys[1]);
}

#[test]
fn a_place_that_others_have_a_hand_in_is_not_used() {
    let web = Web::start();
    let other = in_memory();
    let link = |path: &Path| symlink(other.path(), path).unwrap();
    let open = |path: &Path| {
        std::fs::create_dir(path).unwrap();
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o777)).unwrap();
    };
    for (spoil, expected) in [
        (&link as &dyn Fn(&Path), "no directory"),
        (&open, "chmod 700"),
    ] {
        let runtime = in_memory();
        let directory = runtime.path().join("roleseal");
        spoil(&directory);
        let run = |more: &[&str]| {
            let mut command = web.credential_process();
            command.args(more).env("XDG_RUNTIME_DIR", runtime.path());
            let output = command.output().unwrap();
            (key_of(&output), String::from_utf8(output.stderr).unwrap())
        };
        let (first, stderr) = run(&[]);
        assert!(
            stderr.contains("warning") && stderr.contains(expected),
            "{stderr}"
        );
        let (second, stderr) = run(&["--quiet"]);
        assert_eq!(stderr, "");
        assert_ne!(first, second);
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
    }
}

#[test]
fn what_is_kept_is_dropped_when_it_is_damaged() {
    let keeping = Keeping::start();
    let first = keeping.key();
    let entry = std::fs::read_dir(keeping.directory())
        .unwrap()
        .map(|file| file.unwrap().path())
        .find(|path| path.extension().is_some_and(|end| end == "json"))
        .unwrap();
    assert_eq!(
        std::fs::metadata(&entry).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert_eq!(keeping.key(), first);
    let good = std::fs::read_to_string(&entry).unwrap();
    let empty = good.replace(&first, "");
    for damaged in ["", "{", &good[..good.len() / 2], &empty, "\u{fffd}"] {
        std::fs::write(&entry, damaged).unwrap();
        let output = keeping.credential_process().output().unwrap();
        assert_ne!(key_of(&output), first);
        assert_eq!(output.stderr, b"");
    }
}

#[test]
fn a_session_is_replaced_before_it_ends() {
    let scene = Scene::with_service(|service| service.session_seconds = Some(8)).unwrap();
    let keeping = Keeping::of(Lab::of(scene, KeyKind::EcP256));
    let deadline = Instant::now() + Duration::from_secs(60);
    let (first, mut calls) = (keeping.key(), 1);
    let second = loop {
        calls += 1;
        let output = json_of(&keeping.credential_process().output().unwrap());
        let expiration: String = output["Expiration"].as_str().unwrap().to_owned();
        let left = seconds_until(&keeping.web.scene, &expiration);
        assert!(left > 0.0, "{left}");
        let key = output["AccessKeyId"].as_str().unwrap().to_owned();
        if key != first {
            break key;
        }
        assert!(Instant::now() < deadline);
    };
    assert_ne!(first, second);
    assert_eq!(keeping.service().sessions_created(), 2, "{calls} calls");
    assert!(calls > 5, "{calls}");
}

/// By date(1), which is not ours.
fn seconds_until(scene: &Scene, time: &str) -> f64 {
    let date = |args: &[&str]| {
        let output = scene.command("date").args(args).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.trim().parse::<f64>().unwrap()
    };
    date(&["-d", time, "+%s.%N"]) - date(&["+%s.%N"])
}

#[test]
fn the_agent_has_a_say_in_what_is_kept() {
    let scene = Scene::new().unwrap();
    let token = scene.add_token("lab").unwrap();
    let web = scene.add_identity(&token, "web", KeyKind::EcP256).unwrap();
    let renewed = AgentIdentity {
        name: "web".to_owned(),
        allow: web.allow.clone(),
        ..scene
            .add_identity(&token, "renewed", KeyKind::EcP256)
            .unwrap()
    };
    let mut config = scene.agent_config(vec![web]).unwrap();
    let runtime = in_memory();
    let run = || {
        let arguments = scene.credential_process("web", WEB_ROLE_ARN);
        let mut command = scene.roleseal(&arguments).unwrap();
        command
            .env("XDG_RUNTIME_DIR", runtime.path())
            .output()
            .unwrap()
    };

    let agent = scene.start_agent(&config).unwrap();
    let first = key_of(&run());
    assert_eq!(key_of(&run()), first);
    agent.stop().unwrap();
    assert_eq!(key_of(&run()), first); // nobody is there to object

    config.identity = vec![renewed]; // another certificate is another subject for AWS
    let agent = scene.start_agent(&config).unwrap();
    crate::agent::identities(&scene); // which it knows once the token is open
    let second = key_of(&run());
    assert_ne!(second, first);
    assert_eq!(key_of(&run()), second);
    agent.stop().unwrap();

    config.identity[0].name = "other".to_owned(); // "web" is not permitted any more
    let agent = scene.start_agent(&config).unwrap();
    let output = run();
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    assert_eq!(output.stdout, b"");
    agent.stop().unwrap();
}

/// Faults that one run of roleseal outlasts, and those that end it.
const PASSING: [Fault; 4] = [
    Fault::Status(500),
    Fault::Status(503),
    Fault::Status(429),
    Fault::Truncated,
];
const FINAL: [Fault; 5] = [
    Fault::Status(403),
    Fault::Garbage,
    Fault::Empty,
    Fault::Partial,
    Fault::Expired,
];

/// Every two faults one after the other, then none: nothing that is no credential is ever printed, what passes is
/// tried again, and what does not is not.
#[test]
fn whatever_order_the_service_fails_in_nothing_wrong_is_printed() {
    let faults: Vec<Fault> = PASSING.into_iter().chain(FINAL).collect();
    std::thread::scope(|scope| {
        for chunk in faults.chunks(3) {
            let faults = &faults;
            scope.spawn(move || {
                let keeping = Keeping::start();
                for first in chunk {
                    faults
                        .iter()
                        .for_each(|second| fail_twice(&keeping, *first, *second));
                }
            });
        }
    });
}

fn fail_twice(keeping: &Keeping, first: Fault, second: Fault) {
    let _ = std::fs::remove_dir_all(keeping.directory());
    let service = keeping.service();
    let before = service.create_session_requests();
    service.fail_next([first, second]);
    // A run goes on until a fault that is final, or a session.
    let mut expected_requests = before;
    for fault in [Some(first), Some(second), None] {
        expected_requests += 1;
        if fault.is_some_and(|fault| PASSING.contains(&fault)) {
            continue;
        }
        let output = run_either(keeping, fault);
        assert_eq!(
            service.create_session_requests(),
            expected_requests,
            "{first:?} {second:?}"
        );
        if fault.is_some() {
            assert_eq!(
                output.status.code(),
                Some(6),
                "{first:?} {second:?} {output:?}"
            );
            assert_eq!(output.stdout, b"");
        } else {
            assert!(output.status.success(), "{first:?} {second:?} {output:?}");
            assert!(!output.stdout.is_empty());
        }
    }
}

/// Both commands print credentials: which one must not matter.
fn run_either(keeping: &Keeping, fault: Option<Fault>) -> Output {
    let mut arguments = keeping.web.scene.credential_process("web", WEB_ROLE_ARN);
    if fault == Some(Fault::Empty) || fault.is_none() {
        arguments[0] = "env".to_owned();
    }
    let mut command = keeping.web.scene.roleseal(&arguments).unwrap();
    command
        .env("XDG_RUNTIME_DIR", keeping.runtime.path())
        .output()
        .unwrap()
}

#[test]
fn a_service_that_is_gone_is_a_network_error_until_it_is_back() {
    let keeping = Keeping::start();
    keeping.service().stop_listening().unwrap();
    let running: Vec<_> = (0..4)
        .map(|_| start(keeping.credential_process()))
        .collect();
    for child in running {
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(7), "{output:?}");
        assert_eq!(output.stdout, b"");
    }
    keeping.service().listen_again().unwrap();
    let first = keeping.key();
    assert_eq!(keeping.key(), first);
    // It may come back while somebody is trying.
    keeping.service().stop_listening().unwrap();
    let tried = || {
        let log = keeping.web.agent.process().log();
        log.matches("signed identity=web ").count()
    };
    let before = tried();
    let mut command = keeping.credential_process();
    command.arg("--no-cache");
    let child = start(command);
    until("it has tried twice", || {
        (tried() >= before + 2).then_some(())
    });
    keeping.service().listen_again().unwrap();
    let output = child.wait_with_output().unwrap();
    json_of(&output); // three tries were left, seconds apart
}

#[test]
fn who_waits_at_a_terminal_is_told_for_what() {
    let web = Web::start();
    web.scene.service().fail_next([Fault::Hang]);
    let command = web.credential_process();
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_str().unwrap().to_owned())
        .collect();
    let mut script: Command = web.scene.command("script");
    let log = web.scene.path("typescript");
    script
        .args(["-qec", &words.join(" ")])
        .arg(&log)
        .stdin(Stdio::null());
    let output = script.output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{shown}");
    let waiting = shown.find("roleseal: waiting for localhost:").unwrap();
    let credentials = shown.find("\"AccessKeyId\"").unwrap(); // after the hung try was given up
    assert!(waiting < credentials, "{shown}");
    let quick = web.credential_process().output().unwrap();
    assert_eq!(quick.stderr, b"");
}

#[test]
fn env_prints_what_works() {
    let web = Web::start();
    let run = |format: &str| {
        let mut arguments = web.scene.credential_process("web", WEB_ROLE_ARN);
        arguments[0] = "env".to_owned();
        let mut command = web.scene.roleseal(&arguments).unwrap();
        let output = command.args(["--format", format]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let json: Value = run("json").parse().unwrap();
    assert_eq!(json.as_object().unwrap().len(), 4);
    let script = format!(
        "{}{} sts get-caller-identity --region eu-central-1",
        run("sh"),
        crate::agent::venv("aws").display()
    );
    let mut shell: Command = web.scene.command("sh");
    let output = shell
        .args(["-c", &script])
        .env("AWS_ENDPOINT_URL_STS", web.scene.service().url())
        .env("AWS_CA_BUNDLE", web.scene.pki().root_path())
        .output()
        .unwrap();
    let identity = json_of(&output);
    assert!(
        identity["Arn"]
            .as_str()
            .unwrap()
            .contains("assumed-role/web-deploy/")
    );
}
