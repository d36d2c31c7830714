//! The binary against a stand-in agent and a stand-in service that record what reached them: the
//! bytes on the wire, the exit codes, what is printed where. The end-to-end tests judge signatures.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // clippy.toml lets the tests, not their helpers

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tempfile::TempDir;

const ROLE: &str = "--role-arn=arn:aws:iam::123456789012:role/path/web";
const PROFILE: &str = "--profile-arn=arn:aws:rolesanywhere:eu-central-1:123456789012:profile/p-1";
const ANCHOR: &str =
    "--trust-anchor-arn=arn:aws:rolesanywhere:eu-central-1:123456789012:trust-anchor/a-1";
const QUERY: &str = "profileArn=arn%3Aaws%3Arolesanywhere%3Aeu-central-1%3A123456789012%3Aprofile%2Fp-1\
                     &roleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Fpath%2Fweb\
                     &trustAnchorArn=arn%3Aaws%3Arolesanywhere%3Aeu-central-1%3A123456789012%3Atrust-anchor%2Fa-1";
const SIGNED: &str = r#"{"parameters":{"headers":{"Authorization":"AWS4-X509-ECDSA-SHA256 x","X-Amz-Date":"20260101T000000Z","X-Amz-X509":"AA=="}}}"#;
const SESSION: &str = r#"{"credentialSet":[{"credentials":{"accessKeyId":"ASIA1","secretAccessKey":"s3cret","sessionToken":"t0ken","expiration":"2999-01-01T00:00:00Z"}}],"subjectArn":"arn"}"#;

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
            "Redirects are not followed",
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
fn a_server_of_another_ca_is_not_trusted() {
    let scene = Scene::new();
    let _agent = scene.agent(SIGNED);
    let service = scene.service("201 Created", "", SESSION);
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(scene.path("ca.pem"), other.cert.pem()).unwrap();
    let output = scene.session(&["--endpoint", &service.url]);
    assert_eq!(exit(&output), 7, "{output:?}");
    assert!(text(&output.stderr).contains("--ca-bundle"), "{output:?}");
    assert_eq!(text(&output.stdout), "");
}

#[test]
fn the_ca_bundle_may_come_from_the_environment() {
    let scene = Scene::new();
    let _agent = scene.agent(SIGNED);
    let service = scene.service("201 Created", "", SESSION);
    let output = scene
        .roleseal(&["credential-process", ROLE, PROFILE, ANCHOR])
        .args(["--endpoint", &service.url])
        .env("AWS_CA_BUNDLE", scene.path("ca.pem"))
        .env("HTTPS_PROXY", "http://localhost:1")
        .env("NO_PROXY", "localhost")
        .output()
        .unwrap();
    assert_eq!(exit(&output), 0, "{output:?}");
}

#[test]
fn nobody_at_the_endpoint_is_a_network_error() {
    let scene = Scene::new();
    let _agent = scene.agent(SIGNED);
    let url = "https://localhost:1"; // tcpmux's port: a free one could become another test's
    let output = scene.session(&["--endpoint", url]);
    assert_eq!(exit(&output), 7, "{output:?}");
    let stderr = text(&output.stderr);
    assert!(
        stderr.contains(url) && stderr.contains("Tried 5 times"),
        "{stderr}"
    );
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
    unreachable("nobody listens");
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
            "Try again in 7 s",
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
fn a_closed_pipe_is_an_error_and_no_panic() {
    let scene = Scene::new();
    let _agent = scene.agent(r#"{"parameters":{"identities":[]}}"#);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = scene
        .roleseal(&["identities"])
        .stdout(writer)
        .output()
        .unwrap();
    assert_eq!(exit(&output), 1, "{output:?}");
    assert!(text(&output.stderr).starts_with("roleseal: cannot write to standard output"));
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

/// A directory of its own, with the socket and the CA bundle of a test.
struct Scene(TempDir);

struct Service {
    url: String,
    requests: Received,
}

/// What reached a stand-in, in its order.
struct Received(mpsc::Receiver<String>);

impl Received {
    fn next(&self) -> String {
        self.0.recv_timeout(Duration::from_secs(60)).unwrap()
    }
}

impl Scene {
    fn new() -> Scene {
        Scene(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn roleseal(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_roleseal"));
        command
            .env_clear()
            .env("ROLESEAL_SOCKET", self.path("agent.sock"))
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    /// `roleseal credential-process`, trusting the scene's service where there is one.
    fn session(&self, more: &[&str]) -> Output {
        let mut command = self.roleseal(&["credential-process", ROLE, PROFILE, ANCHOR]);
        let bundle = self.path("ca.pem");
        if bundle.exists() {
            command.arg("--ca-bundle").arg(bundle);
        }
        command.args(more).output().unwrap()
    }

    /// An agent that answers each call with `reply`.
    fn agent(&self, reply: &str) -> Received {
        let listener = UnixListener::bind(self.path("agent.sock")).unwrap();
        let reply = format!("{reply}\0");
        let (tell, received) = mpsc::channel();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut call = Vec::new();
                BufReader::new(&stream).read_until(0, &mut call).unwrap();
                let _ = tell.send(text(&call)); // nobody need listen
                let _ = stream.write_all(reply.as_bytes());
            }
        });
        Received(received)
    }

    /// A service that answers each request alike.
    fn service(&self, status: &str, headers: &str, body: &str) -> Service {
        self.service_in_turn(&[(status, headers, body)])
    }

    /// A service with an answer for each request; the last is for all that follow.
    fn service_in_turn(&self, answers: &[(&str, &str, &str)]) -> Service {
        let tls = self.certify();
        let listener = TcpListener::bind("localhost:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut answers: Vec<_> = answers
            .iter()
            .map(|(status, headers, body)| {
                let length = body.len();
                format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{headers}\r\n{body}")
            })
            .rev()
            .collect();
        let (tell, received) = mpsc::channel();
        thread::spawn(move || {
            loop {
                let answer = match answers.len() {
                    1 => answers[0].clone(),
                    _ => answers.pop().unwrap(),
                };
                if let Ok(request) = serve(&listener, Arc::clone(&tls), &answer) {
                    let _ = tell.send(request);
                }
            }
        });
        Service {
            url: format!("https://localhost:{port}"),
            requests: Received(received),
        }
    }

    /// A CA in the scene's bundle, and a server certificate by it.
    fn certify(&self) -> Arc<ServerConfig> {
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let mut ca = rcgen::CertificateParams::default();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
        fs::write(self.path("ca.pem"), ca_pem).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let leaf = rcgen::CertificateParams::new(["localhost".to_owned()])
            .unwrap()
            .signed_by(&key, &rcgen::Issuer::new(ca, ca_key))
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![leaf.der().clone()],
                PrivateKeyDer::Pkcs8(key.serialize_der().into()),
            );
        Arc::new(config.unwrap())
    }
}

/// Reads one request as far as its length says, and answers it.
fn serve(listener: &TcpListener, tls: Arc<ServerConfig>, answer: &str) -> std::io::Result<String> {
    let (tcp, _): (TcpStream, _) = listener.accept()?;
    let connection = ServerConnection::new(tls).map_err(std::io::Error::other)?;
    let mut stream = BufReader::new(StreamOwned::new(connection, tcp));
    let mut request = String::new();
    while !request.ends_with("\r\n\r\n") {
        if stream.read_line(&mut request)? == 0 {
            return Ok(request);
        }
    }
    let length = lower_lines(&request)
        .iter()
        .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    request.push_str(&text(&body));
    stream.get_mut().write_all(answer.as_bytes())?;
    stream.get_mut().flush()?;
    Ok(request)
}

/// The header lines, in lower case.
fn lower_lines(head: &str) -> Vec<String> {
    head.lines().skip(1).map(str::to_lowercase).collect()
}

fn exit(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
