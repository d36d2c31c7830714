use std::path::Path;
use std::process::Command;

use crate::agent::{Web, json_of, venv};
use crate::serving::{Serving, client, key_of, short_sessions, write_targets};

const IDENTITY: [&str; 3] = ["sts", "get-caller-identity", "--region=eu-central-1"];

fn has_the_role(mut aws: Command) {
    let identity = json_of(&aws.args(IDENTITY).output().unwrap());
    let arn = identity["Arn"].as_str().unwrap();
    assert!(arn.contains("assumed-role/web-deploy/"), "{arn}");
}

/// One boto3 client goes on when its sessions end.
fn sees_three_sessions(mut python: Command, more: &[&str]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("refresh.py");
    let seen = json_of(&python.arg(script).args(more).output().unwrap());
    assert_eq!(seen["keys"].as_array().unwrap().len(), 3, "{seen}");
    assert_eq!(seen["arns"].as_array().unwrap().len(), 1, "{seen}");
}

/// So does one of the AWS SDK for JavaScript.
fn javascript_sees_three_sessions(mut node: Command) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("javascript/refresh.cjs");
    let modules = venv("node").with_file_name("../node_modules");
    node.arg(script).env("NODE_PATH", modules);
    // Beside AWS_CA_BUNDLE, which it does not know.
    let root = node.get_envs().find(|(name, _)| *name == "AWS_CA_BUNDLE");
    let root = root.unwrap().1.unwrap().to_owned();
    let seen = json_of(&node.env("NODE_EXTRA_CA_CERTS", root).output().unwrap());
    assert_eq!(seen["keys"].as_array().unwrap().len(), 3, "{seen}");
    assert_eq!(seen["arns"].as_array().unwrap().len(), 1, "{seen}");
}

const SECONDS: u32 = 16;

#[test]
fn instance_metadata() {
    let serving = Serving::start(short_sessions(SECONDS), &["--imds"]);
    let metadata = |program| {
        let mut command = serving.client(venv(program));
        let url = serving.said("AWS_EC2_METADATA_SERVICE_ENDPOINT");
        command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", url);
        // A second, by default, is short on a loaded machine.
        command.env("AWS_METADATA_SERVICE_TIMEOUT", "20");
        command
    };
    has_the_role(metadata("aws"));
    sees_three_sessions(metadata("python"), &["--new-clients"]);
    javascript_sees_three_sessions(metadata("node"));
    has_the_role(metadata("aws"));
}

#[test]
fn container_credentials_with_a_token_file() {
    let serving = Serving::start(short_sessions(SECONDS), &[]);
    let container = |program| {
        let mut command = serving.client(venv(program));
        for name in ["CREDENTIALS_FULL_URI", "AUTHORIZATION_TOKEN_FILE"] {
            let name = format!("AWS_CONTAINER_{name}");
            command.env(&name, serving.said(&name));
        }
        command
    };
    has_the_role(container("aws"));
    sees_three_sessions(container("python"), &[]);
    javascript_sees_three_sessions(container("node"));
    let mut wrong = container("aws");
    wrong.env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/dev/null");
    assert!(!wrong.args(IDENTITY).output().unwrap().status.success());
    let mut http = serving.http();
    key_of(&http.get("/credentials/web", &[("Authorization", &serving.token())]));
}

#[test]
fn exec() {
    let web: Web = short_sessions(SECONDS);
    let targets = write_targets(&web.scene);
    let exec = |program| {
        let roleseal = hsm_fixtures::programs::roleseal().unwrap();
        let mut command = client(&web.scene, roleseal);
        command
            .args(["exec", "--target=web", "--targets"])
            .arg(&targets);
        command.arg("--").arg(venv(program));
        // None of these may win over the target.
        let profile = "[default]\naws_access_key_id = AKIA1\naws_secret_access_key = s\n";
        let credentials = web.scene.write("credentials", profile).unwrap();
        command
            .env("AWS_ACCESS_KEY_ID", "AKIA1")
            .env("AWS_SECRET_ACCESS_KEY", "s")
            .env("AWS_PROFILE", "missing")
            .env("AWS_SHARED_CREDENTIALS_FILE", credentials)
            .env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/nonexistent");
        command
    };
    let mut aws = exec("aws");
    let identity = json_of(&aws.args(&IDENTITY[..2]).output().unwrap()); // the region is the target's
    assert!(
        identity["Arn"]
            .as_str()
            .unwrap()
            .contains("assumed-role/web-deploy/")
    );
    sees_three_sessions(exec("python"), &[]);
    javascript_sees_three_sessions(exec("node"));
}
