//! A scene with the targets `web` and `batch`, and a credentials file that has more in it.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use hsm_fixtures::{
    Agent, BATCH_ROLE_ARN, KeyKind, PROFILE_ARN, Process, Scene, Service, TRUST_ANCHOR_ARN,
    WEB_ROLE_ARN,
};
use serde_json::Value;

use crate::agent::{json_of, until, venv};

/// With all that such a file may have, and without a line break at its end.
pub(crate) const ORIGINAL: &str = "# mine\n\n[default]\naws_access_key_id=AKIAOTHER\naws_secret_access_key = other/+=\n\n\
    [web]\n; my region\nregion = eu-central-1\n\n[batch] # nightly\ns3 =\n    max_queue_size = 7\nunknown = 1\n\n\n\
    [last one]\nrole_arn = arn:aws:iam::123456789012:role/x\nsource_profile: default";

pub(crate) struct Stage {
    _agent: Agent,
    pub(crate) scene: Scene,
}

impl Stage {
    /// Sessions last so many seconds, or an hour.
    pub(crate) fn new(session_seconds: Option<u32>) -> Stage {
        let scene =
            Scene::with_service(|service| service.session_seconds = session_seconds).unwrap();
        let token = scene.add_token("lab").unwrap();
        let identities =
            ["web", "batch"].map(|name| scene.add_identity(&token, name, KeyKind::EcP256).unwrap());
        let config = scene.agent_config(identities.into()).unwrap();
        let agent = scene.start_agent(&config).unwrap();
        let (socket, root) = (scene.socket(), scene.pki().root_path().to_owned());
        let table = |name: &str, role: &str| {
            format!(
                "[target.{name}]\nidentity = {name:?}\nrole-arn = {role:?}\nprofile-arn = {PROFILE_ARN:?}\n\
                 trust-anchor-arn = {TRUST_ANCHOR_ARN:?}\nendpoint = {:?}\nca-bundle = {root:?}\n\
                 socket = {socket:?}\n",
                scene.service().url()
            )
        };
        let text = table("web", WEB_ROLE_ARN) + &table("batch", BATCH_ROLE_ARN);
        scene.write("targets.toml", &text).unwrap();
        fs::create_dir(scene.path(".aws")).unwrap();
        let stage = Stage {
            _agent: agent,
            scene,
        };
        fs::write(stage.file(), ORIGINAL).unwrap();
        stage
    }

    /// `~/.aws/credentials`
    pub(crate) fn file(&self) -> PathBuf {
        self.scene.path(".aws/credentials")
    }

    pub(crate) fn text(&self) -> String {
        fs::read_to_string(self.file()).unwrap()
    }

    pub(crate) fn service(&self) -> &Service {
        self.scene.service()
    }

    pub(crate) fn update(&self, arguments: &[&str]) -> Command {
        let mut command = self.scene.roleseal(&["update"]).unwrap();
        command
            .args(arguments)
            .env("ROLESEAL_TARGETS", self.scene.path("targets.toml"));
        command
    }

    pub(crate) fn once(&self, arguments: &[&str]) -> Output {
        self.update(&[&["--once"], arguments].concat())
            .output()
            .unwrap()
    }

    /// Keeps it running.
    pub(crate) fn keep(&self, arguments: &[&str]) -> Process {
        Process::spawn(self.update(arguments), &self.scene.path("update.log")).unwrap()
    }

    /// A program of the Python environment that looks into the file.
    fn reader(&self, program: &str) -> Command {
        let mut command: Command = self.scene.command(venv(program));
        command
            .env("AWS_ENDPOINT_URL_STS", self.service().url())
            .env("AWS_CA_BUNDLE", self.scene.pki().root_path());
        command
    }

    /// Who the service takes the AWS CLI for.
    pub(crate) fn aws_cli(&self, profile: &str) -> Value {
        let mut aws = self.reader("aws");
        aws.args(["--profile", profile, "--region", "eu-central-1"]);
        aws.args(["sts", "get-caller-identity"]);
        arn(&mut aws)
    }

    /// Who the service takes boto3 for.
    pub(crate) fn boto3(&self, profile: &str) -> Value {
        let script = "import boto3, json, sys\n\
            session = boto3.Session(profile_name=sys.argv[1], region_name='eu-central-1')\n\
            print(json.dumps(session.client('sts').get_caller_identity()))";
        let mut python = self.reader("python");
        python.args(["-c", script, profile]);
        arn(&mut python)
    }

    /// Looks into the file all the time.
    pub(crate) fn watch(&self, profiles: &[&str]) -> Watch {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("watch.py");
        let mut python = self.reader("python");
        python.arg(script).arg(self.file()).args(profiles);
        let python = python.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = python.stderr(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        output.read_line(&mut first).unwrap();
        assert_eq!(first, "watching\n");
        Watch { child, output }
    }
}

pub(crate) struct Watch {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Watch {
    /// What it saw, if all was well: by profile, the access keys one after the other, null for none.
    pub(crate) fn end(mut self) -> Value {
        drop(self.child.stdin.take());
        let mut text = String::new();
        self.output.read_to_string(&mut text).unwrap();
        let output = self.child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{stderr}");
        let saw: Value = text.parse().unwrap();
        assert!(saw["looks"].as_u64().unwrap() > 0, "{saw}");
        saw["seen"].clone()
    }
}

/// What a client is told of itself. On a busy machine, sessions of some seconds end between its reading them and its
/// using them: then it is run again.
fn arn(client: &mut Command) -> Value {
    until("an answer before the session ends", || {
        let output = client.output().unwrap();
        let ended = String::from_utf8_lossy(&output.stderr).contains("(ExpiredToken)");
        (!ended).then(|| json_of(&output)["Arn"].take())
    })
}
