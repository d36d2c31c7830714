//! Over HTTPS, with curl: a client, and a SigV4, that are not ours.

mod faults;

use std::net::{Ipv4Addr, TcpStream};

use jiff::{SignedDuration, Timestamp};
use openssl::pkey::{PKey, Private};
use serde_json::Value;
use tempfile::TempDir;

use super::test_client::{Draft, p256, spki};
use super::*;
use crate::command;
use crate::pki::{Leaf, LeafSpec, Pki};

const ROLE: &str = "arn:aws:iam::123456789012:role/web";
const QUERY: &str = "profileArn=arn%3Aaws%3Arolesanywhere%3Aeu-central-1%3A123456789012%3Aprofile%2F1\
    &roleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Fweb\
    &trustAnchorArn=arn%3Aaws%3Arolesanywhere%3Aeu-central-1%3A123456789012%3Atrust-anchor%2F1";
const FORM: &str = "Action=GetCallerIdentity&Version=2011-06-15";

struct Stage {
    _dir: TempDir,
    pki: Pki,
    service: Service,
    key: PKey<Private>,
    leaf: Leaf,
}

impl Stage {
    fn new(edit: impl FnOnce(&mut ServiceConfig)) -> Stage {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::create(dir.path()).unwrap();
        let key = p256();
        let leaf = pki.leaf(&spki(&key), &LeafSpec::new("web")).unwrap();
        let mut config = ServiceConfig::new(pki.tls_identity().unwrap());
        let arn = |kind: &str| format!("arn:aws:rolesanywhere:eu-central-1:123456789012:{kind}/1");
        config.trust_anchors.push(TrustAnchor::new(
            &arn("trust-anchor"),
            &pki.root_pem().unwrap(),
        ));
        config.profiles.push(Profile::new(&arn("profile"), &[ROLE]));
        config.roles.push(Role::new(ROLE));
        edit(&mut config);
        Stage {
            pki,
            service: Service::start(config).unwrap(),
            _dir: dir,
            key,
            leaf,
        }
    }

    fn draft(&self) -> Draft {
        self.draft_for(&format!("localhost:{}", self.service.port()))
    }

    /// A request that is signed for this Host.
    fn draft_for(&self, host: &str) -> Draft {
        Draft::new(&self.key, &self.leaf, host, QUERY, Timestamp::now())
    }

    /// Head and body of the answer.
    fn send(&self, request: &Received) -> (String, String) {
        let url = format!("{}{}?{}", self.service.url(), request.path, request.query);
        let mut args = vec!["-X".to_owned(), request.method.clone(), url];
        for (name, value) in &request.headers {
            args.extend(["-H".to_owned(), format!("{name}: {value}")]);
        }
        args.extend([
            "--data-binary".to_owned(),
            String::from_utf8(request.body.clone()).unwrap(),
        ]);
        self.curl(&args, "")
    }

    /// GetCallerIdentity with credentials from CreateSession's answer.
    fn identify(&self, session: &Value, args: &[&str]) -> (String, String) {
        let credentials = &session["credentialSet"][0]["credentials"];
        let text = |name: &str| credentials[name].as_str().unwrap().to_owned();
        let config = format!(
            "user = \"{}:{}\"\nheader = \"X-Amz-Security-Token: {}\"\n",
            text("accessKeyId"),
            text("secretAccessKey"),
            text("sessionToken")
        );
        let mut all = vec![
            "--aws-sigv4".to_owned(),
            "aws:amz:eu-central-1:sts".to_owned(),
        ];
        all.extend(args.iter().map(|arg| (*arg).to_owned()));
        self.curl(&all, &config)
    }

    fn curl(&self, args: &[String], config: &str) -> (String, String) {
        let mut curl = command::clean("curl");
        curl.args(["-q", "-sS", "-i", "--max-time", "20", "-K", "-", "--cacert"])
            .arg(self.pki.root_path())
            .args(args);
        let output = command::output_with_input(&mut curl, config.as_bytes()).unwrap();
        let output = String::from_utf8(output).unwrap();
        let (head, body) = output.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    fn session(&self) -> Value {
        let (head, body) = self.send(&self.draft().sign(&self.key));
        assert!(
            head.starts_with("HTTP/1.1 201"),
            "{head}\n{body}\n{:?}",
            self.service.decisions()
        );
        serde_json::from_str(&body).unwrap()
    }
}

#[test]
fn a_host_is_the_services_own() {
    let stage = Stage::new(|_| {});
    let port = stage.service.port();
    let status = |host: &str| {
        let (head, _) = stage.send(&stage.draft_for(host).sign(&stage.key));
        head.split_whitespace().nth(1).map(str::to_owned)
    };
    for host in [format!("localhost:{port}"), format!("127.0.0.1:{port}")] {
        assert_eq!(status(&host).as_deref(), Some("201"), "{host}");
    }
    for host in [
        "rolesanywhere.eu-central-1.amazonaws.com".to_owned(),
        "localhost".to_owned(),
        format!("localhost:{}", port.wrapping_add(1)),
    ] {
        assert_eq!(status(&host).as_deref(), Some("421"), "{host}");
        let decision = stage.service.decisions().pop().unwrap();
        assert_eq!(decision.status, 421);
    }
    assert_eq!(stage.service.sessions_created(), 2);
}

#[test]
fn create_session_answers_in_the_documented_shape() {
    let stage = Stage::new(|_| {});
    let session = stage.session();
    let set = &session["credentialSet"][0];
    assert!(
        set["credentials"]["accessKeyId"]
            .as_str()
            .unwrap()
            .starts_with("ASIA")
    );
    let expiration: Timestamp = set["credentials"]["expiration"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!(expiration.duration_since(Timestamp::now()).as_secs() <= 900);
    assert_eq!(set["roleArn"], ROLE);
    assert_eq!(set["sourceIdentity"], "CN=web");
    assert!(set["packedPolicySize"].is_u64());
    let arn = set["assumedRoleUser"]["arn"].as_str().unwrap();
    assert!(
        arn.starts_with("arn:aws:sts::123456789012:assumed-role/web/"),
        "{arn}"
    );
    assert!(
        set["assumedRoleUser"]["assumedRoleId"]
            .as_str()
            .unwrap()
            .starts_with("AROA")
    );
    assert!(
        session["subjectArn"]
            .as_str()
            .unwrap()
            .contains(":subject/")
    );
    assert_eq!(stage.service.sessions_created(), 1);
    let decision = stage.service.decisions().pop().unwrap();
    assert!(decision.is_success());
    assert_eq!(decision.credential, Some(stage.leaf.serial_decimal.clone()));
}

#[test]
fn a_refusal_has_type_and_message_and_the_journal_the_reason() {
    let stage = Stage::new(|_| {});
    let mut request = stage.draft().sign(&stage.key);
    request.body.push(b' ');
    let (head, body) = stage.send(&request);
    assert!(head.starts_with("HTTP/1.1 403"), "{head}");
    assert!(
        head.contains("x-amzn-errortype: AccessDeniedException"),
        "{head}"
    );
    assert_eq!(
        serde_json::from_str::<Value>(&body).unwrap()["message"],
        "Invalid signature"
    );
    let decision = stage.service.decisions().pop().unwrap();
    assert!(decision.reason.contains("does not fit"), "{decision}");
    assert_eq!(stage.service.sessions_created(), 0);
}

#[test]
fn what_cannot_be_read_is_answered_too() {
    let stage = Stage::new(|_| {});
    let mut request = stage.draft().sign(&stage.key);
    request.path = "/nothing".to_owned();
    let (head, _) = stage.send(&request);
    assert!(
        head.starts_with("HTTP/1.1 404") && head.contains("UnknownOperationException"),
        "{head}"
    );
    let mut request = stage.draft().sign(&stage.key);
    request.body = vec![b' '; BODY_LIMIT + 1];
    let (head, body) = stage.send(&request);
    assert!(
        head.contains("400") && body.contains("cannot read the body"),
        "{head} {body}"
    );
}

#[test]
fn curl_is_told_who_it_is_with_the_credentials() {
    let stage = Stage::new(|_| {});
    let session = stage.session();
    let arn = session["credentialSet"][0]["assumedRoleUser"]["arn"]
        .as_str()
        .unwrap();
    let url = format!("{}/", stage.service.url());
    let query = format!("{url}?{FORM}");
    for args in [vec!["--data", FORM, url.as_str()], vec![query.as_str()]] {
        let (head, body) = stage.identify(&session, &args);
        assert!(head.starts_with("HTTP/1.1 200"), "{head}\n{body}");
        assert!(body.contains(&format!("<Arn>{arn}</Arn>")), "{body}");
    }
    let mut forged = session.clone();
    forged["credentialSet"][0]["credentials"]["secretAccessKey"] = "guessed".into();
    let (head, body) = stage.identify(&forged, &["--data", FORM, &url]);
    assert!(
        head.starts_with("HTTP/1.1 403") && body.contains("<Code>SignatureDoesNotMatch</Code>"),
        "{head}\n{body}"
    );
}

#[test]
fn its_clock_can_be_set() {
    let stage = Stage::new(|config| config.clock_offset = SignedDuration::from_mins(10));
    let (head, _) = stage.send(&stage.draft().sign(&stage.key));
    assert!(head.contains("403"), "{head}");
    assert!(
        stage
            .service
            .decisions()
            .pop()
            .unwrap()
            .reason
            .contains("from our clock")
    );
}

#[test]
fn it_stops_when_dropped_and_says_when_a_port_is_taken() {
    let stage = Stage::new(|_| {});
    let port = stage.service.port();
    let again = ServiceConfig {
        port,
        ..ServiceConfig::new(stage.pki.tls_identity().unwrap())
    };
    let error = Service::start(again).err().unwrap().to_string();
    assert!(error.contains(&format!("127.0.0.1:{port}")), "{error}");
    drop(stage);
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err());
}

#[test]
fn what_would_be_granted_leaves_no_trace() {
    let stage = Stage::new(|_| {});
    let signed = stage.draft().sign(&stage.key);
    let body = String::from_utf8(signed.body).unwrap();
    let would_grant = |body: &str| {
        let headers = signed.headers.clone();
        stage.service.would_grant(&signed.query, headers, body)
    };
    assert_eq!(would_grant(&body), Ok(()));
    let refused = would_grant(&body.replace("900", "901")).unwrap_err();
    assert!(refused.contains("ignature"), "{refused}");
    assert_eq!(stage.service.sessions_created(), 0);
    assert!(stage.service.decisions().is_empty());
}
