use std::fs;
use std::process::Command;

use hsm_fixtures::{Agent, Scene, SoftHsm, WEB_ROLE_ARN, programs};

use crate::agent::json_of;
use crate::renewal::ca;

fn enroll(scene: &Scene, module: Option<&str>) -> Command {
    let mut command = scene.command(programs::admin().unwrap());
    command
        .args(["enroll", "--name", "web", "--subject", "CN=web,O=Example"])
        .args(["--uri", "pkcs11:token=lab;object=web", "--allow-user", "*"])
        .args(["--endpoint", &scene.service().url(), "--issue", &ca(scene)])
        .arg("--pin-file")
        .arg(scene.path("lab.pin"))
        .arg("--certificate")
        .arg(scene.path("web.crt"))
        .arg("--config")
        .arg(scene.path("agent.toml"));
    if let Some(module) = module {
        command.args(["--module", module]);
    }
    command
}

/// Enrolls with this configuration, and gets credentials by what came of it; returns that configuration.
fn enrolled(before: &str, module: Option<&str>) -> String {
    let scene = Scene::new().unwrap();
    scene.add_token("lab").unwrap();
    let text = format!("socket = {:?}\n{before}", scene.socket());
    scene.write("agent.toml", &text).unwrap();
    for _ in 0..2 {
        let output = enroll(&scene, module).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{stderr}");
    }
    let after = fs::read_to_string(scene.path("agent.toml")).unwrap();
    assert_eq!(after.matches("[[identity]]").count(), 1, "{after}");
    let command = scene.agent_command(&scene.path("agent.toml")).unwrap();
    let log = scene.path("agent.log");
    let _agent = Agent::start(command, &scene.socket(), &log, || false).unwrap();
    let arguments = scene.credential_process("web", WEB_ROLE_ARN);
    json_of(&scene.roleseal(&arguments).unwrap().output().unwrap());
    after
}

#[test]
fn without_a_module_the_agents_default_holds_and_none_is_written() {
    let after = enrolled("", None);
    assert!(!after.contains("module"), "{after}");
}

#[test]
fn without_a_module_the_configurations_holds() {
    let module = SoftHsm::module().unwrap().display().to_string();
    let line = format!("pkcs11-module = {module:?}\n");
    let after = enrolled(&line, None);
    assert_eq!(after.matches("module").count(), 1, "{after}");
    // The same one, named, is the same.
    let after = enrolled(&line, Some(&module));
    assert_eq!(after.matches("module").count(), 1, "{after}");
}

#[test]
fn another_module_is_written() {
    let module = SoftHsm::module().unwrap().display().to_string();
    let after = enrolled("", Some(&module));
    assert!(after.contains(&format!("module-path={module}")), "{after}");
}

/// The configuration takes paths alone; nothing is made before that is said.
#[test]
fn a_module_by_a_bare_name_is_refused_before_anything_is_made() {
    let scene = Scene::new().unwrap();
    scene.add_token("lab").unwrap();
    scene.write("agent.toml", "").unwrap();
    let output = enroll(&scene, Some("libsofthsm2.so")).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(!scene.path("web.csr").exists());
    assert_eq!(fs::read_to_string(scene.path("agent.toml")).unwrap(), "");
}
