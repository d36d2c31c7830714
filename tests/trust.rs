use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use hsm_fixtures::{Agent, FaultyModule, KeyKind, Scene};
use rustix::process::{Pid, Signal, kill_process};

use crate::agent::{Lab, as_this_user, copy_program, json_of, log_with, until};
use crate::enroll_users::install;
use crate::policy::NOBODY;
use crate::renewal::{add, ca, lab, renew};

fn set(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// One way in which others can replace a file, and its undoing.
struct Spoilt {
    path: PathBuf,
    /// Before; of an owner, `None`.
    mode: Option<u32>,
}

impl Spoilt {
    fn mode(path: &Path, mode: u32) -> Spoilt {
        let before = fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        set(path, mode);
        let (path, mode) = (path.to_owned(), Some(before));
        Spoilt { path, mode }
    }

    fn owner(path: &Path) -> Spoilt {
        lchown(path, Some(NOBODY), None).unwrap();
        let path = path.to_owned();
        Spoilt { path, mode: None }
    }

    fn name(&self) -> &str {
        self.path.to_str().unwrap()
    }

    /// As the error says.
    fn repair(&self) {
        match self.mode {
            Some(before) => set(&self.path, before),
            None => lchown(&self.path, Some(0), None).unwrap(),
        }
    }
}

/// A scene whose agent, programs and module are its own; the module tells whether it was loaded.
struct Stage {
    scene: Scene,
    module: FaultyModule,
    programs: PathBuf,
}

impl Stage {
    fn new() -> Stage {
        let Lab { mut config, scene } = Lab::new(KeyKind::EcP256);
        let module = FaultyModule::new(scene.dir()).unwrap();
        fs::create_dir(scene.path("lib")).unwrap();
        copy_program(module.module(), &scene.path("lib/module.so"));
        symlink("lib", scene.path("link")).unwrap();
        config.pkcs11_module = scene.path("link/module.so");
        scene
            .write("agent.toml", &config.to_toml().unwrap())
            .unwrap();
        let programs = install(&scene);
        Stage {
            scene,
            module,
            programs,
        }
    }

    fn command(&self) -> Command {
        let mut command = self.scene.command(self.programs.join("roleseal-agent"));
        command.arg("--config").arg(self.scene.path("agent.toml"));
        command.envs(self.module.env());
        command
    }

    fn start(&self) -> Agent {
        let log = self.scene.path("agent.log");
        let _ = fs::remove_file(&log);
        Agent::start(self.command(), &self.scene.socket(), &log, || false).unwrap()
    }

    /// The exit status of `--check`, and what it says.
    fn check(&self) -> (Option<i32>, String) {
        let output = as_this_user(self.command().arg("--check")).output();
        let output = output.unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    }

    fn signs(&self) -> bool {
        let arguments = self
            .scene
            .credential_process("web", hsm_fixtures::WEB_ROLE_ARN);
        let output = self.scene.roleseal(&arguments).unwrap().output().unwrap();
        if output.status.success() {
            json_of(&output);
        }
        output.status.success()
    }

    fn was_loaded(&self) -> bool {
        self.scene.path("calls").exists()
    }
}

/// What the log says of the next reload.
fn reload(agent: &Agent) -> String {
    let told = || {
        let log = agent.process().log();
        let lines = log.lines().filter(|line| line.contains("reloaded: "));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let before = told().len();
    let pid = Pid::from_raw(agent.process().id().cast_signed()).unwrap();
    kill_process(pid, Signal::HUP).unwrap();
    until("the agent reloads", || told().get(before).cloned())
}

/// Refused by `--check`, at the start and at a reload, which keeps what is in force; and good again once repaired.
fn is_refused_until_repaired(stage: &Stage, spoil: impl Fn() -> Spoilt) {
    let _ = fs::remove_file(stage.scene.path("calls"));
    let spoilt = spoil();
    let (status, said) = stage.check();
    assert_eq!(status, Some(78), "{said}");
    assert!(said.contains(spoilt.name()), "{said}");
    let agent = stage.start();
    assert!(!stage.signs() && !stage.was_loaded(), "{}", spoilt.name());
    let log = log_with(&agent, spoilt.name());
    assert!(!log.contains("ready"), "{log}");

    spoilt.repair();
    let (status, said) = stage.check();
    assert_eq!(status, Some(0), "{said}");
    assert!(!reload(&agent).contains("not reloaded"));
    until("the identity is ready", || stage.signs().then_some(()));
    assert!(stage.was_loaded());

    let spoilt = spoil();
    let told = reload(&agent);
    assert!(
        told.contains("not reloaded") && told.contains(spoilt.name()),
        "{told}"
    );
    assert!(stage.signs());
    spoilt.repair();
    agent.stop().unwrap();
}

#[test]
fn a_module_that_others_can_replace_is_not_loaded() {
    if as_root::by_sudo!() {
        return;
    }
    let stage = Stage::new();
    let (lib, link) = (stage.scene.path("lib"), stage.scene.path("link"));
    let module = lib.join("module.so");
    for mode in [0o777, 0o757] {
        is_refused_until_repaired(&stage, || Spoilt::mode(&module, mode));
    }
    is_refused_until_repaired(&stage, || Spoilt::mode(&lib, 0o777));
    for path in [&module, &lib, &link] {
        is_refused_until_repaired(&stage, || Spoilt::owner(path));
    }
    // An operator's command loads it no more than the agent.
    let key_list = || {
        let _ = fs::remove_file(stage.scene.path("calls"));
        let mut list = stage.scene.command(stage.programs.join("roleseal-admin"));
        list.args(["key", "list", "--module"]).arg(&module);
        let output = list.envs(stage.module.env()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said, stage.was_loaded())
    };
    assert_eq!(key_list().0, Some(0));
    let spoilt = Spoilt::mode(&module, 0o777);
    let (status, said, was_loaded) = key_list();
    assert!(
        status == Some(1) && said.contains(spoilt.name()) && !was_loaded,
        "{said}"
    );
}

#[test]
fn a_token_program_that_others_can_replace_is_not_started() {
    let stage = Stage::new();
    let program = stage.programs.join("roleseal-pkcs11");
    for path in [&program, &stage.programs] {
        is_refused_until_repaired(&stage, || Spoilt::mode(path, 0o777));
    }
    let spoilt = Spoilt::mode(&program, 0o777);
    let mut list = stage.scene.command(stage.programs.join("roleseal-admin"));
    let output = list.args(["key", "list"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains(spoilt.name()), "{said}");
}

/// With its directory: another file could be put there.
#[test]
fn a_configuration_that_others_can_replace_is_refused() {
    let stage = Stage::new();
    let file = stage.scene.path("agent.toml");
    for (path, mode) in [
        (&file, 0o622),
        (&file, 0o602),
        (&stage.scene.path(""), 0o777),
    ] {
        let path: PathBuf = path.components().collect();
        let spoilt = Spoilt::mode(&path, mode);
        let (status, said) = stage.check();
        assert!(status == Some(78) && said.contains(spoilt.name()), "{said}");
        let started = stage.command().output().unwrap();
        assert_eq!(started.status.code(), Some(78));
        spoilt.repair();
        let agent = stage.start();
        assert!(stage.signs());
        let spoilt = Spoilt::mode(&path, mode);
        let told = reload(&agent);
        assert!(
            told.contains("not reloaded") && told.contains(spoilt.name()),
            "{told}"
        );
        assert!(stage.signs());
        spoilt.repair();
        assert!(!reload(&agent).contains("not reloaded"));
        agent.stop().unwrap();
    }
}

#[test]
fn a_command_that_others_can_replace_is_not_run() {
    let (mut lab, key) = lab();
    let ran = lab.scene.path("ran");
    let issue = lab.scene.path("issue");
    fs::write(
        &issue,
        format!("#!/bin/sh\ntouch {}\n{}\n", ran.display(), ca(&lab.scene)),
    )
    .unwrap();
    set(&issue, 0o755);
    add(&mut lab, &key, "web", &format!("exec {}", issue.display()));
    let web = lab.start();
    let check = || {
        let config = web.scene.path("agent.toml");
        let mut check = web.scene.agent_command(&config).unwrap();
        let output = as_this_user(check.arg("--check")).output().unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    for mode in [0o777, 0o757] {
        let spoilt = Spoilt::mode(&issue, mode);
        let (status, said) = check();
        assert!(status == Some(78) && said.contains(spoilt.name()), "{said}");
        let told = reload(&web.agent);
        assert!(
            told.contains("not reloaded") && told.contains(spoilt.name()),
            "{told}"
        );
        let output = renew(&web.scene, &["--force"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1));
        assert!(said.contains(spoilt.name()) && !ran.exists(), "{said}");
        spoilt.repair();
    }
    assert_eq!(check().0, Some(0));
    assert!(!reload(&web.agent).contains("not reloaded"));
    assert!(renew(&web.scene, &["--force"]).status().unwrap().success());
    assert!(ran.exists());

    // --issue: before a key is made.
    fs::remove_file(&ran).unwrap();
    let enroll = || {
        let mut enroll = web.scene.command(hsm_fixtures::programs::admin().unwrap());
        enroll
            .args(["enroll", "--name", "new", "--subject", "CN=new"])
            .args(["--uri", "pkcs11:token=lab;object=new", "--module"])
            .arg(hsm_fixtures::SoftHsm::module().unwrap())
            .arg("--pin-file")
            .arg(web.scene.path("lab.pin"))
            .arg("--issue")
            .arg(&issue)
            .arg("--config")
            .arg(web.scene.path("agent.toml"))
            .arg("--certificate")
            .arg(web.scene.path("new.pem"));
        enroll.output().unwrap()
    };
    let spoilt = Spoilt::mode(&issue, 0o777);
    let output = enroll();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains(spoilt.name()) && !ran.exists(), "{said}");
    assert!(!web.scene.path("new.csr").exists());
    spoilt.repair();
    let output = enroll();
    assert!(output.status.success(), "{output:?}");
}

/// As Kubernetes mounts a ConfigMap; below the mount, a service may see as read-only what others write.
#[test]
fn a_read_only_mount_of_mode_0777_is_trusted_and_no_directory_below_it() {
    if as_root::by_sudo!() {
        return;
    }
    let stage = Stage::new();
    let volume = stage.scene.path("volume");
    let below = volume.join("below");
    fs::create_dir_all(&below).unwrap();
    for directory in [&volume, &below] {
        fs::copy(stage.scene.path("agent.toml"), directory.join("agent.toml")).unwrap();
        set(directory, 0o777);
    }
    let agent = |remount: &str, directory: &Path| {
        let script = format!("mount --bind \"$0\" \"$0\" && {remount} && exec \"$@\"");
        let mut command = stage.scene.command("unshare");
        command.args(["--mount", "sh", "-c", &script]).arg(&volume);
        command.arg(stage.programs.join("roleseal-agent"));
        command.arg("--config").arg(directory.join("agent.toml"));
        command.envs(stage.module.env());
        command
    };
    const READ_ONLY: &str = "mount -o remount,bind,ro \"$0\"";
    for (remount, directory, code) in [
        ("true", &volume, 78),
        (READ_ONLY, &below, 78),
        (READ_ONLY, &volume, 0),
    ] {
        let mut check = agent(remount, directory);
        let output = check.args(["--check", "--user", "root"]).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{output:?}");
    }
    let log = stage.scene.path("agent.log");
    let command = agent(READ_ONLY, &volume);
    let agent = Agent::start(command, &stage.scene.socket(), &log, || false).unwrap();
    reload(&agent); // confined by now
    agent.stop().unwrap();
}
