use std::path::Path;
use std::process::Command;

use hsm_fixtures::{Fault, KeyKind};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::agent::{Lab, Web, in_memory, json_of, until};
use crate::clock::Clock;
use crate::serving::{Serving, command, key_of, short_sessions};

/// Longer than a test.
const LONG: u32 = 900;

/// How the service refuses, and asks for a pause longer than a test.
fn with_pause(status: u16) -> Option<Fault> {
    Some(Fault::RetryAfter {
        status,
        seconds: LONG,
    })
}

/// The target `web` at `/healthz`.
fn target(serving: &Serving) -> Value {
    let mut health = serving.http().get("/healthz", &[]).json();
    health["targets"][0].take()
}

fn until_state(serving: &Serving, state: &str) -> Value {
    until(state, || {
        let target = target(serving);
        (target["state"] == state).then_some(target)
    })
}

fn key(serving: &Serving) -> String {
    let headers = [("Authorization", &*serving.token())];
    key_of(&serving.http().get("/credentials/web", &headers))
}

/// `roleseal serve` with a cache.
fn serve_with_cache(web: Web, runtime: &Path, splay: &str) -> Serving {
    let arguments = ["--target=web", "--listen=127.0.0.1:0", splay];
    let mut command = command(&web.scene, &arguments);
    command.env("XDG_RUNTIME_DIR", runtime);
    Serving::start_command(web, command)
}

#[test]
fn a_restart_with_a_valid_session_makes_no_request() {
    let runtime = in_memory();
    let serving = serve_with_cache(Web::start(), runtime.path(), "--splay=0");
    let first = key(&serving);
    assert_eq!(serving.service().create_session_requests(), 1);
    let Serving { process, web } = serving;
    process.stop().unwrap();
    // Nobody waits, and there is a session at once.
    let serving = serve_with_cache(web, runtime.path(), "--splay=3600");
    let next = until_state(&serving, "ok");
    assert_eq!(key(&serving), first);
    assert_eq!(serving.service().create_session_requests(), 1);
    // It is renewed by its own life, not at once: before a quarter of the hour is left.
    let seconds = seconds_between(&serving.web, &next["nextTry"], &next["expiration"]);
    assert!((900.0..=1801.0).contains(&seconds), "{seconds}");
}

/// By date(1), which is not ours.
fn seconds_between(web: &Web, first: &Value, second: &Value) -> f64 {
    let seconds = |time: &Value| {
        let time = time.as_str().unwrap();
        let output = web
            .scene
            .command("date")
            .args(["-d", time, "+%s.%N"])
            .output();
        let text = String::from_utf8(output.unwrap().stdout).unwrap();
        text.trim().parse::<f64>().unwrap()
    };
    seconds(second) - seconds(first)
}

#[test]
fn a_renewal_that_fails_is_one_request() {
    let serving = Serving::start(short_sessions(60), &["--no-cache"]);
    key(&serving);
    serving.service().set_fault(Some(Fault::Status(500)));
    until("two renewals failed, with one request each", || {
        let failed = serving
            .process
            .log()
            .matches("no new session since")
            .count();
        let requests = serving.service().create_session_requests();
        (failed >= 2 && requests == 1 + failed as u64).then_some(())
    });
    key(&serving);
}

#[test]
fn a_pause_that_aws_asks_for_is_kept() {
    for status in [429, 503] {
        let web = Web::start();
        web.scene.service().set_fault(with_pause(status));
        let serving = Serving::start(web, &["--no-cache"]);
        let failing = until_state(&serving, "failing");
        let pause = seconds_between(&serving.web, &failing["failingSince"], &failing["nextTry"]);
        assert!(pause >= f64::from(LONG) - 1.0, "{pause}");
        assert_eq!(serving.service().create_session_requests(), 1);
    }
}

#[test]
fn a_refusal_ends_at_once_with_another_certificate() {
    let lab = Lab::new(KeyKind::EcP256);
    let mut config = lab.config.clone();
    let web = lab.start();
    web.scene.service().set_fault(with_pause(403));
    let serving = Serving::start(web, &["--no-cache"]);
    until_state(&serving, "failing");
    serving.service().set_fault(None);
    assert_eq!(serving.service().create_session_requests(), 1);
    let web = &serving.web;
    let renewed = web.scene.path("renewed.pem");
    let issued = crate::reload::issue(web, &web.scene.path("web.pem"));
    std::fs::write(&renewed, issued).unwrap();
    config.identity[0].certificate = renewed;
    web.reload(&config);
    until_state(&serving, "ok");
    assert_eq!(serving.service().create_session_requests(), 2);
}

#[test]
fn a_refusal_ends_at_once_with_a_reload() {
    let web = Web::start();
    web.scene.service().set_fault(with_pause(403));
    let serving = Serving::start(web, &["--no-cache"]);
    until_state(&serving, "failing");
    serving.service().set_fault(None);
    let pid = Pid::from_raw(serving.process.id().cast_signed()).unwrap();
    kill_process(pid, Signal::HUP).unwrap();
    until_state(&serving, "ok");
    assert_eq!(serving.service().create_session_requests(), 2);
}

#[test]
fn who_waits_does_not_wait_for_the_splay() {
    let serving = Serving::start(Web::start(), &["--no-cache", "--splay=3600"]);
    until("the first request is planned", || {
        let target = target(&serving);
        (target["state"] == "starting" && target["nextTry"].is_string()).then_some(())
    });
    key(&serving);
}

#[test]
fn while_aws_is_away_an_old_session_is_good_enough_for_a_command() {
    let (web, runtime) = (Web::start(), in_memory());
    let clock = Clock::new(&web.scene, 0);
    let run = || {
        let mut command: Command = web.credential_process();
        command.env("XDG_RUNTIME_DIR", runtime.path());
        clock.of(command).output().unwrap()
    };
    let key = |output| json_of(&output)["AccessKeyId"].as_str().unwrap().to_owned();
    let requests = || web.scene.service().create_session_requests();
    let first = key(run());

    web.scene.service().set_fault(with_pause(503));
    clock.set(50 * 60); // ten minutes are left
    assert_eq!(key(run()), first);
    assert_eq!(requests(), 2);
    assert_eq!(key(run()), first); // the pause is that of all commands
    assert_eq!(requests(), 2);
    clock.set(56 * 60);
    let output = run();
    assert_eq!(output.status.code(), Some(6), "{output:?}");
    assert_eq!(output.stdout, b"");
    assert_eq!(requests(), 3);

    web.scene.service().set_fault(None);
    assert_ne!(key(run()), first);
    assert_eq!(requests(), 4);
}
