use std::fs;

use hsm_fixtures::{Agent, KeyKind, PIN, Scene};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::agent::{Lab, call, identities, log_with, until};

/// The usual scene, whose agent gets the PIN as systemd would pass it.
fn with_credential(pin: &str) -> (Scene, Agent) {
    let Lab { mut config, scene } = Lab::new(KeyKind::EcP256);
    config.identity[0].pin = None;
    let credentials = scene.path("credentials");
    fs::create_dir(&credentials).unwrap();
    fs::write(credentials.join("lab"), pin).unwrap();
    let text = config.to_toml().unwrap();
    let (socket, identity) = text.split_once("[[identity]]\n").unwrap();
    let text = format!("{socket}[[identity]]\npin = {{ credential = \"lab\" }}\n{identity}");
    let file = scene.write("agent.toml", &text).unwrap();
    let mut command = scene.agent_command(&file).unwrap();
    command.env("CREDENTIALS_DIRECTORY", &credentials);
    let log = scene.path("agent.log");
    let agent = Agent::start(command, &scene.socket(), &log, || false).unwrap();
    (scene, agent)
}

/// What doctor says is to be done about the token.
fn remedy(scene: &Scene) -> String {
    let socket = scene.socket();
    let arguments = ["doctor", "--json", "--socket", socket.to_str().unwrap()];
    let output = scene.roleseal(&arguments).unwrap().output().unwrap();
    let findings: Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = findings.as_array().unwrap();
    let token = findings.iter().find(|one| one["check"] == "token").unwrap();
    assert_eq!(token["state"], "failed", "{token}");
    token["remedy"].as_str().unwrap().to_owned()
}

fn message(identity: &Value) -> &str {
    assert_eq!(identity["state"], "pinRejected", "{identity}");
    identity["message"].as_str().unwrap()
}

const RELOAD: &str = "systemctl reload";
const RESTART: &str = "systemctl restart";

#[test]
fn a_pin_in_a_file_takes_a_reload() {
    let lab = Lab::new(KeyKind::EcP256);
    lab.scene.write("lab.pin", "00000000").unwrap();
    let web = lab.start();
    let [identity] = &identities(&web.scene)[..] else {
        panic!()
    };
    assert_eq!(identity["pinSource"], "file");
    assert!(message(identity).contains("reload the agent"), "{identity}");
    let remedy = remedy(&web.scene);
    assert!(
        remedy.contains(RELOAD) && !remedy.contains(RESTART),
        "{remedy}"
    );
}

/// A reload cannot bring it: neither the refusal, nor the one after a reload in vain, nor doctor says that it does.
#[test]
fn a_pin_in_a_credential_takes_a_restart() {
    let (scene, agent) = with_credential("00000000");
    let told = |identity: &Value| {
        assert_eq!(identity["pinSource"], "credential");
        let message = message(identity).to_owned();
        assert!(message.contains("restart the agent"), "{message}");
        assert!(!message.contains("reload the agent"), "{message}");
        message
    };
    let [identity] = &identities(&scene)[..] else {
        panic!()
    };
    let first = told(identity);
    let remedy = remedy(&scene);
    assert!(
        remedy.contains(RESTART) && !remedy.contains(RELOAD),
        "{remedy}"
    );
    kill_process(
        Pid::from_raw(agent.process().id().cast_signed()).unwrap(),
        Signal::HUP,
    )
    .unwrap();
    log_with(&agent, "reloaded: ");
    until("the PIN is refused without a try", || {
        let listed = call(&scene.socket(), "ListIdentities", serde_json::json!({}));
        let identity = listed["parameters"]["identities"][0].clone();
        (identity["state"] == "pinRejected" && told(&identity) != first).then_some(())
    });
}

#[test]
fn a_right_pin_in_a_credential_signs() {
    let (scene, _agent) = with_credential(PIN);
    assert_eq!(identities(&scene)[0]["state"], "ready");
}

/// A credential that the service lacks is none that a reload would bring.
#[test]
fn a_reload_that_wants_another_credential_asks_for_a_restart() {
    let (scene, agent) = with_credential(PIN);
    let text = fs::read_to_string(scene.path("agent.toml")).unwrap();
    let text = text.replace("credential = \"lab\"", "credential = \"other\"");
    scene.write("agent.toml", &text).unwrap();
    kill_process(
        Pid::from_raw(agent.process().id().cast_signed()).unwrap(),
        Signal::HUP,
    )
    .unwrap();
    let log = log_with(&agent, "not reloaded: ");
    let line = log.lines().find(|line| line.contains("not reloaded: "));
    let line = line.unwrap();
    assert!(line.contains("LoadCredential=other:"), "{line}");
    assert!(line.contains("start the service again"), "{line}");
}
