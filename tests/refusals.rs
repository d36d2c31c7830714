use std::io::Write;
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

use crate::agent::{Web, call, read_reply, request, sign};

const AGENT: &str = "org.roleseal.Agent.";
const VARLINK: &str = "org.varlink.service.";

/// What a request becomes when one of its members is changed.
fn changed(base: &Value, member: &str, value: impl Into<Value>) -> Value {
    let mut request = base.clone();
    request[member] = value.into();
    request
}

#[test]
fn each_deviation_has_its_own_named_error() {
    let web = Web::start();
    let socket = web.scene.socket();
    let base = request(&web.scene);
    let query = base["query"].as_str().unwrap().to_owned();
    let with_query = |query: String| changed(&base, "query", query);
    let first = query.split('&').next().unwrap();
    let cases = [
        // Another path, another method, an extra header: there is no place for them.
        (
            changed(&base, "path", "/profiles"),
            "InvalidParameter",
            ("parameter", "path"),
        ),
        (
            changed(&base, "method", "GET"),
            "InvalidParameter",
            ("parameter", "method"),
        ),
        (
            changed(&base, "headers", json!({"x-evil": "1"})),
            "InvalidParameter",
            ("parameter", "headers"),
        ),
        (
            changed(&base, "host", "localhost/profiles"),
            "RequestRefused",
            ("fault", "host"),
        ),
        (
            changed(&base, "host", "evil.example"),
            "RequestRefused",
            ("fault", "host"),
        ),
        (
            changed(&base, "host", "rolesanywhere.eu-west-1.amazonaws.com"),
            "RequestRefused",
            ("fault", "host"),
        ),
        (
            changed(&base, "region", "eu-west-1"),
            "RequestRefused",
            ("fault", "region"),
        ),
        (
            changed(&base, "contentType", "text/plain"),
            "RequestRefused",
            ("fault", "contentType"),
        ),
        (
            changed(&base, "region", 7),
            "InvalidParameter",
            ("parameter", "region"),
        ),
        (
            changed(&base, "body", Value::Null),
            "InvalidParameter",
            ("parameter", "body"),
        ),
        (
            with_query(query.replace(&format!("{first}&"), "")),
            "RequestRefused",
            ("fault", "missingParameter"),
        ),
        (
            with_query(format!("{query}&{first}")),
            "RequestRefused",
            ("fault", "repeatedParameter"),
        ),
        (
            with_query(format!("{query}&cert=1")),
            "RequestRefused",
            ("fault", "unknownParameter"),
        ),
        (
            with_query(query.replace("123456789012", "1234")),
            "RequestRefused",
            ("fault", "invalidParameter"),
        ),
        (
            changed(
                &base,
                "body",
                r#"{"durationSeconds":900,"durationSeconds":43200}"#,
            ),
            "RequestRefused",
            ("fault", "repeatedParameter"),
        ),
        (
            changed(&base, "body", r#"{"roleArn":"x"}"#),
            "RequestRefused",
            ("fault", "unknownParameter"),
        ),
        (
            with_query(query.replace("web-deploy", "batch-nightly")),
            "NotPermitted",
            ("rule", "role"),
        ),
        (
            changed(&base, "body", r#"{"durationSeconds":3601}"#),
            "NotPermitted",
            ("rule", "duration"),
        ),
        (
            changed(&base, "body", "{}"),
            "NotPermitted",
            ("rule", "duration"),
        ),
        (
            changed(&base, "identity", "no"),
            "IdentityNotFound",
            ("identity", "no"),
        ),
    ];
    for (request, error, (member, value)) in cases {
        let reply = sign(&socket, request.clone());
        let interface = if error == "InvalidParameter" {
            VARLINK
        } else {
            AGENT
        };
        assert_eq!(
            reply["error"],
            format!("{interface}{error}"),
            "{request}\n{reply}"
        );
        assert_eq!(reply["parameters"][member], value, "{request}\n{reply}");
        if interface == AGENT {
            assert!(reply["parameters"]["message"].as_str().unwrap().len() > 10);
        }
    }
    let reply = call(&socket, "Sign", json!({ "digest": "00" }));
    assert_eq!(reply["error"], format!("{VARLINK}MethodNotFound"));

    // All that was refused; the same request, unchanged, is signed.
    let reply = sign(&socket, base);
    let headers = reply["parameters"]["headers"].as_object().unwrap();
    let names: Vec<_> = headers.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "Authorization",
            "X-Amz-Date",
            "X-Amz-X509",
            "X-Amz-X509-Chain"
        ]
    );
}

/// Sends bytes and reads what the agent says before it closes the connection.
fn last_words(socket: &std::path::Path, bytes: &[u8]) -> Value {
    let mut stream = UnixStream::connect(socket).unwrap();
    let _ = stream.write_all(bytes); // it may be refused before its end
    read_reply(&mut stream)
}

#[test]
fn what_is_no_message_is_refused_by_name() {
    let web = Web::start();
    let socket = web.scene.socket();
    let mut oversized = vec![b' '; 65_536];
    oversized.push(0);
    for (bytes, error) in [
        (&b"garbage\0"[..], "MalformedMessage"),
        (b"\xff\xfe\x01\0", "MalformedMessage"),
        (b"\0", "MalformedMessage"),
        (b"{}{}\0", "MalformedMessage"),
        (&oversized, "MessageTooLarge"),
        (b"{\"method\":\"org.roleseal", "DeadlineExceeded"), // and silence
    ] {
        let reply = last_words(&socket, bytes);
        assert_eq!(reply["error"], format!("{AGENT}{error}"), "{reply}");
    }
    let reply = sign(&socket, request(&web.scene));
    assert!(reply["error"].is_null(), "{reply}");
}

#[test]
fn several_calls_share_a_connection() {
    let web = Web::start();
    let mut stream = UnixStream::connect(web.scene.socket()).unwrap();
    let method = |name: &str| json!({ "method": format!("{AGENT}{name}") }).to_string();
    let calls = format!("{}\0{}\0", method("Sign"), method("ListIdentities"));
    stream.write_all(calls.as_bytes()).unwrap();
    assert_eq!(
        read_reply(&mut stream)["error"],
        format!("{VARLINK}MethodNotFound")
    );
    let reply = read_reply(&mut stream);
    assert_eq!(reply["parameters"]["identities"][0]["name"], "web");
}
