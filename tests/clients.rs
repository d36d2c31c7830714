use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hsm_fixtures::{KeyKind, Scene};
use tempfile::TempDir;

use crate::agent::{Lab, Web, in_memory, json_of, venv};

/// A scene whose AWS clients get their credentials by credential_process.
struct Clients {
    web: Web,
    runtime: TempDir,
}

impl Clients {
    fn start(lab: Lab) -> Clients {
        let web = lab.start();
        web.aws_config();
        Clients {
            web,
            runtime: in_memory(),
        }
    }

    /// `before` and a program of the Python environment.
    fn command(&self, before: &[&str], program: &str, arguments: &[&str]) -> Command {
        let scene = &self.web.scene;
        let mut command: Command = scene.command("env");
        command
            .args(before)
            .arg(venv(program))
            .args(arguments)
            .env("AWS_CONFIG_FILE", scene.path("aws.config"))
            .env("AWS_ENDPOINT_URL_STS", scene.service().url())
            .env("AWS_CA_BUNDLE", scene.pki().root_path())
            .env("XDG_RUNTIME_DIR", self.runtime.path());
        command
    }
}

const IDENTITY: [&str; 4] = ["sts", "get-caller-identity", "--region", "eu-central-1"];

fn short_sessions() -> Lab {
    let scene = Scene::with_service(|service| service.session_seconds = Some(20)).unwrap();
    Lab::of(scene, KeyKind::EcP256)
}

#[test]
fn fifty_aws_clis_at_once_share_one_session() {
    let clients = Clients::start(Lab::new(KeyKind::EcP256));
    let running: Vec<_> = (0..50)
        .map(|_| {
            // They leave the processor to tests that have less time.
            let mut aws = clients.command(&["nice", "-n19"], "aws", &IDENTITY);
            aws.stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let arns: BTreeSet<_> = running
        .into_iter()
        .map(|child| json_of(&child.wait_with_output().unwrap())["Arn"].to_string())
        .collect();
    assert_eq!(arns.len(), 1, "{arns:?}");
    assert!(
        arns.first().unwrap().contains("assumed-role/web-deploy/"),
        "{arns:?}"
    );
    assert_eq!(clients.web.scene.service().create_session_requests(), 1);
}

#[test]
fn the_aws_cli_goes_on_when_sessions_end() {
    let clients = Clients::start(short_sessions());
    let deadline = Instant::now() + Duration::from_secs(120);
    let service = clients.web.scene.service();
    let mut calls = 0;
    while service.sessions_created() < 3 {
        json_of(&clients.command(&[], "aws", &IDENTITY).output().unwrap());
        calls += 1;
        assert!(Instant::now() < deadline);
    }
    assert!(calls >= 3, "{calls}");
}

#[test]
fn boto3_goes_on_when_sessions_end() {
    let clients = Clients::start(short_sessions());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("refresh.py");
    let script = script.display().to_string();
    let seen = json_of(&clients.command(&[], "python", &[&script]).output().unwrap());
    assert_eq!(seen["keys"].as_array().unwrap().len(), 3, "{seen}");
    assert_eq!(seen["arns"].as_array().unwrap().len(), 1, "{seen}");
    // It asks for credentials at each call, as they are about to end; AWS is not asked for each.
    let sessions = clients.web.scene.service().sessions_created();
    assert!((3..=5).contains(&sessions), "{sessions} {seen}");
    assert!(seen["calls"].as_u64().unwrap() > sessions, "{seen}");
}
