use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Output;

use hsm_fixtures::{AllowRule, KeyKind, WEB_ROLE_ARN};
use serde_json::Value;

use crate::agent::{Lab, Web, copy_program, json_of, read_reply, request, sign};

/// A user without rights, on every Debian.
pub(crate) const NOBODY: u32 = 65_534;

/// Runs the CLI as `nobody`, who can reach it, the socket and the CA, and nothing else of the scene.
pub(crate) fn as_nobody(web: &Web, arguments: &[String]) -> Output {
    let open = |path: &std::path::Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    open(web.scene.dir(), 0o711);
    open(&web.scene.pki().root_path(), 0o644);
    let copy = web.scene.path("roleseal");
    let command = web.scene.roleseal(arguments).unwrap();
    if !copy.exists() {
        copy_program(command.get_program(), &copy);
    }
    let mut command = web.scene.command(&copy);
    command.args(arguments).uid(NOBODY).gid(NOBODY);
    command.output().unwrap()
}

fn refused(output: &Output, expected: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{stderr}");
    assert!(stderr.contains(expected), "{stderr}");
    assert_eq!(output.stdout, b"");
}

#[test]
fn another_user_is_served_as_the_rules_say() {
    if as_root::by_sudo!() {
        return;
    }
    let mut lab = Lab::new(KeyKind::EcP256);
    lab.config.identity[0].allow.push(AllowRule {
        users: vec![NOBODY],
        roles: vec!["arn:aws:iam::123456789012:role/batch-*".to_owned()],
        max_duration: "15m".to_owned(),
    });
    let mut other = lab.config.identity[0].clone();
    other.name = "other".to_owned();
    other.allow.truncate(1); // the user who runs this test
    lab.config.identity.push(other);
    let web = lab.start();
    let arguments = |role: &str, more: &[&str]| {
        let mut arguments = web.scene.credential_process("web", role);
        arguments.extend(more.iter().map(|word| (*word).to_owned()));
        arguments
    };
    json_of(&web.credential_process().output().unwrap());
    let batch = hsm_fixtures::BATCH_ROLE_ARN;
    let short = ["--session-duration", "900"];
    json_of(&as_nobody(&web, &arguments(batch, &short)));
    refused(&as_nobody(&web, &arguments(WEB_ROLE_ARN, &short)), "role");
    refused(&as_nobody(&web, &arguments(batch, &[])), "900");
    let other = web.scene.credential_process("other", WEB_ROLE_ARN);
    refused(&as_nobody(&web, &other), "65534");

    // Who may use just one need not name it, and sees just that one.
    let mut unnamed = arguments(batch, &short);
    let at = unnamed
        .iter()
        .position(|word| word == "--identity")
        .unwrap();
    unnamed.drain(at..at + 2);
    json_of(&as_nobody(&web, &unnamed));
    let socket = web.scene.socket().display().to_string();
    let list = ["identities", "--json", "--socket", &socket].map(str::to_owned);
    let listed = json_of(&as_nobody(&web, &list));
    assert_eq!(listed.as_array().unwrap().len(), 1);
    assert_eq!(listed[0]["name"], "web");
    assert_eq!(listed[0]["signatures"], 3); // of all callers

    // We may use both.
    let output = web.scene.roleseal(&unnamed).unwrap().output().unwrap();
    refused(&output, "web, other");
}

#[test]
fn one_user_cannot_keep_the_others_out() {
    if as_root::by_sudo!() {
        return;
    }
    let mut lab = Lab::new(KeyKind::EcP256);
    lab.config.identity[0].allow[0].users.push(NOBODY);
    let web = lab.start();
    let idle: Vec<UnixStream> = (0..512)
        .map(|_| UnixStream::connect(web.scene.socket()).unwrap())
        .collect();
    let mut one_more = UnixStream::connect(web.scene.socket()).unwrap();
    assert_eq!(
        read_reply(&mut one_more)["error"],
        "org.roleseal.Agent.Busy"
    );
    let arguments = web.scene.credential_process("web", WEB_ROLE_ARN);
    json_of(&as_nobody(&web, &arguments));
    drop(idle);
}

#[test]
fn without_rules_only_the_agents_own_user_is_served() {
    if as_root::by_sudo!() {
        return;
    }
    let mut lab = Lab::new(KeyKind::EcP256);
    lab.config.identity[0].allow.clear();
    let web = lab.start();
    let arguments = web.scene.credential_process("web", WEB_ROLE_ARN);
    json_of(&web.scene.roleseal(&arguments).unwrap().output().unwrap());
    // Nobody else can as much as connect.
    let mode = fs::metadata(web.scene.socket())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let output = as_nobody(&web, &arguments);
    assert_eq!(output.status.code(), Some(3));
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(stderr.contains("ermission denied"), "{stderr}");
    // And where the socket lets them, the policy does not.
    fs::set_permissions(web.scene.socket(), fs::Permissions::from_mode(0o666)).unwrap();
    refused(&as_nobody(&web, &arguments), "65534");
}

/// CloudTrail has the name of the session: what a caller calls itself there is the operator's to limit.
#[test]
fn a_rule_limits_the_names_of_sessions() {
    let lab = Lab::new(KeyKind::EcP256);
    let text = lab.config.to_toml().unwrap();
    let web = lab.start();
    let outcome = |body: &str| {
        let mut request = request(&web.scene);
        request["body"] = body.into();
        sign(&web.scene.socket(), request)["parameters"]["rule"].clone()
    };
    let named = r#"{"durationSeconds":900,"roleSessionName":"ci-7"}"#;
    let other = r#"{"durationSeconds":900,"roleSessionName":"root"}"#;
    let unnamed = r#"{"durationSeconds":900}"#;
    for (names, permitted) in [
        (r#"["ci-*"]"#, [true, false, false]),
        (r#"["ci-?", ""]"#, [true, false, true]),
        (r#"["*"]"#, [true, true, true]),
        ("[]", [true, true, true]),
    ] {
        let rule = format!("role-session-names = {names}\nmax-duration");
        let said = web.reload_text(&text.replace("max-duration", &rule));
        assert!(said.contains("1 identities"), "{said}");
        for (body, permitted) in [named, other, unnamed].iter().zip(permitted) {
            let rule = if permitted {
                Value::Null
            } else {
                "role".into()
            };
            assert_eq!(outcome(body), rule, "{names} {body}");
        }
    }
    // By the CLI, with its exit code and the setting to change.
    web.reload_text(&text.replace(
        "max-duration",
        "role-session-names = [\"ci-*\"]\nmax-duration",
    ));
    let arguments = web.scene.credential_process("web", WEB_ROLE_ARN);
    let mut command = web.scene.roleseal(&arguments).unwrap();
    let output = command.arg("--role-session-name=root").output().unwrap();
    refused(&output, "role-session-names");
}
