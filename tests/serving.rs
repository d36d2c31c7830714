//! `roleseal serve` with a target, and what its clients need.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use hsm_fixtures::{KeyKind, PROFILE_ARN, Process, Scene, Service, TRUST_ANCHOR_ARN, WEB_ROLE_ARN};
use serde_json::Value;

use crate::agent::{Lab, Web, until};
use crate::http::{Answer, Http};

/// A running server. Fields are dropped in this order.
pub(crate) struct Serving {
    pub(crate) process: Process,
    pub(crate) web: Web,
}

/// A scene whose sessions last so many seconds.
pub(crate) fn short_sessions(seconds: u32) -> Web {
    let scene = Scene::with_service(|service| service.session_seconds = Some(seconds)).unwrap();
    Lab::of(scene, KeyKind::EcP256).start()
}

/// Writes the targets file, with `web` and `second`, which want different sessions.
pub(crate) fn write_targets(scene: &Scene) -> PathBuf {
    let socket = scene.socket().display().to_string();
    let root = scene.pki().root_path().display().to_string();
    let endpoint = scene.service().url();
    let target = |name: &str, seconds: u32| {
        format!(
            "[target.{name}]\nidentity = \"web\"\nrole-arn = \"{WEB_ROLE_ARN}\"\n\
             profile-arn = \"{PROFILE_ARN}\"\ntrust-anchor-arn = \"{TRUST_ANCHOR_ARN}\"\n\
             endpoint = \"{endpoint}\"\nca-bundle = \"{root}\"\nsocket = \"{socket}\"\n\
             session-duration = {seconds}\n"
        )
    };
    let text = target("web", 3600) + &target("second", 900);
    scene.write("targets.toml", &text).unwrap()
}

impl Serving {
    /// Serves `web` at a port of its own.
    pub(crate) fn start(web: Web, more: &[&str]) -> Serving {
        let mut arguments = vec!["--target=web", "--listen=127.0.0.1:0"];
        arguments.extend(more);
        Serving::start_with(web, &arguments)
    }

    pub(crate) fn start_with(web: Web, arguments: &[&str]) -> Serving {
        let command = command(&web.scene, arguments);
        Serving::start_command(web, command)
    }

    pub(crate) fn start_command(web: Web, command: Command) -> Serving {
        let process = Process::spawn(command, &web.scene.path("serve.log")).unwrap();
        let serving = Serving { process, web };
        until("it serves", || {
            assert!(serving.process.is_running(), "{}", serving.process.log());
            serving.process.log().contains("_FULL_URI=").then_some(())
        });
        serving
    }

    /// What the log says after `NAME=`, the first time.
    pub(crate) fn said(&self, name: &str) -> String {
        until(name, || {
            let log = self.process.log();
            let (_, rest) = log.split_once(&format!("{name}="))?;
            // The line is written at once, but may be read before it is.
            let (line, _) = rest.split_once('\n')?;
            Some(line.split(' ').next().unwrap().to_owned())
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        let url = self.said("AWS_CONTAINER_CREDENTIALS_FULL_URI");
        let (address, _) = url
            .strip_prefix("http://")
            .unwrap()
            .split_once('/')
            .unwrap();
        address.parse().unwrap()
    }

    pub(crate) fn http(&self) -> Http {
        Http::tcp(self.address())
    }

    /// The token of the target `web`.
    pub(crate) fn token(&self) -> String {
        std::fs::read_to_string(self.said("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")).unwrap()
    }

    pub(crate) fn service(&self) -> &Service {
        self.web.scene.service()
    }

    /// The status of the target `web` at `/healthz`.
    pub(crate) fn state(&self) -> String {
        let health = self.http().get("/healthz", &[]).json();
        health["targets"][0]["state"].as_str().unwrap().to_owned()
    }

    /// A client, with what makes its STS the scene's.
    pub(crate) fn client(&self, program: PathBuf) -> Command {
        client(&self.web.scene, program)
    }
}

pub(crate) fn client(scene: &Scene, program: PathBuf) -> Command {
    let mut command = scene.command(program);
    command
        .env("AWS_ENDPOINT_URL_STS", scene.service().url())
        .env("AWS_CA_BUNDLE", scene.pki().root_path());
    command
}

/// `roleseal serve`, with the scene's targets file and token files.
pub(crate) fn command(scene: &Scene, arguments: &[&str]) -> Command {
    let targets = write_targets(scene).display().to_string();
    let directory = scene.path("run");
    let _ = std::fs::create_dir(&directory); // it may be there already
    let directory = directory.display().to_string();
    let fixed = [
        "serve",
        "--targets",
        &targets,
        "--token-directory",
        &directory,
    ];
    let all: Vec<_> = fixed.iter().chain(arguments).collect();
    scene.roleseal(&all).unwrap()
}

/// The access key of an answer: complete credentials that have not ended.
pub(crate) fn key_of(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{answer:?}");
    let credentials = answer.json();
    for member in ["AccessKeyId", "SecretAccessKey", "Token", "Expiration"] {
        let value = credentials[member].as_str().unwrap_or_default();
        assert!(!value.is_empty(), "no {member}");
    }
    let ended = answer.asked - end(&credentials);
    assert!(ended < 0.0, "ended {ended} s before it was asked for");
    credentials["AccessKeyId"].as_str().unwrap().to_owned()
}

/// `2026-01-01T00:00:00Z` in seconds since 1970, by hand: days after Howard Hinnant's civil calendar.
fn end(credentials: &Value) -> f64 {
    let text = credentials["Expiration"].as_str().unwrap();
    assert!(text.len() == 20 && text.ends_with('Z'), "{text}");
    let number = |range: std::ops::Range<usize>| text[range].parse::<u32>().unwrap();
    let (year, month, day) = (number(0..4), number(5..7), number(8..10));
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year / 400, year % 400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + day_of_year - 719_468;
    let of_day = number(11..13) * 3600 + number(14..16) * 60 + number(17..19);
    f64::from(days) * 86_400.0 + f64::from(of_day)
}
