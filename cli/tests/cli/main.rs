//! The binary against a stand-in agent and a stand-in service that record what reached them: the
//! bytes on the wire, the exit codes, what is printed where. The end-to-end tests judge signatures.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // clippy.toml lets the tests, not their helpers

mod certificates;
mod network;
mod stand_ins;
mod targets;

use std::fs;
use std::os::unix::net::UnixListener;
use std::thread;

pub(crate) use stand_ins::{Scene, exit, lower_lines, proxy, silent_proxy, text};

pub(crate) const ROLE: &str = "--role-arn=arn:aws:iam::123456789012:role/path/web";
pub(crate) const PROFILE: &str =
    "--profile-arn=arn:aws:rolesanywhere:eu-central-1:123456789012:profile/p-1";
pub(crate) const ANCHOR: &str =
    "--trust-anchor-arn=arn:aws:rolesanywhere:eu-central-1:123456789012:trust-anchor/a-1";
pub(crate) const QUERY: &str = "profileArn=arn%3Aaws%3Arolesanywhere%3Aeu-central-1%3A123456789012%3Aprofile%2Fp-1\
                     &roleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Fpath%2Fweb\
                     &trustAnchorArn=arn%3Aaws%3Arolesanywhere%3Aeu-central-1%3A123456789012%3Atrust-anchor%2Fa-1";
pub(crate) const SIGNED: &str = r#"{"parameters":{"headers":{"Authorization":"AWS4-X509-ECDSA-SHA256 x","X-Amz-Date":"20260101T000000Z","X-Amz-X509":"AA=="}}}"#;
pub(crate) const SESSION: &str = r#"{"credentialSet":[{"credentials":{"accessKeyId":"ASIA1","secretAccessKey":"s3cret","sessionToken":"t0ken","expiration":"2999-01-01T00:00:00Z"}}],"subjectArn":"arn"}"#;

#[test]
fn a_session_from_the_arguments_to_the_output() {
    let scene = Scene::new();
    let agent = scene.agent(SIGNED);
    let service = scene.service("201 Created", "", SESSION);
    let output = scene.session(&[
        "--endpoint",
        &service.url,
        "--identity=web",
        "--role-session-name=ci@7",
    ]);
    assert_eq!(exit(&output), 0, "{output:?}");
    assert_eq!(text(&output.stderr), "");
    assert_eq!(
        text(&output.stdout),
        "{\"Version\":1,\"AccessKeyId\":\"ASIA1\",\"SecretAccessKey\":\"s3cret\",\
         \"SessionToken\":\"t0ken\",\"Expiration\":\"2999-01-01T00:00:00Z\"}\n"
    );

    let body = r#"{"durationSeconds":3600,"roleSessionName":"ci@7"}"#;
    let host = service.url.strip_prefix("https://").unwrap().to_owned();
    let call = agent.next();
    for part in [
        format!(r#""host":"{host}""#),
        format!(r#""query":"{QUERY}""#),
        format!(r#""body":{body:?}"#),
        r#""identity":"web""#.to_owned(),
        r#""region":"eu-central-1""#.to_owned(),
    ] {
        assert!(call.contains(&part), "{part} not in {call}");
    }
    // What is sent is what was signed, byte by byte.
    let request = service.requests.next();
    let (head, sent) = request.split_once("\r\n\r\n").unwrap();
    let (first, mut headers) = (head.lines().next().unwrap(), lower_lines(head));
    headers.sort();
    assert_eq!(first, format!("POST /sessions?{QUERY} HTTP/1.1"));
    assert_eq!(sent, body);
    assert_eq!(
        headers,
        [
            "accept: */*",
            "authorization: aws4-x509-ecdsa-sha256 x",
            &format!("content-length: {}", body.len()),
            "content-type: application/json",
            &format!("host: {host}"),
            &format!("user-agent: roleseal/{}", env!("CARGO_PKG_VERSION")),
            "x-amz-date: 20260101t000000z",
            "x-amz-x509: aa==",
        ]
    );
}

#[test]
fn a_refusal_by_aws_prints_no_credentials_and_cannot_steer_the_terminal() {
    let cases = [
        (
            "403 Forbidden",
            "x-amzn-ErrorType: AccessDeniedException\r\n",
            r#"{"message":"Untrusted \u001b[2J certificate"}"#,
            r"HTTP 403 AccessDeniedException: Untrusted \u001b[2J certificate",
        ),
        (
            "302 Found",
            "Location: https://localhost:1/\r\n",
            "",
            "--endpoint",
        ),
        ("200 OK", "", SESSION, "HTTP 200"),
        (
            "201 Created",
            "",
            r#"{"credentialSet":[{"credentials":{"accessKeyId":"","secretAccessKey":"s3cret"}}]}"#,
            "expiration is missing",
        ),
    ];
    for (status, headers, body, expected) in cases {
        let scene = Scene::new();
        let _agent = scene.agent(SIGNED);
        let service = scene.service(status, headers, body);
        let output = scene.session(&["--endpoint", &service.url]);
        assert_eq!(exit(&output), 6, "{output:?}");
        assert_eq!(text(&output.stdout), "");
        let stderr = text(&output.stderr);
        assert!(stderr.starts_with("roleseal: ") && stderr.contains(expected));
        assert!(!stderr.contains('\x1b') && !stderr.contains("s3cret"));
    }
}

#[test]
fn an_agent_that_cannot_be_reached_is_named_by_its_socket() {
    let scene = Scene::new();
    let socket = scene.path("agent.sock");
    let unreachable = |expected: &str| {
        let output = scene.session(&[]);
        assert_eq!(exit(&output), 3, "{output:?}");
        let stderr = text(&output.stderr);
        assert!(stderr.contains(&*socket.to_string_lossy()), "{stderr}");
        assert!(stderr.contains(expected), "{stderr}");
        assert_eq!(text(&output.stdout), "");
    };
    unreachable("No such file");
    drop(UnixListener::bind(&socket).unwrap());
    unreachable("systemctl start");
    let listener = thread::spawn({
        fs::remove_file(&socket).unwrap();
        let listener = UnixListener::bind(&socket).unwrap();
        move || drop(listener.accept().unwrap())
    });
    unreachable("journalctl");
    listener.join().unwrap();
}

#[test]
fn what_the_agent_refuses_has_an_exit_code() {
    let cases = [
        (
            r#"{"error":"org.roleseal.Agent.NotPermitted","parameters":{"rule":"role","message":"not that role"}}"#,
            4,
            "refused: not that role",
        ),
        (
            r#"{"error":"org.varlink.service.InvalidParameter","parameters":{"parameter":"host"}}"#,
            4,
            "host",
        ),
        (
            r#"{"error":"org.roleseal.Agent.TokenUnavailable","parameters":{"retryAfterSeconds":7,"message":"gone"}}"#,
            5,
            "\n  hint: try again in 7 s\n",
        ),
        (
            r#"{"error":"org.roleseal.Agent.Busy","parameters":{"message":"too many"}}"#,
            5,
            "too many",
        ),
        ("[]", 3, "makes no sense"),
    ];
    for (reply, code, expected) in cases {
        let scene = Scene::new();
        let _agent = scene.agent(reply);
        let output = scene.session(&["--endpoint=https://localhost:1"]);
        assert_eq!(exit(&output), code, "{output:?}");
        assert!(text(&output.stderr).contains(expected), "{output:?}");
        assert_eq!(text(&output.stdout), "");
    }
}

#[test]
fn mistakes_are_found_before_anything_is_asked() {
    let scene = Scene::new(); // no agent: to ask it would be exit code 3
    let usage = |arguments: &[&str], expected: &str| {
        let output = scene.roleseal(arguments).output().unwrap();
        assert_eq!(exit(&output), 2, "{output:?}");
        assert!(text(&output.stderr).contains(expected), "{output:?}");
    };
    let command = "credential-process";
    usage(&[], "Usage");
    usage(&[command, ROLE, PROFILE], "--trust-anchor-arn");
    usage(
        &[command, "--role-arn=web", PROFILE, ANCHOR],
        "arn:aws:iam::123456789012:role/NAME",
    );
    let elsewhere = ANCHOR.replace("eu-central-1", "eu-west-1");
    usage(&[command, ROLE, PROFILE, &elsewhere], "different regions");

    let output = scene.session(&["--ca-bundle", "/nonexistent/ca.pem"]);
    assert_eq!(exit(&output), 1, "{output:?}");
    assert!(text(&output.stderr).contains("/nonexistent/ca.pem"));
}

#[test]
fn identities_are_shown_whatever_their_state() {
    let identity = r#"{"name":"web\u001b","keyUri":"pkcs11:object=web","state":"pinRejected","message":"change the PIN","warnings":[]}"#;
    let reply = format!(r#"{{"parameters":{{"identities":[{identity}]}}}}"#);
    let none = r#"{"parameters":{"identities":[]}}"#;
    let show = |reply: &str, arguments: &[&str]| {
        let scene = Scene::new();
        let _agent = scene.agent(reply);
        let output = scene.roleseal(arguments).output().unwrap();
        assert_eq!(exit(&output), 0, "{output:?}");
        text(&output.stdout)
    };
    let table = show(&reply, &["identities"]);
    assert!(table.contains(r"web\u001b") && table.contains("\n  change the PIN\n"));
    let json: serde_json::Value = show(&reply, &["identities", "--json"]).parse().unwrap();
    assert_eq!(json[0], identity.parse::<serde_json::Value>().unwrap());
    assert!(show(none, &["identities"]).contains("no identity that you may use"));
    assert_eq!(show(none, &["identities", "--json"]), "[]\n");
}

#[test]
fn the_help_tells_the_exit_codes_and_the_environment() {
    let scene = Scene::new();
    for arguments in [&["--help"][..], &["credential-process", "--help"]] {
        let output = scene.roleseal(arguments).output().unwrap();
        assert_eq!(exit(&output), 0);
        let help = text(&output.stdout);
        for part in ["Exit codes:", "ROLESEAL_SOCKET", "AWS_CA_BUNDLE"] {
            assert!(help.contains(part), "{help}");
        }
    }
}

#[test]
fn completions_and_manual_pages_tell_every_command() {
    let scene = Scene::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let output = scene.roleseal(&["completions", shell]).output().unwrap();
        let script = text(&output.stdout);
        assert!(script.contains("credential-process") && script.contains("trust-anchor-arn"));
    }
    let directory = scene.path("").display().to_string();
    let output = scene
        .roleseal(&["man", "--out", &directory])
        .output()
        .unwrap();
    assert_eq!(exit(&output), 0, "{output:?}");
    let page = fs::read_to_string(scene.path("roleseal-credential-process.1")).unwrap();
    assert!(page.contains(r"trust\-anchor\-arn") && page.contains("Exit codes"));
    let output = scene
        .roleseal(&["man", "--out=/nonexistent"])
        .output()
        .unwrap();
    assert_eq!(exit(&output), 1, "{output:?}");
}
