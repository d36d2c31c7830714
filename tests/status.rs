use std::ffi::OsStr;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use hsm_fixtures::{BATCH_ROLE_ARN, KeyKind, Scene, WEB_ROLE_ARN};
use jiff::Timestamp;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::agent::{Lab, Web, in_memory, json_of, request, sign, until};
use crate::renewal;

/// What standard output of `roleseal status` is.
fn status(scene: &Scene, more: &[&str]) -> String {
    let socket = scene.socket().display().to_string();
    let arguments = [&["status", "--socket", &socket], more].concat();
    let output = scene.roleseal(&arguments).unwrap().output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// How `roleseal` ends whose reader has gone, and what it says.
fn without_reader(scene: &Scene, arguments: &[impl AsRef<OsStr>]) -> (ExitStatus, String) {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut roleseal = scene.roleseal(arguments).unwrap();
    let output = roleseal.stdout(writer).output().unwrap();
    (output.status, String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_reader_that_has_gone_has_seen_enough_unless_it_was_to_have_credentials() {
    let web = Lab::new(KeyKind::EcP256).start();
    let socket = web.scene.socket().display().to_string();
    for arguments in [
        &["status", "--socket", &socket][..],
        &["identities", "--socket", &socket, "--json"],
        &["completions", "bash"],
    ] {
        let (status, told) = without_reader(&web.scene, arguments);
        assert_eq!(status.signal(), Some(Signal::PIPE.as_raw()), "{told}");
        assert_eq!(told, "", "{arguments:?}");
    }
    let session = web.scene.credential_process("web", WEB_ROLE_ARN);
    let (status, told) = without_reader(&web.scene, &session);
    assert_eq!(status.code(), Some(1), "{told}");
    assert!(told.contains("cannot write to standard output"), "{told}");
}

/// How many requests were signed for the identity, and when the last one was.
fn signed(scene: &Scene, name: &str) -> (u64, Option<Timestamp>) {
    let status: Value = serde_json::from_str(&status(scene, &["--json"])).unwrap();
    let identities = status["agent"]["identities"].as_array().unwrap();
    let identity = identities.iter().find(|one| one["name"] == name).unwrap();
    let last = identity.get("lastSigned");
    (
        identity["signatures"].as_u64().unwrap(),
        last.map(|time| time.as_str().unwrap().parse().unwrap()),
    )
}

#[test]
fn a_session_that_is_signed_counts_once_and_nothing_else_does() {
    let mut lab = Lab::new(KeyKind::EcP256);
    let mut other = lab.config.identity[0].clone();
    other.name = "other".to_owned();
    lab.config.identity.push(other);
    let mut config = lab.config.clone();
    let web = lab.start();
    let runtime = in_memory();
    assert_eq!(signed(&web.scene, "web"), (0, None));

    let begin = Timestamp::from_second(Timestamp::now().as_second()).unwrap();
    let kept = || {
        let mut command = web.credential_process();
        command.env("XDG_RUNTIME_DIR", runtime.path());
        json_of(&command.output().unwrap());
        signed(&web.scene, "web")
    };
    let first = kept();
    assert_eq!(first.0, 1);
    assert!(
        (begin..=Timestamp::now()).contains(&first.1.unwrap()),
        "{begin} {first:?}"
    );
    assert_eq!(kept(), first); // the same session once more
    refuse(&web);
    assert_eq!(signed(&web.scene, "web"), first);

    json_of(&web.credential_process().output().unwrap());
    let second = signed(&web.scene, "web");
    assert!(second.0 == 2 && second.1 >= first.1, "{second:?}");
    assert_eq!(signed(&web.scene, "other"), (0, None));

    // Another number of sessions: the token is opened anew, by another program.
    config.identity[0].sessions = Some(1);
    config.identity[1].sessions = Some(1);
    web.reload(&config);
    assert_eq!(signed(&web.scene, "web"), second);
    json_of(&web.credential_process().output().unwrap());
    assert_eq!(signed(&web.scene, "web").0, 3);
}

/// Has requests refused: by the policy, for what they say, and for an identity that there is not.
fn refuse(web: &Web) {
    let good = request(&web.scene);
    let another_role = {
        let role = BATCH_ROLE_ARN.replace(':', "%3A").replace('/', "%2F");
        let web_role = hsm_fixtures::WEB_ROLE_ARN
            .replace(':', "%3A")
            .replace('/', "%2F");
        good["query"].as_str().unwrap().replace(&web_role, &role)
    };
    for (member, value, error) in [
        ("query", json!(another_role), "NotPermitted"),
        ("body", json!("{"), "RequestRefused"),
        ("identity", json!("absent"), "IdentityNotFound"),
    ] {
        let mut request = good.clone();
        request[member] = value;
        let reply = sign(&web.scene.socket(), request);
        assert_eq!(
            reply["error"],
            format!("org.roleseal.Agent.{error}"),
            "{reply}"
        );
    }
}

#[test]
fn people_see_counts_ends_and_renewals_that_fail() {
    let (mut lab, key) = renewal::lab();
    renewal::add(&mut lab, &key, "web", "false");
    let web = lab.start();
    json_of(&web.credential_process().output().unwrap());
    assert!(!renewal::renew(&web.scene, &[]).status().unwrap().success());
    let text = until("the renewal fails", || {
        let text = status(&web.scene, &[]);
        text.contains("warning: renewal failed at").then_some(text)
    });
    let heading = "IDENTITY  STATE  SIGNED  LAST SIGNED           CERTIFICATE UNTIL\n";
    assert!(text.contains(heading), "{text}");
    let row = text.lines().find(|line| line.starts_with("web ")).unwrap();
    assert!(row.starts_with("web       ready  1       2"), "{text}");
    assert!(row.ends_with(" min)"), "{text}"); // of the hour that the certificate lasts
}
