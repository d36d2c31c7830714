use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

use hsm_fixtures::{Agent, KeyKind, Scene, SoftHsm, WEB_ROLE_ARN};
use serde_json::Value;

use crate::agent::{Lab, identities, request, sign};
use crate::enroll_users::{give_to_nobody, install};
use crate::policy::{NOBODY, as_nobody};

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A device that this user's groups may not open is told of before anything is made.
#[test]
fn a_tpm_of_a_group_is_told_at_once() {
    if as_root::by_sudo!() {
        return;
    }
    let scene = Scene::new().unwrap();
    let programs = install(&scene);
    let device = scene.write("tpmrm0", "").unwrap();
    mode(&device, 0o660);
    chown(&device, Some(0), Some(1)).unwrap(); // daemon, everywhere
    mode(scene.dir(), 0o711);
    let desk = scene.path("desk");
    fs::create_dir(&desk).unwrap();
    give_to_nobody(&desk);
    let tcti = format!("device:{}", device.display());
    let lines: [&[&str]; 3] = [
        &["key", "generate", "--out", "web.tss"],
        &[
            "enroll",
            "--name",
            "web",
            "--subject",
            "CN=web",
            "--out",
            "web.tss",
            "--issue",
            "true",
        ],
        &["csr", "--subject", "CN=web", "--key", "web.tss"],
    ];
    for line in lines {
        let mut command = scene.command(programs.join("roleseal-admin"));
        command.args(line).args(["--tpm", &tcti]);
        if line[0] == "enroll" {
            command.args(["--config", "agent.toml", "--certificate", "web.pem"]);
        }
        let output = command
            .current_dir(&desk)
            .uid(NOBODY)
            .gid(NOBODY)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        let said = stderr(&output);
        assert!(said.contains("belongs to group daemon"), "{said}");
        assert!(!said.contains("--existing-key"), "{said}"); // it is no key's fault
        assert_eq!(fs::read_dir(&desk).unwrap().count(), 0, "{line:?}");
    }
}

/// The module says CKR_GENERAL_ERROR; the agent says which file, and whom it is closed to.
#[test]
fn softhsms_configuration_that_is_closed_is_named() {
    if as_root::by_sudo!() {
        return;
    }
    let Lab { mut config, scene } = Lab::new(KeyKind::EcP256);
    config.pkcs11_module = SoftHsm::module().unwrap();
    config.identity[0].allow[0].users.push(0);
    let programs = install(&scene);
    let file = scene
        .write("agent.toml", &config.to_toml().unwrap())
        .unwrap();
    give_to_nobody(scene.dir());
    chown(scene.softhsm().config(), Some(0), Some(0)).unwrap();
    mode(scene.softhsm().config(), 0o600);
    let mut agent = scene.command(programs.join("roleseal-agent"));
    agent.arg("--config").arg(&file).uid(NOBODY).gid(NOBODY);
    let log = scene.path("agent.log");
    let _agent = Agent::start(agent, &scene.socket(), &log, || false).unwrap();
    let message = identities(&scene)[0]["message"]
        .as_str()
        .unwrap()
        .to_owned();
    let conf = scene.softhsm().config().display().to_string();
    assert!(
        message.contains(&conf) && message.contains("by nobody"),
        "{message}"
    );
}

/// It is so since no rule lets anybody else in: no group would help.
#[test]
fn a_socket_without_rules_for_others_is_told_of_as_such() {
    if as_root::by_sudo!() {
        return;
    }
    let mut lab = Lab::new(KeyKind::EcP256);
    lab.config.identity[0].allow.clear();
    let web = lab.start();
    let socket = web.scene.socket();
    assert_eq!(
        fs::metadata(&socket).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let output = as_nobody(&web, &web.scene.credential_process("web", WEB_ROLE_ARN));
    assert_eq!(output.status.code(), Some(3));
    let said = stderr(&output);
    assert!(
        said.contains("[[identity.allow]]") && !said.contains("member"),
        "{said}"
    );
    let doctor = ["doctor", "--json", "--socket", socket.to_str().unwrap()].map(str::to_owned);
    let findings: Value = serde_json::from_slice(&as_nobody(&web, &doctor).stdout).unwrap();
    let findings = findings.as_array().unwrap();
    let found = findings
        .iter()
        .find(|one| one["check"] == "socket")
        .unwrap();
    let remedy = found["remedy"].as_str().unwrap();
    assert!(
        remedy.contains("[[identity.allow]]") && !remedy.contains("usermod"),
        "{remedy}"
    );
}

#[test]
fn an_agent_without_a_configuration_says_how_to_make_one() {
    let scene = Scene::new().unwrap();
    for more in [&[][..], &["--check"]] {
        let mut command: Command = scene.agent_command(&scene.path("agent.toml")).unwrap();
        let output = command.args(more).output().unwrap();
        assert!(!output.status.success());
        assert!(
            stderr(&output).contains("roleseal-admin enroll"),
            "{}",
            stderr(&output)
        );
    }
}

/// The part, and the setting to change; not that there were another role to ask for.
#[test]
fn a_refusal_names_the_setting_that_did_not_match() {
    let web = Lab::new(KeyKind::EcP256).start();
    for (member, from, to, rule, setting) in [
        ("query", "web-deploy", "batch-nightly", "role", "roles"),
        ("body", "900", "7200", "duration", "max-duration"),
    ] {
        let mut request = request(&web.scene);
        request[member] = request[member].as_str().unwrap().replace(from, to).into();
        let reply = sign(&web.scene.socket(), request);
        assert_eq!(reply["parameters"]["rule"], rule, "{reply}");
        let message = reply["parameters"]["message"].as_str().unwrap();
        assert!(message.contains(setting), "{message}");
    }
}
