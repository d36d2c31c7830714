use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use hsm_fixtures::{Agent, KeyKind, Scene, SoftHsm, programs};

use crate::agent::{Lab, copy_program};
use crate::policy::NOBODY;
use crate::renewal::ca;

/// Programs that any user can run, in the scene.
fn install(scene: &Scene) -> PathBuf {
    let directory = scene.path("bin");
    fs::create_dir(&directory).unwrap();
    for program in ["roleseal-agent", "roleseal-pkcs11", "roleseal-tpm"] {
        let built = programs::agent().unwrap().with_file_name(program);
        copy_program(built, &directory.join(program));
    }
    directory.join("roleseal-agent")
}

/// The directory and all that is in it.
fn give_to_nobody(path: &Path) {
    chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            give_to_nobody(&entry.unwrap().path());
        }
    }
}

fn said(output: &Output) -> String {
    let [stdout, stderr] =
        [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    assert!(
        output.status.success(),
        "{}: {stdout}{stderr}",
        output.status
    );
    stdout + &stderr
}

/// Without root: the agent keeps its secrets in, so that the kernel does not show its program even to its own user.
#[test]
fn an_agent_of_the_same_user_is_reloaded() {
    if !rustix::process::geteuid().is_root() {
        return; // as every other test of enroll then shows
    }
    let Lab { mut config, scene } = Lab::new(KeyKind::EcP256);
    let issue = ca(&scene);
    let pin = scene.pin_path(&scene.add_token("other").unwrap());
    let program = install(&scene);
    config.identity[0].allow[0].users = vec![NOBODY];
    let file = scene
        .write("agent.toml", &config.to_toml().unwrap())
        .unwrap();
    give_to_nobody(scene.dir());
    let as_nobody = |command: &mut Command| {
        command.uid(NOBODY).gid(NOBODY);
    };
    let mut agent = scene.command(&program);
    agent.arg("--config").arg(&file);
    as_nobody(&mut agent);
    let log = scene.path("agent.log");
    let _agent = Agent::start(agent, &scene.socket(), &log, || false).unwrap();
    let mut enroll = scene.command(&program);
    enroll
        .args(["enroll", "--name", "other", "--subject", "CN=other"])
        .args(["--uri", "pkcs11:token=other;object=other", "--module"])
        .arg(SoftHsm::module().unwrap())
        .arg("--pin-file")
        .arg(pin)
        .args(["--issue", &issue, "--config"])
        .arg(&file)
        .arg("--certificate")
        .arg(scene.path("other.crt"));
    as_nobody(&mut enroll);
    let said = said(&enroll.output().unwrap());
    assert!(said.contains("other is ready"), "{said}");
}
