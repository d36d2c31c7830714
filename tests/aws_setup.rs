use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use hsm_fixtures::{PROFILE_ARN, Scene, TRUST_ANCHOR_ARN, WEB_ROLE_ARN};
use serde_json::Value;
use trust_policy::{SessionRequest, TrustPolicy};

use crate::agent::{json_of, venv};

/// A cap on sessions that a careless program would run, end early or fill in.
const CAP: &str = "{\n\t\"Version\": \"2012-10-17\",\n\t\"Statement\": [{\"Effect\": \"Allow\", \
    \"Action\": \"s3:*\", \"Resource\": \"it's/${aws:username}/$(touch pwned)/`touch pwned`/%{x}/\\\"\\\\\"}]\n}";

/// What AWS lets a tag say.
const NAME: &str = "web é = 1/2:+@_.-";

/// `roleseal aws-setup` for the scene's root, with everything.
fn aws_setup(scene: &Scene, format: &str) -> String {
    // The names of files go into nothing that runs.
    let ca = scene.path("it's $(touch pwned).pem");
    fs::copy(scene.pki().root_path(), &ca).unwrap();
    let cap = scene.write("cap \".json", CAP).unwrap();
    let mut roleseal = scene
        .roleseal(&["aws-setup", "--name", "web", "--role-name", "web-deploy"])
        .unwrap();
    let policies = ["ReadOnlyAccess", "job-function/Billing"];
    for policy in policies {
        let arn = format!("arn:aws:iam::aws:policy/{policy}");
        roleseal.args(["--managed-policy", &arn]);
    }
    roleseal.arg("--ca-file").arg(&ca);
    roleseal.arg("--session-policy").arg(&cap);
    roleseal.args(["--common-name", NAME, "--format", format]);
    roleseal.args(["--region", "eu-central-1", "--account", "123456789012"]);
    let output = roleseal.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains(&format!("x509Subject/CN = {NAME:?}")),
        "{said}"
    );
    String::from_utf8(output.stdout).unwrap()
}

/// The policy gives the role to the name and the trust anchor, and to no other.
fn assert_trust(policy: &str) {
    let policy = TrustPolicy::parse(policy).unwrap();
    let allows = |name: &str, anchor: &str| {
        let request = SessionRequest {
            trust_anchor_arn: anchor.to_owned(),
            account: "123456789012".to_owned(),
            tags: vec![("x509Subject/CN".to_owned(), name.to_owned())],
            source_identity: Some(format!("CN={name}")),
            session_name: "01".to_owned(),
        };
        policy.for_roles_anywhere(&request.context()).allowed()
    };
    assert!(allows(NAME, TRUST_ANCHOR_ARN));
    assert!(!allows("web", TRUST_ANCHOR_ARN));
    assert!(!allows(NAME, &TRUST_ANCHOR_ARN.replace("1f0b", "1f0c")));
}

fn same(one: &str, other: &str) -> bool {
    let read = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    read(one) == read(other)
}

/// Answers as STS, IAM and Roles Anywhere do; says what it was asked: the path, and the body.
fn aws() -> (u16, Receiver<(String, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, asked) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (path, body) = request(&stream);
            let answer = answer(&path, &body);
            let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length";
            let _ = write!(stream, "{head}: {}\r\n\r\n{answer}", answer.len());
            let _ = tell.send((path, body)); // the test may be over
        }
    });
    (port, asked)
}

fn request(stream: &TcpStream) -> (String, String) {
    let mut reader = BufReader::new(stream);
    let (mut path, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if let Some(rest) = line.strip_prefix("POST ") {
            path = rest.split(' ').next().unwrap().to_owned();
        }
        if let Some(("content-length", value)) = line.to_lowercase().split_once(": ") {
            length = value.parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    (path, String::from_utf8(body).unwrap())
}

fn answer(path: &str, body: &str) -> String {
    match path {
        "/trustanchors" => format!(r#"{{"trustAnchor":{{"trustAnchorArn":"{TRUST_ANCHOR_ARN}"}}}}"#),
        "/profiles" => format!(r#"{{"profile":{{"profileArn":"{PROFILE_ARN}"}}}}"#),
        _ if body.contains("Action=GetCallerIdentity") => {
            "<R><GetCallerIdentityResult><Account>123456789012</Account></GetCallerIdentityResult></R>"
                .to_owned()
        }
        _ if body.contains("Action=CreateRole") => format!(
            "<R><CreateRoleResult><Role><Arn>{WEB_ROLE_ARN}</Arn></Role></CreateRoleResult></R>"
        ),
        _ => "<R></R>".to_owned(),
    }
}

/// Runs a script whose `aws` is this one.
fn run(scene: &Scene, script: &str, aws: &str) -> Output {
    let script = scene.write("setup.sh", script).unwrap();
    fs::create_dir_all(scene.path("bin")).unwrap();
    let program = scene
        .write("bin/aws", &format!("#!/bin/sh\n{aws}\n"))
        .unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", scene.path("bin").display());
    scene
        .command("sh")
        .arg(script)
        .current_dir(scene.dir())
        .env("PATH", path)
        .env("AWS_ACCESS_KEY_ID", "AKIA1")
        .env("AWS_SECRET_ACCESS_KEY", "secret")
        .output()
        .unwrap()
}

/// The member of a form, decoded.
fn member(form: &str, name: &str) -> String {
    let pairs = form.split('&').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.into_iter().find(|(key, _)| *key == name).unwrap();
    let value = value.replace('+', " ");
    percent_encoding::percent_decode_str(&value)
        .decode_utf8()
        .unwrap()
        .into_owned()
}

#[test]
fn the_script_makes_the_real_aws_cli_ask_for_all_of_it() {
    let scene = Scene::new().unwrap();
    let script = aws_setup(&scene, "cli");
    let (port, asked) = aws();
    let real = venv("aws").display().to_string();
    let output = run(
        &scene,
        &script,
        &format!("exec {real} --endpoint-url http://127.0.0.1:{port} \"$@\""),
    );
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let asked: Vec<(String, String)> = asked.try_iter().collect();
    assert_eq!(asked.len(), 6, "{asked:?}");
    assert!(asked[0].1.contains("Action=GetCallerIdentity"));

    let anchor: Value = serde_json::from_str(&asked[1].1).unwrap();
    assert_eq!(
        (&anchor["name"], &anchor["enabled"]),
        (&"web".into(), &true.into())
    );
    assert_eq!(anchor["source"]["sourceType"], "CERTIFICATE_BUNDLE");
    let bundle = &anchor["source"]["sourceData"]["x509CertificateData"];
    assert_eq!(bundle.as_str().unwrap(), scene.pki().root_pem().unwrap());

    assert_eq!(member(&asked[2].1, "RoleName"), "web-deploy");
    assert_trust(&member(&asked[2].1, "AssumeRolePolicyDocument"));
    for (at, policy) in [(3, "ReadOnlyAccess"), (4, "job-function/Billing")] {
        let arn = format!("arn:aws:iam::aws:policy/{policy}");
        assert_eq!(member(&asked[at].1, "PolicyArn"), arn);
        assert_eq!(member(&asked[at].1, "RoleName"), "web-deploy");
    }

    let profile: Value = serde_json::from_str(&asked[5].1).unwrap();
    assert_eq!(
        (&profile["name"], &profile["enabled"]),
        (&"web".into(), &true.into())
    );
    assert_eq!(profile["roleArns"], serde_json::json!([WEB_ROLE_ARN]));
    assert!(same(profile["sessionPolicy"].as_str().unwrap(), CAP));

    // What it prints is a target, and nothing of what was quoted was run.
    let targets = scene.path("targets.toml");
    fs::write(&targets, &output.stdout).unwrap();
    let targets = targets.display().to_string();
    let listed = scene
        .roleseal(&["targets", "--json", "--targets", &targets])
        .unwrap();
    let listed = json_of(&{ listed }.output().unwrap());
    assert_eq!(listed[0]["trustAnchorArn"], TRUST_ANCHOR_ARN);
    assert_eq!(listed[0]["roleArn"], WEB_ROLE_ARN);
    assert!(!scene.path("pwned").exists());
}

#[test]
fn the_script_ends_where_aws_says_no() {
    let scene = Scene::new().unwrap();
    let script = aws_setup(&scene, "cli");
    let mut bash = scene.command("bash");
    let checked = bash
        .arg("-n")
        .arg(scene.write("check.sh", &script).unwrap());
    assert!(checked.status().unwrap().success());
    let calls = scene.path("calls");
    for (refused, made, code) in [
        ("create-trust-anchor", 2, 254),
        ("create-role", 3, 254),
        ("attach-role-policy", 4, 254),
        ("create-profile", 6, 254),
        ("none: another account", 1, 1),
    ] {
        let _ = fs::remove_file(&calls);
        let account = if code == 1 {
            "210987654321"
        } else {
            "123456789012"
        };
        let aws = format!(
            "echo \"$*\" | head -1 >> {}\ncase \"$*\" in *{refused:?}*) exit 254;; *get-caller*) echo {account};; esac",
            calls.display()
        );
        let output = run(&scene, &script, &aws);
        assert_eq!(output.status.code(), Some(code), "{refused}");
        assert_eq!(output.stdout, b"", "{refused}");
        let called = fs::read_to_string(&calls).unwrap();
        assert_eq!(called.lines().count(), made, "{called}");
    }
}

/// The template as CloudFormation reads it, its functions as {"Fn": argument}.
const READ_YAML: &str = "\
import sys, json, yaml
class Loader(yaml.SafeLoader): pass
def function(loader, name, node):
    if isinstance(node, yaml.SequenceNode): return {name: loader.construct_sequence(node)}
    return {name: loader.construct_scalar(node)}
Loader.add_multi_constructor('!', function)
print(json.dumps(yaml.load(sys.stdin, Loader)))
";

#[test]
fn the_template_is_what_cloudformation_reads() {
    let scene = Scene::new().unwrap();
    let template = scene
        .write("web.yaml", &aws_setup(&scene, "cloudformation"))
        .unwrap();
    let mut python = scene.command(venv("python"));
    python
        .args(["-c", READ_YAML])
        .stdin(fs::File::open(template).unwrap());
    let read = json_of(&python.output().unwrap());
    let resources = &read["Resources"];
    let properties = |name: &str, kind: &str| {
        assert_eq!(resources[name]["Type"], kind);
        resources[name]["Properties"].clone()
    };
    let anchor = properties("TrustAnchor", "AWS::RolesAnywhere::TrustAnchor");
    let bundle = &anchor["Source"]["SourceData"]["X509CertificateData"];
    assert_eq!(bundle.as_str().unwrap(), scene.pki().root_pem().unwrap());
    assert_eq!(anchor["Enabled"], true);
    let role = properties("Role", "AWS::IAM::Role");
    assert_eq!(role["RoleName"], "web-deploy");
    assert_eq!(role["ManagedPolicyArns"].as_array().unwrap().len(), 2);
    let trust = role["AssumeRolePolicyDocument"].to_string();
    let trust = trust
        .replace(
            r#"{"GetAtt":"TrustAnchor.TrustAnchorArn"}"#,
            &format!("{TRUST_ANCHOR_ARN:?}"),
        )
        .replace(r#"{"Ref":"AWS::AccountId"}"#, r#""123456789012""#);
    assert_trust(&trust);
    let profile = properties("Profile", "AWS::RolesAnywhere::Profile");
    assert_eq!(
        profile["RoleArns"],
        serde_json::json!([{ "GetAtt": "Role.Arn" }])
    );
    assert!(same(profile["SessionPolicy"].as_str().unwrap(), CAP));
    let target = read["Outputs"]["Target"]["Value"]["Sub"].as_str().unwrap();
    assert!(target.contains("role-arn = \"${Role.Arn}\"\n"), "{target}");
}

#[test]
fn a_stack_has_a_name_that_cloudformation_takes() {
    let scene = Scene::new().unwrap();
    let ca = scene.pki().root_path().display().to_string();
    let name = ["--name", "1_web", "--format", "cloudformation"];
    let arguments = [&["aws-setup", "--ca-file", &ca], &name[..]].concat();
    let output = scene.roleseal(&arguments).unwrap().output().unwrap();
    let template = String::from_utf8(output.stdout).unwrap();
    let commands = template.lines().filter(|line| line.starts_with("# aws"));
    let stacks: Vec<&str> = commands
        .map(|line| line.split("--stack-name ").nth(1).unwrap())
        .map(|rest| rest.split(' ').next().unwrap())
        .collect();
    assert_eq!(stacks, ["roleseal--1-web-8"; 2]); // [a-zA-Z][-a-zA-Z0-9]*
}

#[test]
fn the_terraform_file_is_one() {
    let scene = Scene::new().unwrap();
    let file = aws_setup(&scene, "terraform");
    for line in [
        "resource \"aws_rolesanywhere_trust_anchor\" \"this\" {",
        "resource \"aws_rolesanywhere_profile\" \"this\" {",
        "\"aws:SourceArn\" = aws_rolesanywhere_trust_anchor.this.arn",
    ] {
        assert!(
            file.lines().any(|found| found.trim() == line),
            "{line} not in {file}"
        );
    }
    assert!(
        file.contains("/$${aws:username}/") && file.contains("/%%{x}/"),
        "{file}"
    );
    // The syntax is checked where Terraform is: it is no tool of these tests otherwise.
    let mut terraform = scene.command("terraform");
    terraform
        .args(["fmt", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if let Ok(mut child) = terraform.spawn() {
        child
            .stdin
            .take()
            .unwrap()
            .write_all(file.as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
    }
}

#[test]
fn what_aws_would_refuse_is_not_set_up() {
    let scene = Scene::new().unwrap();
    let leaf = scene.pki().intermediate_path().display().to_string();
    let root = scene.pki().root_path().display().to_string();
    let bad = scene
        .write("bad.json", "{\"Version\": 1}")
        .unwrap()
        .display()
        .to_string();
    let other = Scene::new().unwrap();
    let stranger = other.pki().root_path().display().to_string();
    let token = scene.add_token("lab").unwrap();
    scene
        .add_identity(&token, "web", hsm_fixtures::KeyKind::EcP256)
        .unwrap();
    let web = scene.path("web.pem").display().to_string();
    let empty = scene.write("empty.pem", "").unwrap().display().to_string();
    for (arguments, code, expected) in [
        (
            vec!["--ca-file", &web],
            6,
            "web.pem:\n  trust anchor 1 (CN=web,O=roleseal fixtures): it is not a CA certificate",
        ),
        (
            vec!["--ca-file", &stranger, "--certificate", &web],
            6,
            "is not signed by",
        ),
        (
            vec!["--ca-file", &root, "--certificate", &web, "--by", "uri"],
            2,
            "no tag x509SAN/URI",
        ),
        (
            vec!["--ca-file", &root, "--certificate", &leaf],
            6,
            "CA certificate",
        ),
        (
            vec!["--ca-file", &root, "--common-name", "a*"],
            2,
            "\"a*\" can be no tag",
        ),
        (
            vec!["--ca-file", &root, "--session-policy", &bad],
            1,
            "no Statement",
        ),
        (vec!["--ca-file", &empty], 1, "empty.pem: it is empty"),
        (vec!["--ca-file", &root, "--by", "cn"], 2, "--certificate"),
        (
            vec!["--ca-file", &root, "--region", "eu-central"],
            2,
            "'--region <REGION>': \"eu-central\" is not an AWS region; write one like eu-central-1",
        ),
        (
            vec!["--ca-file", &root, "--role-name", "a'b"],
            2,
            "a role's name has",
        ),
    ] {
        let fixed = ["aws-setup", "--name", "web", "--format", "cli"];
        let output = scene
            .roleseal(&[&fixed, &arguments[..]].concat())
            .unwrap()
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(expected), "{said}");
        assert_eq!(output.stdout, b"");
    }
}
