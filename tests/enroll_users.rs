use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use hsm_fixtures::{Agent, KeyKind, Scene, SoftHsm, programs};

use crate::agent::{Lab, copy_program, log_with};
use crate::policy::NOBODY;
use crate::renewal::ca;

/// Programs that any user can run, in a directory of the scene.
pub(crate) fn install(scene: &Scene) -> PathBuf {
    let directory = scene.path("bin");
    fs::create_dir(&directory).unwrap();
    for program in [
        "roleseal-agent",
        "roleseal-admin",
        "roleseal-pkcs11",
        "roleseal-tpm",
    ] {
        let built = programs::agent().unwrap().with_file_name(program);
        copy_program(built, &directory.join(program));
    }
    directory
}

/// The directory and all that is in it.
pub(crate) fn give_to_nobody(path: &Path) {
    give_to(path, NOBODY);
}

fn give_to(path: &Path, user: u32) {
    chown(path, Some(user), Some(user)).unwrap();
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            give_to(&entry.unwrap().path(), user);
        }
    }
}

/// A user with a number of its own, as an agent's is: `nobody` is also all who have none.
const DAEMON: u32 = 1;

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
    if as_root::by_sudo!() {
        return;
    }
    let Lab { mut config, scene } = Lab::new(KeyKind::EcP256);
    let issue = ca(&scene);
    let pin = scene.pin_path(&scene.add_token("other").unwrap());
    let programs = install(&scene);
    config.identity[0].allow[0].users = vec![DAEMON];
    let file = scene
        .write("agent.toml", &config.to_toml().unwrap())
        .unwrap();
    give_to(scene.dir(), DAEMON);
    let as_daemon = |command: &mut Command| {
        command.uid(DAEMON).gid(DAEMON);
    };
    let mut agent = scene.command(programs.join("roleseal-agent"));
    agent.arg("--config").arg(&file);
    as_daemon(&mut agent);
    let log = scene.path("agent.log");
    let _agent = Agent::start(agent, &scene.socket(), &log, || false).unwrap();
    let mut enroll = scene.command(programs.join("roleseal-admin"));
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
    as_daemon(&mut enroll);
    let said = said(&enroll.output().unwrap());
    assert!(said.contains("other is ready"), "{said}");
}

/// A token whose store is nobody's, in a directory that he can enter.
struct Store {
    scene: Scene,
    pin: PathBuf,
}

impl Store {
    /// Only root makes anything for another user.
    fn new() -> Store {
        let scene = Scene::new().unwrap();
        let pin = scene.pin_path(&scene.add_token("lab").unwrap());
        give_to_nobody(&scene.path("tokens"));
        give_to_nobody(&pin);
        let open = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        open(scene.dir(), 0o711);
        open(scene.softhsm().config(), 0o644);
        let text = format!("socket = {:?}\n", scene.socket());
        scene.write("agent.toml", &text).unwrap();
        open(&scene.path("agent.toml"), 0o644);
        Store { scene, pin }
    }

    fn admin(&self, arguments: &[&str]) -> Command {
        let mut command = self.scene.command(programs::admin().unwrap());
        command.args(arguments);
        command
    }

    fn on_token(&self, arguments: &[&str]) -> Command {
        let mut command = self.admin(arguments);
        command
            .args(["--uri", "pkcs11:token=lab;object=web", "--module"])
            .arg(SoftHsm::module().unwrap())
            .arg("--pin-file")
            .arg(&self.pin);
        command
    }

    fn enroll(&self, more: &[&str]) -> Command {
        let mut command = self.on_token(&["enroll", "--name", "web", "--subject", "CN=web"]);
        command
            .args(["--issue", &ca(&self.scene), "--config"])
            .arg(self.scene.path("agent.toml"))
            .arg("--certificate")
            .arg(self.scene.path("web.pem"))
            .args(more);
        command
    }
}

/// The users whose files are in it.
fn owners(directory: &Path) -> BTreeSet<u32> {
    let mut owners = BTreeSet::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        owners.insert(path.metadata().unwrap().uid());
        if path.is_dir() {
            owners.extend(self::owners(&path));
        }
    }
    owners
}

fn refused(command: &mut Command, expected: &str) {
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && stderr.contains(expected),
        "{expected}: {stderr}"
    );
}

/// SoftHSM's tokens are files, which its module makes as whoever runs it.
#[test]
fn what_root_enrolls_the_agents_user_can_use() {
    if as_root::by_sudo!() {
        return;
    }
    let store = Store::new();
    let Store { scene, .. } = &store;
    said(&store.enroll(&["--owner", "nobody"]).output().unwrap());
    assert_eq!(owners(&scene.path("tokens")), BTreeSet::from([NOBODY]));
    for made in ["web.csr", "web.pem"] {
        assert_eq!(fs::metadata(scene.path(made)).unwrap().uid(), NOBODY);
    }
    let programs = install(scene);
    let run = scene.path("run");
    fs::create_dir(&run).unwrap();
    give_to_nobody(&run);
    let socket = run.join("agent.sock");
    let text = fs::read_to_string(scene.path("agent.toml")).unwrap();
    let text = text.replace(scene.socket().to_str().unwrap(), socket.to_str().unwrap());
    let file = scene.write("agent.toml", &text).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let mut agent = scene.command(programs.join("roleseal-agent"));
    agent.arg("--config").arg(&file).uid(NOBODY).gid(NOBODY);
    let log = scene.path("agent.log");
    let agent = Agent::start(agent, &socket, &log, || false).unwrap();
    log_with(&agent, "ready identity=web");
    // Later commands of root's leave it so.
    let pem = scene.path("web.pem");
    let import = [
        "cert",
        "import",
        "--owner",
        "nobody",
        "--cert",
        pem.to_str().unwrap(),
    ];
    for arguments in [
        &import[..],
        &["key", "list"],
        &["csr", "--subject", "CN=web"],
    ] {
        said(&store.on_token(arguments).output().unwrap());
        assert_eq!(owners(&scene.path("tokens")), BTreeSet::from([NOBODY]));
    }
}

/// Whatever root alone could use is refused before anything is made.
#[test]
fn what_the_agents_user_could_not_use_is_not_made() {
    if as_root::by_sudo!() {
        return;
    }
    let store = Store::new();
    let Store { scene, pin } = &store;
    let key_files = || fs::read_dir(scene.path("tokens")).unwrap().count();
    let before = key_files();
    let generate = |more: &[&str]| {
        let arguments = [&["key", "generate", "--owner", "nobody"], more].concat();
        store.on_token(&arguments)
    };
    // A PIN that root alone may read: for an identity it is none; for a key it is, since a credential may come of it.
    chown(pin, Some(0), Some(0)).unwrap();
    refused(&mut store.enroll(&["--owner", "nobody"]), "lab.pin");
    // A module that does not show what it is.
    let mut spied = store.admin(&["key", "generate", "--owner", "nobody"]);
    spied
        .args(["--uri", "pkcs11:token=lab;object=web", "--module"])
        .arg(SoftHsm::spy_module().unwrap())
        .arg("--pin-file")
        .arg(pin)
        .env("PKCS11SPY", SoftHsm::module().unwrap())
        .env("PKCS11SPY_OUTPUT", scene.path("spy.log"));
    refused(&mut spied, "--module");
    // A store that is closed to that user.
    let close = |mode| {
        let tokens = scene.path("tokens");
        chown(&tokens, Some(0), Some(0)).unwrap();
        fs::set_permissions(tokens, fs::Permissions::from_mode(mode)).unwrap();
    };
    close(0o700);
    refused(&mut generate(&[]), "cannot be read by nobody");
    close(0o777);
    assert_eq!(key_files(), before);
    assert!(!scene.path("web.csr").exists());
    let said = said(&generate(&["--json"]).output().unwrap());
    let key: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(key["owner"], "nobody");
    refused(&mut generate(&["--owner", "no such user"]), "");
}

/// By default, whom the agent's unit runs as.
#[test]
fn the_key_file_of_a_tpm_is_the_agents_users() {
    if as_root::by_sudo!() {
        return;
    }
    let store = Store::new();
    let Store { scene, .. } = &store;
    let tpm = scene.add_tpm().unwrap();
    let unit = "[Service]\nUser=nobody\n";
    let path = scene.path("systemctl-says");
    fs::create_dir(&path).unwrap();
    let script = format!("#!/bin/sh\nprintf '%s' '{unit}'\n");
    let systemctl = scene.write("systemctl-says/systemctl", &script).unwrap();
    fs::set_permissions(systemctl, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", path.display());
    for (name, more, expected) in [
        ("unit", &[][..], (NOBODY, NOBODY)),
        ("named", &["--owner", "nobody:root"], (NOBODY, 0)),
        ("root", &["--owner", "root"], (0, 0)),
    ] {
        let file = scene.path(&format!("{name}.tss"));
        let mut generate = store.admin(&["key", "generate", "--tpm", &tpm.tcti(), "--json"]);
        generate
            .args(more)
            .arg("--out")
            .arg(&file)
            .env("PATH", &path);
        let key: serde_json::Value =
            serde_json::from_str(&said(&generate.output().unwrap())).unwrap();
        let made = fs::metadata(&file).unwrap();
        assert_eq!((made.uid(), made.gid()), expected, "{name}");
        assert_eq!(made.mode() & 0o777, 0o600);
        let owner = (made.uid() == NOBODY).then_some("nobody");
        assert_eq!(key.get("owner").and_then(|owner| owner.as_str()), owner);
    }
}
