//! `inspect` and `trust-policy` on certificates that openssl(1) makes.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::{Scene, exit, text};

/// A CA and a leaf of its, in the scene's directory: `ca.pem` and `NAME.pem`.
pub(crate) fn issue(scene: &Scene, name: &str, subject: &str, extensions: &str) {
    let directory = scene.path("");
    let openssl = |line: &[&str]| openssl(&directory, line);
    if !scene.path("ca.pem").exists() {
        openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            "/O=Bank/CN=Bank CA",
            "-keyout",
            "ca.key",
            "-out",
            "ca.pem",
            "-days",
            "300",
            "-addext",
            "keyUsage=critical,keyCertSign",
        ]);
    }
    fs::write(scene.path("ext"), extensions.replace("; ", "\n")).unwrap();
    let (key, request, pem) = (
        format!("{name}.key"),
        format!("{name}.csr"),
        format!("{name}.pem"),
    );
    openssl(&[
        "req",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-utf8",
        "-subj",
        subject,
        "-keyout",
        &key,
        "-out",
        &request,
    ]);
    openssl(&[
        "x509",
        "-req",
        "-in",
        &request,
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-set_serial",
        "291",
        "-days",
        "90",
        "-extfile",
        "ext",
        "-out",
        &pem,
    ]);
}

/// What a leaf has that AWS takes, with names.
pub(crate) const GOOD: &str = "basicConstraints=CA:FALSE; keyUsage=digitalSignature; \
                               subjectAltName=DNS:web.bank.test,URI:spiffe://bank.test/web";

/// A CA of which `issue` makes leaves, and which may issue names of bank.test alone.
fn constrained_ca(scene: &Scene) {
    let constraints = "nameConstraints=critical,permitted;DNS:bank.test";
    let new = [
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
    ];
    let names = [
        "-subj",
        "/CN=Bank CA",
        "-keyout",
        "ca.key",
        "-out",
        "ca.pem",
        "-days",
        "300",
    ];
    let usage = [
        "-addext",
        "keyUsage=critical,keyCertSign",
        "-addext",
        constraints,
    ];
    openssl(&scene.path(""), &[&new[..], &names, &usage].concat());
}

#[test]
fn rfc_5280_decides_on_critical_extensions_and_names() {
    let scene = Scene::new();
    constrained_ca(&scene);
    let usage = "basicConstraints=CA:FALSE; keyUsage=digitalSignature";
    for (name, extensions, code) in [
        ("inside", "subjectAltName=DNS:web.bank.test", 0),
        ("outside", "subjectAltName=DNS:web.lab.test", 6),
        ("critical", "1.2.3.4.5=critical,DER:0500", 6),
        ("noncritical", "1.2.3.4.5=DER:0500", 0),
    ] {
        issue(&scene, name, "/CN=web", &format!("{usage}; {extensions}"));
        let file = format!("{name}.pem");
        let output = inspect(&scene, &[&file, "--json", "--trust-anchor", "ca.pem"]);
        assert_eq!(exit(&output), code, "{name}: {}", text(&output.stderr));
        assert_eq!(json_of(&output)["accepted"], code == 0, "{name}");
    }
}

#[test]
fn a_certificate_may_have_hundreds_of_names() {
    let scene = Scene::new();
    let names: String = (0..200)
        .map(|number| format!(",DNS:host-{number}.some.rather.long.domain.of.the.bank.test"))
        .collect();
    issue(&scene, "large", "/CN=web", &format!("{GOOD}{names}"));
    let output = inspect(&scene, &["large.pem", "--trust-anchor", "ca.pem"]);
    assert_eq!(exit(&output), 0, "{}", text(&output.stderr));
}

fn openssl(directory: &Path, line: &[&str]) {
    let mut openssl = Command::new("openssl");
    let output = openssl.current_dir(directory).args(line).output().unwrap();
    assert!(
        output.status.success(),
        "{line:?}: {}",
        text(&output.stderr)
    );
}

fn inspect(scene: &Scene, more: &[&str]) -> Output {
    let mut command = scene.roleseal(&[&["inspect"], more].concat());
    command.current_dir(scene.path("")).output().unwrap()
}

fn json_of(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

/// aws_signing_helper's `CertificateData`: four members, of which three are strings.
#[test]
fn the_json_has_the_members_of_awss_helper() {
    let scene = Scene::new();
    issue(&scene, "web", "/O=Bank/OU=One/OU=Two/CN=web", GOOD);
    let output = inspect(&scene, &["web.pem", "--json", "--trust-anchor", "ca.pem"]);
    assert_eq!(exit(&output), 0, "{}", text(&output.stderr));
    let seen = json_of(&output);
    let pem = fs::read_to_string(scene.path("web.pem")).unwrap();
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    assert_eq!(seen["keyType"], "EC");
    assert_eq!(seen["certificateData"], body);
    assert_eq!(seen["serialNumber"], "291");
    let algorithms = json!(["ECSHA256", "ECSHA384", "ECSHA512"]);
    assert_eq!(seen["supportedAlgorithms"], algorithms);
    assert_eq!(seen["serialNumberHex"], "0123");
    assert_eq!(seen["roleSessionName"], "0123");
    assert_eq!(seen["sourceIdentity"], "CN=web");
    assert_eq!(
        seen["principalTags"],
        json!({
            "x509Subject/O": "Bank", "x509Subject/OU": "One/Two", "x509Subject/CN": "web",
            "x509Issuer/O": "Bank", "x509Issuer/CN": "Bank CA",
            "x509SAN/DNS": "web.bank.test", "x509SAN/URI": "spiffe://bank.test/web",
        })
    );
    assert_eq!(seen["objections"], json!([]));
}

#[test]
fn what_aws_would_refuse_ends_with_six_and_says_why() {
    let scene = Scene::new();
    issue(
        &scene,
        "server",
        "/CN=server",
        &format!("{GOOD}; extendedKeyUsage=serverAuth"),
    );
    let output = inspect(&scene, &["server.pem"]);
    assert_eq!(exit(&output), 6);
    let (shown, said) = (text(&output.stdout), text(&output.stderr));
    assert!(
        shown.contains("AWS would refuse it\n  its extendedKeyUsage lacks clientAuth"),
        "{shown}"
    );
    assert!(said.starts_with("roleseal: AWS would refuse"), "{said}");
    let output = inspect(&scene, &["server.pem", "--json"]);
    assert_eq!(exit(&output), 6);
    let seen = json_of(&output);
    assert_eq!(seen["accepted"], false);
    let objection = &seen["objections"][0];
    assert_eq!(
        (&objection["certificate"], &objection["severity"]),
        (&json!("leaf"), &json!("refused"))
    );
}

#[test]
fn certificates_come_in_every_form() {
    let scene = Scene::new();
    issue(&scene, "web", "/CN=web", GOOD);
    openssl(
        &scene.path(""),
        &[
            "x509", "-in", "web.pem", "-outform", "DER", "-out", "web.der",
        ],
    );
    let serial = |output: &Output| json_of(output)["serialNumber"].clone();
    let anchor = ["--json", "--trust-anchor", "ca.pem"];
    for files in [&["web.pem"][..], &["web.der"], &["web.pem", "ca.pem"]] {
        let output = inspect(&scene, &[files, &anchor].concat());
        assert_eq!(
            (exit(&output), serial(&output)),
            (0, json!("291")),
            "{files:?}"
        );
    }
    let mut command = scene.roleseal(&["inspect", "-", "--json"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let pem = fs::read(scene.path("web.pem")).unwrap();
    child.stdin.take().unwrap().write_all(&pem).unwrap();
    assert_eq!(serial(&child.wait_with_output().unwrap()), json!("291"));
}

#[test]
fn what_is_no_certificate_is_named_by_its_file() {
    let scene = Scene::new();
    fs::write(scene.path("key.pem"), "-----BEGIN PRIVATE KEY-----\n").unwrap();
    for (arguments, expected, code) in [
        (
            &["key.pem"][..],
            "key.pem: there is no \"-----BEGIN CERTIFICATE-----\" in it, but a private key",
            1,
        ),
        (&["absent.pem"], "absent.pem: cannot read it", 1),
        (&["/dev/zero"], "it has more than 262144 bytes", 1),
        (&["-"], "standard input: it is empty", 1),
        (&["--identity=web"], "cannot connect to roleseal-agent", 3),
        (&["--identity=web", "key.pem"], "cannot be used with", 2),
    ] {
        let output = inspect(&scene, arguments);
        let said = text(&output.stderr);
        assert_eq!(exit(&output), code, "{said}");
        assert!(said.contains(expected), "{said}");
        assert_eq!(text(&output.stdout), "");
    }
    // An agent that talks nonsense.
    let _agent = scene.agent(r#"{"parameters":{"chain":["AAAA"]}}"#);
    let output = inspect(&scene, &["--identity=web"]);
    assert_eq!(exit(&output), 3, "{}", text(&output.stderr));
}

#[test]
fn a_name_forges_no_line() {
    let scene = Scene::new();
    issue(
        &scene,
        "evil",
        "/CN=web\nAWS has nothing against it\x1b[2J",
        GOOD,
    );
    let output = inspect(&scene, &["evil.pem"]);
    let shown = text(&output.stdout);
    let forged = |line: &&str| line.starts_with("AWS has nothing");
    assert_eq!(shown.lines().filter(forged).count(), 1, "{shown}");
    assert!(!shown.contains('\x1b'));
}

const ANCHOR: &str = "arn:aws-cn:rolesanywhere:cn-north-1:123456789012:trust-anchor/a";

fn trust_policy(scene: &Scene, more: &[&str]) -> Output {
    let mut command = scene.roleseal(&[&["trust-policy"], more].concat());
    command.current_dir(scene.path("")).output().unwrap()
}

#[test]
fn a_trust_policy_names_what_it_is_bound_to() {
    let scene = Scene::new();
    issue(&scene, "web", "/O=Bank/CN=web", GOOD);
    let output = trust_policy(&scene, &["web.pem", "--trust-anchor-arn", ANCHOR]);
    assert_eq!(exit(&output), 0, "{}", text(&output.stderr));
    assert_eq!(
        json_of(&output),
        json!({
            "Version": "2012-10-17",
            "Statement": [{
                "Effect": "Allow",
                "Principal": { "Service": "rolesanywhere.amazonaws.com" },
                "Action": ["sts:AssumeRole", "sts:SetSourceIdentity", "sts:TagSession"],
                "Condition": {
                    "StringEquals": {
                        "aws:PrincipalTag/x509Subject/CN": "web",
                        "aws:SourceAccount": "123456789012",
                    },
                    "ArnEquals": { "aws:SourceArn": ANCHOR },
                },
            }],
        })
    );
    let said = text(&output.stderr);
    assert!(
        said.contains("x509Subject/CN = \"web\"") && said.contains("only from \"Bank CA\""),
        "{said}"
    );

    // The anchor of a target; of the certificate what is asked for.
    let target = format!("[target.web]\ntrust-anchor-arn = \"{ANCHOR}\"\n[target.bare]\n");
    fs::write(scene.path("targets.toml"), target).unwrap();
    let target = [
        "--targets=targets.toml",
        "--target=web",
        "--by=uri,issuer-cn",
        "web.pem",
        "-q",
    ];
    let output = trust_policy(&scene, &target);
    assert_eq!(text(&output.stderr), "");
    let equals = &json_of(&output)["Statement"][0]["Condition"]["StringEquals"];
    assert_eq!(
        equals["aws:PrincipalTag/x509SAN/URI"],
        "spiffe://bank.test/web"
    );
    assert_eq!(equals["aws:PrincipalTag/x509Issuer/CN"], "Bank CA");
    assert_eq!(equals.as_object().unwrap().len(), 3);
}

#[test]
fn a_trust_policy_that_would_bind_to_nothing_is_not_printed() {
    let scene = Scene::new();
    issue(
        &scene,
        "odd",
        "/CN=w*b",
        "basicConstraints=CA:FALSE; keyUsage=digitalSignature",
    );
    fs::write(scene.path("targets.toml"), "[target.bare]\n").unwrap();
    let anchor = format!("--trust-anchor-arn={ANCHOR}");
    for (arguments, code, expected) in [
        (&["odd.pem", &anchor][..], 2, "nothing to bind a role to"),
        (
            &["odd.pem", &anchor, "--by=cn"],
            2,
            "a character that a tag may not have",
        ),
        (
            &["odd.pem", &anchor, "--by=dns"],
            2,
            "the certificate has none",
        ),
        (&["odd.pem"], 2, "--trust-anchor-arn"),
        (
            &["odd.pem", "--targets=targets.toml", "--target=bare"],
            2,
            "names no trust anchor",
        ),
        (
            &["odd.pem", "--targets=targets.toml", "--target=other"],
            2,
            "there is no target",
        ),
        (&["absent.pem", &anchor], 1, "absent.pem: cannot read it"),
        (&["--identity=web", &anchor], 3, "cannot connect"),
    ] {
        let output = trust_policy(&scene, arguments);
        let said = text(&output.stderr);
        assert_eq!(exit(&output), code, "{said}");
        assert!(said.contains(expected), "{said}");
        assert_eq!(text(&output.stdout), "");
    }
}
