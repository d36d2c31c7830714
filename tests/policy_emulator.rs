use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Output};

use hsm_fixtures::{
    AttributeMapping, CertificateField, Decision, Issuer, KeyKind, KeySpec, LeafSpec, PROFILE_ARN,
    Role, Scene, ServiceConfig, TRUST_ANCHOR_ARN, WEB_ROLE_ARN,
};

use rustix::fs::{CWD, Mode, OFlags, mkfifoat};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use crate::agent::{json_of, until};

const ALL: &str = r#"["sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"]"#;

/// One statement that allows `actions` under `condition`.
fn policy(actions: &str, condition: &str) -> String {
    format!(
        r#"{{"Version": "2012-10-17", "Statement": {{"Sid": "Web", "Effect": "Allow",
            "Principal": {{"Service": "rolesanywhere.amazonaws.com"}}, "Action": {actions}, "Condition": {condition}}}}}"#
    )
}

/// The identity `web` of a leaf that the root issued, and what becomes of its credential-process, run after `before`.
fn run(edit: impl FnOnce(&mut ServiceConfig), before: impl FnOnce(&Scene)) -> (Output, Decision) {
    let scene = Scene::with_service(edit).unwrap();
    let token = scene.add_token("lab").unwrap();
    let leaf = LeafSpec {
        serial: Some(4711),
        issuer: Issuer::Root,
        dns_names: vec!["web.test".to_owned()],
        ..LeafSpec::new("web")
    };
    let key = KeySpec::new("web", KeyKind::EcP256);
    let web = scene.add_identity_with(&token, &key, &leaf).unwrap();
    let agent = scene
        .start_agent(&scene.agent_config(vec![web]).unwrap())
        .unwrap();
    before(&scene);
    let arguments = scene.credential_process("web", WEB_ROLE_ARN);
    let output = scene.roleseal(&arguments).unwrap().output().unwrap();
    let decision = scene.service().decisions().pop().unwrap();
    agent.stop().unwrap();
    (output, decision)
}

fn with_policy(policy: &str) -> impl FnOnce(&mut ServiceConfig) {
    let role = Role::with_trust_policy(WEB_ROLE_ARN, policy);
    move |config| config.roles = vec![role]
}

/// The CLI ends with the code of a refusal by Roles Anywhere and tells its words; the service's decision has the cause.
#[track_caller]
fn refused((output, decision): &(Output, Decision), message: &str, cause: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(6), "{stderr}\n{decision}");
    assert!(
        stderr.contains("AccessDeniedException") && stderr.contains(message),
        "{stderr}"
    );
    assert_eq!(output.stdout, b"");
    assert_eq!(
        (decision.status, decision.message.as_str()),
        (403, message),
        "{decision}"
    );
    assert!(decision.reason.contains(cause), "{decision}");
}

fn unable() -> String {
    format!("Unable to assume role for {WEB_ROLE_ARN}")
}

#[test]
fn a_policy_on_everything_that_is_known_of_the_certificate_is_satisfied() {
    let condition = format!(
        r#"{{"StringEquals": {{"aws:PrincipalTag/x509Subject/CN": "web", "aws:RequestTag/x509SAN/DNS": "web.test",
                "aws:PrincipalTag/x509Issuer/CN": "roleseal fixtures: root CA", "sts:SourceIdentity": "CN=web",
                "aws:SourceAccount": "123456789012", "sts:RoleSessionName": "1267"}},
            "ArnEquals": {{"aws:SourceArn": "{TRUST_ANCHOR_ARN}"}},
            "ForAllValues:StringLike": {{"aws:TagKeys": ["x509Subject/*", "x509Issuer/*", "x509SAN/DNS"]}}}}"#
    );
    let (output, decision) = run(with_policy(&policy(ALL, &condition)), |_| {});
    assert!(json_of(&output)["AccessKeyId"].is_string(), "{decision}");
    assert!(
        decision.allowed_by.contains("Statement[0] \"Web\""),
        "{decision}"
    );
}

#[test]
fn another_common_name_is_refused() {
    let condition = r#"{"StringEquals": {"aws:PrincipalTag/x509Subject/CN": "batch"}}"#;
    refused(
        &run(with_policy(&policy(ALL, condition)), |_| {}),
        &unable(),
        r#"StringEquals aws:PrincipalTag/x509Subject/CN "batch", the request has "web""#,
    );
}

#[test]
fn another_trust_anchor_is_refused() {
    let condition = r#"{"ArnEquals": {"aws:SourceArn": "arn:aws:rolesanywhere:*:123456789012:trust-anchor/other"}}"#;
    refused(
        &run(with_policy(&policy(ALL, condition)), |_| {}),
        &unable(),
        "ArnEquals aws:SourceArn",
    );
}

#[test]
fn a_missing_action_is_refused_and_named() {
    let actions = r#"["sts:AssumeRole", "sts:SetSourceIdentity"]"#;
    let outcome = run(with_policy(&policy(actions, "{}")), |_| {});
    refused(
        &outcome,
        &unable(),
        "sts:TagSession is allowed by no statement",
    );
    assert!(
        !outcome.1.reason.contains("sts:AssumeRole is"),
        "{}",
        outcome.1
    );
}

#[test]
fn an_attribute_that_the_profile_does_not_map_is_absent() {
    let condition = r#"{"StringEquals": {"aws:PrincipalTag/x509Subject/CN": "web"}}"#;
    let edit = |config: &mut ServiceConfig| {
        with_policy(&policy(ALL, condition))(config);
        config.profiles[0].attribute_mappings = vec![AttributeMapping {
            certificate_field: CertificateField::Subject,
            specifiers: vec!["O".to_owned()],
        }];
    };
    refused(&run(edit, |_| {}), &unable(), "the request has none");
}

#[test]
fn a_profile_that_does_not_list_the_role_is_refused() {
    let edit =
        |config: &mut ServiceConfig| config.profiles[0].roles.retain(|role| role != WEB_ROLE_ARN);
    refused(
        &run(edit, |_| {}),
        &unable(),
        "the profile does not list the role",
    );
}

#[test]
fn a_disabled_trust_anchor_is_refused() {
    let edit = |config: &mut ServiceConfig| config.trust_anchors[0].enabled = false;
    refused(
        &run(edit, |_| {}),
        "Trust anchor is disabled",
        TRUST_ANCHOR_ARN,
    );
}

#[test]
fn a_revoked_serial_is_refused_from_the_import_of_its_list_on() {
    let import = |scene: &Scene, serial: &str| {
        let fresh = std::time::Duration::ZERO;
        let crl = scene.pki().crl(Issuer::Root, &[serial], fresh).unwrap();
        scene
            .service()
            .import_crl(TRUST_ANCHOR_ARN, crl.as_bytes())
            .unwrap();
    };
    let (output, decision) = run(|_| {}, |scene| import(scene, "4712"));
    assert!(json_of(&output)["AccessKeyId"].is_string(), "{decision}");
    refused(
        &run(|_| {}, |scene| import(scene, "4711")),
        "Certificate revoked",
        "certificate 4711",
    );
}

/// `hsm-fixtures service` from a file, as a pipeline runs it, and `hsm-fixtures explain` for the same question.
#[test]
fn a_file_is_all_that_the_service_and_its_explanation_need() {
    let scene = Scene::new().unwrap();
    let token = scene.add_token("lab").unwrap();
    let web = scene.add_identity(&token, "web", KeyKind::EcP256).unwrap();
    let condition = r#"{"StringEquals": {"aws:PrincipalTag/x509Subject/CN": "batch"}}"#;
    scene.write("trust.json", &policy(ALL, condition)).unwrap();
    let file = format!(
        "[[trust-anchor]]\narn = \"{TRUST_ANCHOR_ARN}\"\nbundle = \"root.pem\"\n\
         [[profile]]\narn = \"{PROFILE_ARN}\"\nroles = [\"{WEB_ROLE_ARN}\"]\n\
         [[role]]\narn = \"{WEB_ROLE_ARN}\"\ntrust-policy-file = \"trust.json\"\n"
    );
    let file = scene.write("emulator.toml", &file).unwrap();
    let fixtures = hsm_fixtures::programs::fixtures().unwrap();
    let explain = || {
        let mut command = scene.command(&fixtures);
        command
            .arg("explain")
            .arg("--config")
            .arg(&file)
            .arg("--cert")
            .arg(&web.certificate);
        command.args([
            "--role",
            WEB_ROLE_ARN,
            "--profile",
            PROFILE_ARN,
            "--trust-anchor",
            TRUST_ANCHOR_ARN,
        ]);
        command.output().unwrap()
    };
    let output = explain();
    let table = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{table}");
    for line in [
        "x509Subject/CN = web",
        "source identity CN=web",
        "NO  StringEquals aws:PrincipalTag/x509Subject/CN \"batch\", the request has \"web\"",
        "403 AccessDeniedException: Unable to assume role",
    ] {
        assert!(table.contains(line), "{line}: {table}");
    }
    scene.write("trust.json", &policy(ALL, "{}")).unwrap();
    let output = explain();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );

    let mut command = scene.command(&fixtures);
    command
        .args(["service", "--explain", "--config"])
        .arg(&file);
    let log = scene.path("service.log");
    command
        .stdout(std::process::Stdio::piped())
        .stderr(std::fs::File::create(&log).unwrap());
    let mut service = command.spawn().unwrap();
    let mut lines = BufReader::new(service.stdout.take().unwrap()).lines();
    let url = lines.next().unwrap().unwrap();
    let ca = lines.next().unwrap().unwrap();
    let identity = hsm_fixtures::AgentIdentity {
        endpoints: vec![url.clone()],
        ..web
    };
    let agent = scene
        .start_agent(&scene.agent_config(vec![identity]).unwrap())
        .unwrap();
    let mut arguments = scene.credential_process("web", WEB_ROLE_ARN);
    for (name, value) in [("--endpoint", url), ("--ca-bundle", ca)] {
        let at = arguments
            .iter()
            .position(|argument| argument == name)
            .unwrap();
        arguments[at + 1] = value;
    }
    let output = scene.roleseal(&arguments).unwrap().output().unwrap();
    agent.stop().unwrap();
    service.kill().unwrap();
    service.wait().unwrap();
    assert!(json_of(&output)["AccessKeyId"].is_string());
    let log = std::fs::read_to_string(log).unwrap();
    assert!(
        log.contains("sts:TagSession: allowed by Statement[0]"),
        "{log}"
    );
}

/// The pipe's end to write to, once the child has opened the other one.
fn until_reads(child: &mut Child, pipe: &Path) -> OwnedFd {
    until("the pipe is open", || {
        match rustix::fs::open(pipe, OFlags::WRONLY | OFlags::NONBLOCK, Mode::empty()) {
            Err(Errno::NXIO) => {
                let ended = child.try_wait().unwrap();
                assert_eq!(ended, None, "it ended without reading the pipe");
                None
            }
            opened => Some(opened.unwrap()),
        }
    })
}

/// While it reads a pipe, Ctrl-C and SIGTERM end it as any program, and no key or directory of it stays behind.
#[test]
fn a_file_that_is_waited_for_can_be_given_up() {
    let scene = Scene::new().unwrap();
    let pipe = scene.path("pipe");
    mkfifoat(CWD, &pipe, Mode::RUSR | Mode::WUSR).unwrap();
    let names_pipe =
        format!("profile = []\n[[trust-anchor]]\narn = \"{TRUST_ANCHOR_ARN}\"\nbundle = \"pipe\"");
    let file = scene.write("service.toml", &names_pipe).unwrap();
    let temporary = scene.path("tmp");
    std::fs::create_dir(&temporary).unwrap();
    let explain = [
        "--cert=web.pem",
        "--role=a",
        "--profile=b",
        "--trust-anchor=c",
    ];
    for (command, config, more) in [
        ("service", &pipe, &[][..]),
        ("service", &file, &[]),
        ("explain", &pipe, &explain),
        ("explain", &file, &explain),
    ] {
        let mut fixtures = scene.command(hsm_fixtures::programs::fixtures().unwrap());
        let mut child = fixtures
            .args([command, "--config"])
            .arg(config)
            .args(more)
            .env("TMPDIR", &temporary)
            .spawn()
            .unwrap();
        let writer = until_reads(&mut child, &pipe);
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        drop(writer);
        let ended = child.wait().unwrap();
        assert_eq!(ended.signal(), Some(Signal::TERM.as_raw()), "{command}");
        let left = files_of(&temporary);
        assert!(left.is_empty(), "{command}: {left:?}");
    }
}

#[test]
fn a_service_that_ends_takes_its_ca_with_it() {
    let scene = Scene::new().unwrap();
    let empty = "trust-anchor = []\nprofile = []";
    let file = scene.write("service.toml", empty).unwrap();
    let temporary = scene.path("tmp");
    std::fs::create_dir(&temporary).unwrap();
    let mut fixtures = scene.command(hsm_fixtures::programs::fixtures().unwrap());
    let mut child = fixtures
        .args(["service", "--config"])
        .arg(&file)
        .env("TMPDIR", &temporary)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ca = lines.nth(1).unwrap().unwrap();
    let pem = std::fs::read_to_string(&ca).unwrap();
    assert!(pem.starts_with("-----BEGIN CERTIFICATE-----"), "{pem}");
    assert_eq!(files_of(&temporary), [Path::new(&ca)]); // and no key
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
    let left = files_of(&temporary);
    assert!(left.is_empty(), "{left:?}");
}

fn files_of(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}
