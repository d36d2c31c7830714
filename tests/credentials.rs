use std::process::Command;

use hsm_fixtures::{KeyKind, KeySpec, LeafSpec, Scene, WEB_ROLE_ARN};
use serde_json::Value;

use crate::agent::{Lab, Web, json_of, log_with, venv};

#[test]
fn credentials_come_from_a_key_on_the_token() {
    let web = Web::start();
    let output = web.credential_process().output().unwrap();
    let credentials = json_of(&output);
    assert_eq!(credentials["Version"], 1);
    for member in [
        "AccessKeyId",
        "SecretAccessKey",
        "SessionToken",
        "Expiration",
    ] {
        assert!(
            !credentials[member].as_str().unwrap().is_empty(),
            "{member}"
        );
    }
    assert_eq!(credentials.as_object().unwrap().len(), 5);
    assert_eq!(output.stderr, b"");
    assert_eq!(web.scene.service().sessions_created(), 1);

    // What was vended is in no log.
    let log = log_with(&web.agent, "signed identity=web ");
    for secret in [
        credentials["SecretAccessKey"].as_str().unwrap(),
        credentials["SessionToken"].as_str().unwrap(),
        hsm_fixtures::PIN,
    ] {
        assert!(!log.contains(secret));
    }
}

#[test]
fn the_aws_cli_gets_them_and_they_work() {
    let web = Web::start();
    let config = web.aws_config();
    let mut aws: Command = web.scene.command(venv("aws"));
    let output = aws
        .args(["sts", "get-caller-identity", "--region", "eu-central-1"])
        .env("AWS_CONFIG_FILE", config)
        .env("AWS_ENDPOINT_URL_STS", web.scene.service().url())
        .env("AWS_CA_BUNDLE", web.scene.pki().root_path())
        .output()
        .unwrap();
    let identity = json_of(&output);
    let arn = identity["Arn"].as_str().unwrap();
    assert!(
        arn.starts_with("arn:aws:sts::123456789012:assumed-role/web-deploy/"),
        "{arn}"
    );
}

/// Every kind of key, with what tokens do differently, on one token and in one agent.
#[test]
fn every_kind_of_key_signs() {
    let scene = Scene::new().unwrap();
    let token = scene.add_token("lab").unwrap();
    let mut specs: Vec<KeySpec> = KeyKind::ALL
        .into_iter()
        .map(|kind| KeySpec::new(&format!("web-{kind:?}"), kind))
        .collect();
    specs.push(KeySpec {
        always_authenticate: true,
        ..KeySpec::new("web-always", KeyKind::EcP256)
    });
    specs.push(KeySpec {
        always_authenticate: true,
        ..KeySpec::new("web-always-rsa", KeyKind::Rsa2048)
    });
    specs.push(KeySpec {
        keep_public: false,
        ..KeySpec::new("web-no-public", KeyKind::EcP384)
    });
    let mut identities = Vec::new();
    for spec in &specs {
        let leaf = LeafSpec::new(&spec.label);
        let mut identity = scene.add_identity_with(&token, spec, &leaf).unwrap();
        identity.allow[0].roles = vec![WEB_ROLE_ARN.to_owned()];
        identities.push(identity);
    }
    let agent = scene
        .start_agent(&scene.agent_config(identities).unwrap())
        .unwrap();
    for spec in &specs {
        for _ in 0..4 {
            let arguments = scene.credential_process(&spec.label, WEB_ROLE_ARN);
            json_of(&scene.roleseal(&arguments).unwrap().output().unwrap());
        }
    }
    assert_eq!(scene.service().sessions_created(), 4 * specs.len() as u64);
    agent.stop().unwrap();
}

#[test]
fn what_is_asked_for_reaches_the_service() {
    let scene = Scene::with_service(|service| {
        service.profiles[0].accept_role_session_name = true;
        service.profiles[0].require_instance_properties = true;
    })
    .unwrap();
    let token = scene.add_token("lab").unwrap();
    let web = scene.add_identity(&token, "web", KeyKind::EcP256).unwrap();
    let _agent = scene
        .start_agent(&scene.agent_config(vec![web]).unwrap())
        .unwrap();
    let mut arguments = scene.credential_process("web", WEB_ROLE_ARN);
    let without = scene.roleseal(&arguments).unwrap().output().unwrap();
    assert_eq!(without.status.code(), Some(6)); // the profile wants instance properties
    assert_eq!(without.stdout, b"");
    arguments.extend(
        [
            "--role-session-name",
            "ci-7",
            "--instance-property",
            "rack=b 4",
            "--session-duration",
            "900",
        ]
        .map(str::to_owned),
    );
    json_of(&scene.roleseal(&arguments).unwrap().output().unwrap());
    let granted = scene.service().decisions().pop().unwrap();
    assert!(granted.message.ends_with("web-deploy/ci-7"), "{granted}");
}

#[test]
fn two_hundred_at_once_all_succeed() {
    let web = Lab::new(KeyKind::Rsa2048).start();
    let running: Vec<_> = (0..200)
        .map(|_| {
            let mut command = web.credential_process();
            command
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let mut keys: Vec<Value> = running
        .into_iter()
        .map(|child| json_of(&child.wait_with_output().unwrap())["AccessKeyId"].take())
        .collect();
    keys.sort_by_key(|key| key.to_string());
    keys.dedup();
    assert_eq!(keys.len(), 200);
    assert_eq!(web.scene.service().sessions_created(), 200);
}
