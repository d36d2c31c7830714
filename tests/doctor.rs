use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

use hsm_fixtures::{Fault, KeyKind, KeySpec, LeafSpec, Scene, WEB_ROLE_ARN};
use jiff::SignedDuration;
use serde_json::Value;

use crate::agent::{Lab, Web, until};
use crate::policy::NOBODY;

/// The checks of a run, in their order.
const ALL: [&str; 14] = [
    "target",
    "socket",
    "agent",
    "identity",
    "token",
    "certificate",
    "permission",
    "signature",
    "proxy",
    "name",
    "connection",
    "tls",
    "clock",
    "session",
];

/// What a run said.
pub(crate) struct Report {
    pub(crate) exit: i32,
    checks: Vec<Value>,
    pub(crate) text: String,
}

impl Report {
    fn of(output: &Output) -> Report {
        let text = String::from_utf8(output.stdout.clone()).unwrap();
        let checks: Value = serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{error}: {text} {output:?}"));
        let report = Report {
            exit: output.status.code().unwrap(),
            checks: checks.as_array().unwrap().clone(),
            text,
        };
        let first = report.checks.iter().find(|one| one["state"] == "failed");
        let expected = first.map_or(0, |one| one["exit"].as_i64().unwrap());
        assert_eq!(i64::from(report.exit), expected, "{}", report.text);
        for check in ALL {
            report.state(check); // each is there, whatever failed
        }
        for check in &report.checks {
            let bad = check["state"] == "failed" || check["state"] == "warning";
            assert_eq!(bad, check["remedy"].is_string(), "{check}");
        }
        report
    }

    /// The worst of the check's lines.
    pub(crate) fn state(&self, check: &str) -> &str {
        let of_check = || self.checks.iter().filter(|one| one["check"] == check);
        let worst = ["failed", "warning", "skipped", "ok"];
        let state = worst
            .into_iter()
            .find(|state| of_check().any(|one| one["state"] == *state));
        state.unwrap_or_else(|| panic!("no {check}: {}", self.text))
    }

    /// What the last line of a check says.
    pub(crate) fn detail(&self, check: &str) -> &str {
        let line = self.checks.iter().rfind(|one| one["check"] == check);
        line.and_then(|line| line["detail"].as_str())
            .unwrap_or_default()
    }

    /// Asserts that this check is the first that failed, and that its detail and its remedy have these words.
    pub(crate) fn fails(&self, check: &str, exit: i32, detail: &str, remedy: &str) {
        let first = self.checks.iter().find(|one| one["state"] == "failed");
        let first = first.unwrap_or_else(|| panic!("nothing failed: {}", self.text));
        assert_eq!(first["check"], check, "{}", self.text);
        assert_eq!(self.exit, exit, "{}", self.text);
        let says = |member: &str, words: &str| {
            let text = first[member].as_str().unwrap_or_default();
            assert!(text.contains(words), "no {words:?} in {first}");
        };
        says("detail", detail);
        says("remedy", remedy);
    }
}

/// `roleseal doctor --json` for the scene's web role.
fn command(scene: &Scene) -> Command {
    let mut arguments = scene.credential_process("web", WEB_ROLE_ARN);
    arguments[0] = "doctor".to_owned();
    arguments.push("--json".to_owned());
    scene.roleseal(&arguments).unwrap()
}

pub(crate) fn examine(scene: &Scene, more: &[&str]) -> Report {
    Report::of(&command(scene).args(more).output().unwrap())
}

/// The same, where an option takes the place of the usual one.
fn examine_with(scene: &Scene, option: &str, value: &str) -> Report {
    let mut arguments = scene.credential_process("web", WEB_ROLE_ARN);
    arguments[0] = "doctor".to_owned();
    let at = arguments.iter().position(|one| one == option).unwrap();
    arguments[at + 1] = value.to_owned();
    arguments.push("--json".to_owned());
    Report::of(&scene.roleseal(&arguments).unwrap().output().unwrap())
}

#[test]
fn all_is_well_by_one_session_and_no_secret() {
    let web = Web::start();
    let report = examine(&web.scene, &[]);
    let checks: Vec<_> = report
        .checks
        .iter()
        .map(|one| one["check"].as_str().unwrap())
        .collect();
    assert_eq!(checks, ALL);
    for check in ALL {
        assert_eq!(report.state(check), "ok", "{}", report.text);
    }
    assert_eq!(report.exit, 0);
    assert_eq!(web.scene.service().create_session_requests(), 1);

    let mut for_people = web.scene.credential_process("web", WEB_ROLE_ARN);
    for_people[0] = "doctor".to_owned();
    let output = web.scene.roleseal(&for_people).unwrap().output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(shown.starts_with("ok       target "), "{shown}");
    assert!(shown.ends_with("\nNo failure, 0 warnings.\n"), "{shown}");
    for secret in ["ASIA", hsm_fixtures::PIN] {
        assert!(
            !report.text.contains(secret) && !shown.contains(secret),
            "{shown}"
        );
    }
}

#[test]
fn without_a_target_the_agent_is_looked_at() {
    let web = Web::start();
    let socket = web.scene.socket().display().to_string();
    let run = |more: &[&str]| {
        let arguments = [&["doctor", "--json", "--socket", &socket], more].concat();
        Report::of(&web.scene.roleseal(&arguments).unwrap().output().unwrap())
    };
    until("the token is open", || {
        (run(&[]).state("token") == "ok").then_some(())
    });
    for more in [&[][..], &["--identity", "web"]] {
        let report = run(more);
        assert_eq!(report.exit, 0);
        for check in ["socket", "agent", "identity", "token", "certificate"] {
            assert_eq!(report.state(check), "ok", "{}", report.text);
        }
        for check in ["target", "permission", "signature", "connection", "session"] {
            assert_eq!(report.state(check), "skipped", "{}", report.text);
        }
    }
    run(&["--identity", "wep"]).fails("identity", 4, "wep is not among", "[[identity.allow]]");
    assert_eq!(web.scene.service().create_session_requests(), 0);
}

#[test]
fn a_target_is_named_by_its_file_and_line_and_misfits_are_usage() {
    let web = Web::start();
    let targets = crate::serving::write_targets(&web.scene);
    let mut text = fs::read_to_string(&targets).unwrap();
    text += &format!("[target.half]\nrole-arn = \"{WEB_ROLE_ARN}\"\n");
    let line = text
        .lines()
        .position(|line| line == "[target.web]")
        .unwrap()
        + 1;
    fs::write(&targets, text).unwrap();
    let targets = targets.display().to_string();
    let socket = web.scene.socket().display().to_string();
    let run = |more: &[&str]| {
        let fixed = [
            "doctor",
            "--json",
            "--targets",
            &targets,
            "--socket",
            &socket,
        ];
        let arguments = [&fixed, more].concat();
        Report::of(&web.scene.roleseal(&arguments).unwrap().output().unwrap())
    };
    let report = run(&["--target=web"]);
    assert_eq!(report.exit, 0, "{}", report.text);
    assert!(report.text.contains(&format!("web of {targets}:{line}: ")));
    run(&["--target=half"]).fails("target", 2, "target \"half\": --profile-arn is missing", "");
    run(&["--target=wep"]).fails("target", 2, "no target \"wep\"", "half, second, web");
    let other = run(&["--target=web", "--region=eu-west-1"]);
    other.fails("target", 2, "eu-west-1", "");
    // The way to the agent is looked at all the same.
    assert_eq!(other.state("token"), "ok");
    let nonsense = web
        .scene
        .roleseal(&["doctor", "--fips=maybe"])
        .unwrap()
        .output()
        .unwrap();
    assert_eq!(nonsense.status.code(), Some(2));
}

#[test]
fn an_agent_that_is_not_there_is_named_by_what_is() {
    let Web { agent, scene } = Web::start();
    agent.stop().unwrap();
    let report = examine(&scene, &[]);
    report.fails("socket", 3, "agent.sock", "ROLESEAL_SOCKET");
    assert_eq!(report.state("signature"), "skipped");
    assert_eq!(report.state("session"), "skipped");
    assert_eq!(report.state("clock"), "ok"); // the rest of the way is looked at
    drop(std::os::unix::net::UnixListener::bind(scene.socket()).unwrap());
    examine(&scene, &[]).fails("socket", 3, "agent.sock", "systemctl start");

    fs::remove_file(scene.socket()).unwrap();
    let silent = std::os::unix::net::UnixListener::bind(scene.socket()).unwrap();
    examine(&scene, &[]).fails("agent", 3, "", "journalctl");
    drop(silent);
}

/// As another user: root passes every mode.
#[test]
fn a_socket_that_keeps_a_user_out_says_how_to_come_in() {
    if as_root::by_sudo!() {
        return;
    }
    let web = Web::start();
    for path in [
        web.scene.dir().to_owned(),
        web.scene.pki().root_path().to_owned(),
    ] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::set_permissions(web.scene.socket(), fs::Permissions::from_mode(0o660)).unwrap();
    let program = web.scene.path("roleseal");
    crate::agent::copy_program(command(&web.scene).get_program(), &program);
    let mut other = web.scene.command(&program);
    other.args(command(&web.scene).get_args());
    let report = Report::of(&other.uid(NOBODY).gid(NOBODY).output().unwrap());
    report.fails("socket", 3, "mode 0660, root:root", "usermod -aG root");
}

#[test]
fn the_agents_rules_are_named_by_their_part() {
    let web = Web::start();
    assert_eq!(examine(&web.scene, &[]).exit, 0); // and its token is open
    let report = examine_with(&web.scene, "--role-arn", hsm_fixtures::BATCH_ROLE_ARN);
    report.fails("permission", 4, "", "roles of this user's");
    assert_eq!(report.state("token"), "ok");
    assert_eq!(report.state("signature"), "skipped");
    let longer = examine(&web.scene, &["--session-duration=2h"]);
    longer.fails("permission", 4, "", "max-duration");
    let unknown = examine_with(&web.scene, "--identity", "wep");
    unknown.fails("identity", 4, "wep is not among", "");
    assert_eq!(unknown.state("permission"), "failed");
    assert_eq!(web.scene.service().create_session_requests(), 1);
}

#[test]
fn a_refused_pin_is_told_and_not_tried_again() {
    let lab = Lab::new(KeyKind::EcP256);
    lab.scene.write("lab.pin", "wrong-one").unwrap();
    let web = lab.start_spied();
    // The first waits for the opening; the others look at what it left.
    for _ in 0..3 {
        let report = examine(&web.scene, &[]);
        assert_eq!(report.exit, 5, "{}", report.text);
    }
    examine(&web.scene, &[]).fails("token", 5, "PIN", "systemctl reload");
    let logins = crate::agent::spied_calls(&web.scene);
    assert_eq!(logins.iter().filter(|call| *call == "C_Login").count(), 1);
}

#[test]
fn a_token_that_is_gone_is_token_trouble() {
    let web = Web::start();
    assert_eq!(examine(&web.scene, &[]).exit, 0);
    // The store goes, and the token program with it.
    fs::rename(web.scene.path("tokens"), web.scene.path("elsewhere")).unwrap();
    for pid in crate::agent::token_programs(&web.agent) {
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
    let report = until("the agent notices", || {
        let report = examine(&web.scene, &[]);
        (report.state("token") == "failed").then_some(report)
    });
    report.fails("token", 5, "web: ", "roleseal-agent");
    assert_eq!(report.state("permission"), "ok");
    assert_eq!(report.state("signature"), "failed");
}

#[test]
fn a_certificate_that_ended_or_ends_soon_is_named() {
    for (hours, state, exit) in [(-1, "failed", 5), (100, "warning", 0)] {
        let scene = Scene::new().unwrap();
        let token = scene.add_token("lab").unwrap();
        let now = jiff::Timestamp::now();
        let leaf = LeafSpec {
            not_before: now - SignedDuration::from_hours(24 * 365),
            not_after: now + SignedDuration::from_hours(hours),
            ..LeafSpec::new("web")
        };
        let key = KeySpec::new("web", KeyKind::EcP256);
        let web = scene.add_identity_with(&token, &key, &leaf).unwrap();
        let config = scene.agent_config(vec![web]).unwrap();
        let agent = scene.start_agent(&config).unwrap();
        let report = until("the token is open", || {
            let report = examine(&scene, &[]);
            let opened = if state == "failed" { "skipped" } else { "ok" };
            (report.state("token") == opened).then_some(report)
        });
        assert_eq!(report.state("certificate"), state, "{}", report.text);
        assert_eq!(report.exit, exit, "{}", report.text);
        drop(agent);
    }
}

#[test]
fn a_clock_that_is_off_is_this_hosts() {
    for (minutes, state) in [(10, "failed"), (-10, "failed"), (2, "warning")] {
        let scene = Scene::with_service(|service| {
            service.clock_offset = SignedDuration::from_mins(minutes);
        });
        let web = Lab::of(scene.unwrap(), KeyKind::EcP256).start();
        let report = examine(&web.scene, &[]);
        assert_eq!(report.state("clock"), state, "{}", report.text);
        if state == "failed" {
            let direction = if minutes > 0 {
                "s behind AWS's"
            } else {
                "s ahead of AWS's"
            };
            report.fails("clock", 1, direction, "timedatectl");
            assert_eq!(report.state("session"), "failed");
        }
    }
}

#[test]
fn each_way_to_lose_the_network_has_its_name() {
    let web = Web::start();
    let scene = &web.scene;
    let nowhere = examine_with(scene, "--endpoint", "https://no-such-host.invalid");
    // The agent signs for endpoints that it knows only.
    assert_eq!(nowhere.state("permission"), "failed");
    assert_eq!(nowhere.state("name"), "failed", "{}", nowhere.text);
    assert_eq!(nowhere.state("connection"), "skipped");

    let other = rcgen_root(scene);
    examine_with(scene, "--ca-bundle", &other).fails(
        "tls",
        7,
        "trusted are the CAs of",
        "--ca-bundle",
    );
    examine_with(scene, "--ca-bundle", "/nonexistent.pem").fails("tls", 1, "/nonexistent.pem", "");

    let proxy = |setting: &str, environment: &[(&str, &str)]| {
        let mut command = command(scene);
        if !setting.is_empty() {
            command.args(["--proxy", setting]);
        }
        Report::of(&command.envs(environment.iter().copied()).output().unwrap())
    };
    let refusing = refusing_proxy();
    let report = proxy(&format!("http://u:s3cret@{refusing}"), &[]);
    report.fails("connection", 7, "407", "password");
    assert!(!report.text.contains("s3cret"), "{}", report.text);
    let from = format!("http://{refusing}");
    let report = proxy("", &[("HTTPS_PROXY", &from)]);
    report.fails("connection", 7, "407", "");
    assert!(
        report.text.contains("$HTTPS_PROXY says so"),
        "{}",
        report.text
    );
    let report = proxy("", &[("HTTPS_PROXY", &from), ("NO_PROXY", "localhost")]);
    assert_eq!(report.exit, 0, "{}", report.text);
    assert!(
        report.text.contains("$NO_PROXY excepts it"),
        "{}",
        report.text
    );
    let unknown = proxy("http://no-such-proxy.invalid:3128", &[]);
    unknown.fails("name", 7, "no-such-proxy.invalid", "proxy");
    let malformed = [("HTTPS_PROXY", "socks5://s3cret:1")];
    let report = proxy("", &malformed);
    report.fails("target", 2, "$HTTPS_PROXY is no proxy", "environment");
    assert_eq!(report.state("proxy"), "skipped");
    let report = proxy("none", &malformed);
    assert_eq!(report.exit, 0, "{}", report.text);

    scene.service().stop_listening().unwrap();
    let report = examine(scene, &[]);
    report.fails("connection", 7, "refused", "network");
    assert_eq!(report.state("session"), "skipped");
}

/// A PEM file with another CA than the service's.
fn rcgen_root(scene: &Scene) -> String {
    let elsewhere = scene.path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let pki = hsm_fixtures::Pki::create(&elsewhere).unwrap();
    let path = scene.path("other-root.pem");
    fs::write(&path, pki.root_pem().unwrap()).unwrap();
    path.display().to_string()
}

/// A proxy that wants another password.
fn refusing_proxy() -> std::net::SocketAddr {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && client.read(&mut byte).unwrap_or(0) == 1 {
                head.extend(byte);
            }
            let _ = client.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"); // it may be gone
        }
    });
    address
}

#[test]
fn what_aws_says_is_told_with_what_to_look_at() {
    let web = Web::start();
    let service = web.scene.service();
    for (fault, words, remedy) in [
        (
            Fault::Status(403),
            "Untrusted Signing Certificate",
            "get-trust-anchor",
        ),
        (Fault::Status(429), "Rate exceeded", "ten sessions"),
        (Fault::Status(503), "503", "service's side"),
        (Fault::Garbage, "", "--endpoint"),
        (Fault::Partial, "sessionToken", "--endpoint"),
        (Fault::Expired, "expired at", "clock"),
    ] {
        service.fail_next([fault]);
        examine(&web.scene, &[]).fails("session", 6, words, remedy);
    }
    let named = examine(&web.scene, &["--role-session-name=ci"]);
    named.fails("session", 6, "roleSessionName", "acceptRoleSessionName");
    assert_eq!(service.create_session_requests(), 7); // none is tried again
}

#[test]
fn a_profile_may_cap_what_was_asked_for() {
    let scene = Scene::with_service(|service| service.session_seconds = Some(900)).unwrap();
    let web = Lab::of(scene, KeyKind::EcP256).start();
    let report = examine(&web.scene, &[]);
    assert_eq!(report.state("session"), "warning", "{}", report.text);
    assert!(report.text.contains("of the 3600 s"), "{}", report.text);
    assert_eq!(report.exit, 0);
}

#[test]
fn a_status_needs_no_server_and_tells_of_an_agent_that_is_gone() {
    let Web { agent, scene } = Web::start();
    assert_eq!(examine(&scene, &[]).exit, 0); // and its token is open
    let socket = scene.socket().display().to_string();
    let run = |more: &[&str]| {
        let arguments = [&["status", "--socket", &socket], more].concat();
        let output = scene.roleseal(&arguments).unwrap().output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        (output.status.code().unwrap(), text)
    };
    let (exit, text) = run(&[]);
    assert_eq!(exit, 0, "{text}");
    assert!(text.contains("web       ready  1 "), "{text}");
    let (exit, text) = run(&["--json"]);
    let status: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(exit, 0, "{text}");
    assert_eq!(status["agent"]["identities"][0]["name"], "web");
    // Who names a server wants one.
    let (exit, text) = run(&["--listen=127.0.0.1:1"]);
    assert!(exit == 7 && text.contains("web       ready"), "{text}");
    agent.stop().unwrap();
    let (exit, text) = run(&["--json"]);
    let status: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(exit, 3, "{text}");
    assert!(status["agent"]["error"].is_string(), "{text}");
}
