use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use hsm_fixtures::{Agent, AgentConfig, FaultyModule, KeyKind, PIN, Scene, SoftHsm, programs};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::agent::{Lab, identities, log_with, until};
use crate::enroll_users::{give_to_nobody, install};
use crate::policy::NOBODY;

const WRONG: &str = "00000000";

/// Modules that do not set SoftHSM's flag, or cannot tell by it.
const TELLS_NOTHING: &str = "C_GetTokenInfo flags CKF_USER_PIN_COUNT_LOW";

/// An agent that comes and goes, on a module that counts its calls.
struct Place {
    faulty: FaultyModule,
    config: AgentConfig,
    scene: Scene,
}

impl Place {
    fn new(pin: &str) -> Place {
        let Lab { mut config, scene } = Lab::new(KeyKind::EcP256);
        scene.write("lab.pin", pin).unwrap();
        let faulty = FaultyModule::new(scene.dir()).unwrap();
        config.pkcs11_module = faulty.module().to_owned();
        Place {
            faulty,
            config,
            scene,
        }
    }

    fn command(&self) -> Command {
        let text = self.config.to_toml().unwrap();
        let file = self.scene.write("agent.toml", &text).unwrap();
        let mut command = self.scene.agent_command(&file).unwrap();
        command.envs(self.faulty.env());
        command
    }

    fn start(&self) -> Agent {
        self.start_by(self.command())
    }

    fn start_by(&self, command: Command) -> Agent {
        let log = self.scene.path("agent.log");
        Agent::start(command, &self.scene.socket(), &log, || false).unwrap()
    }

    fn logins(&self) -> usize {
        self.faulty.count("C_Login").unwrap()
    }

    /// Starts an agent, and ends it in one of the ways in which agents end, once its tokens are settled.
    fn state_of_next(&self, end: impl Fn(Agent)) -> String {
        let agent = self.start();
        let state = self.state();
        end(agent);
        state
    }

    fn state(&self) -> String {
        identities(&self.scene)[0]["state"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// What the agent has recorded: the file of each PIN.
    fn records(&self) -> Vec<PathBuf> {
        let directory = fs::read_dir(self.scene.path("state/pin-tries")).unwrap();
        let files = directory.map(|entry| entry.unwrap().path());
        files.filter(|path| !path.ends_with("key")).collect()
    }

    fn retry(&self, identity: &str) -> Output {
        let mut admin = self.scene.command(programs::admin().unwrap());
        admin.args(["pin", "retry", identity, "--config"]);
        admin.arg(self.scene.path("agent.toml")).output().unwrap()
    }
}

fn kill(agent: Agent) {
    end(agent, Signal::KILL);
}

fn end(agent: Agent, signal: Signal) {
    let agent_pid = Pid::from_raw(agent.process().id().cast_signed()).unwrap();
    kill_process(agent_pid, signal).unwrap();
    until("it is gone", || {
        (!agent.process().is_running()).then_some(())
    });
}

fn stop(agent: Agent) {
    agent.stop().unwrap();
}

#[test]
fn a_wrong_pin_is_tried_once_however_often_the_agent_starts() {
    let place = Place::new(WRONG);
    for end in [stop, kill, stop, kill] {
        assert_eq!(place.state_of_next(end), "pinRejected");
    }
    assert_eq!(place.logins(), 1);
    // The same one in another file, or with a line break.
    for text in [WRONG, "00000000\n"] {
        place.scene.write("lab.pin", text).unwrap();
        assert_eq!(place.state_of_next(stop), "pinRejected");
    }
    assert_eq!(place.logins(), 1);
    let [record] = &place.records()[..] else {
        panic!()
    };
    let text = fs::read_to_string(record).unwrap();
    assert!(!text.contains(WRONG), "{text}");

    place.scene.write("lab.pin", "00000001").unwrap();
    for _ in 0..2 {
        assert_eq!(place.state_of_next(stop), "pinRejected");
    }
    assert_eq!(place.logins(), 2);
    place.scene.write("lab.pin", PIN).unwrap();
    assert_eq!(place.state_of_next(kill), "ready");
    assert_eq!(place.records(), [] as [PathBuf; 0]);
    // Back at the first: it was changed.
    place.scene.write("lab.pin", WRONG).unwrap();
    for _ in 0..2 {
        assert_eq!(place.state_of_next(stop), "pinRejected");
    }
    assert_eq!(place.logins(), 4);
}

/// systemd copies it to another inode at each start.
#[test]
fn a_credential_that_is_copied_anew_is_the_same_pin() {
    let mut place = Place::new(WRONG);
    place.config.identity[0].pin = None;
    for start in 0..3 {
        let credentials = place.scene.path(&format!("credentials-{start}"));
        fs::create_dir(&credentials).unwrap();
        fs::write(credentials.join("lab"), WRONG).unwrap();
        let text = place.config.to_toml().unwrap();
        let pin = "[[identity]]\npin = { credential = \"lab\" }\n";
        let mut command = place.command();
        place
            .scene
            .write("agent.toml", &text.replace("[[identity]]\n", pin))
            .unwrap();
        command.env("CREDENTIALS_DIRECTORY", &credentials);
        let agent = place.start_by(command);
        assert_eq!(place.state(), "pinRejected");
        stop(agent);
    }
    assert_eq!(place.logins(), 1);
}

/// Nobody knows what the token made of the try: it counts as refused until an operator knows better.
#[test]
fn an_agent_that_is_killed_during_a_login_does_not_try_again() {
    for pin in [WRONG, PIN] {
        let place = Place::new(pin);
        place
            .faulty
            .inject(&["C_Login hang", TELLS_NOTHING])
            .unwrap();
        let agent = place.start();
        until("a login is under way", || {
            (place.logins() == 1).then_some(())
        });
        kill(agent);
        place.faulty.inject(&[TELLS_NOTHING]).unwrap();
        for end in [kill, stop] {
            assert_eq!(place.state_of_next(end), "pinRejected");
        }
        assert_eq!(place.logins(), 1);
        // The operator does.
        let agent = place.start();
        assert_eq!(place.state(), "pinRejected");
        let is_right = pin == PIN;
        assert_eq!(place.retry("web").status.success(), is_right);
        assert_eq!(place.logins(), 2);
        stop(agent);
    }
}

/// SoftHSM's flag tells that the try did not count.
#[test]
fn a_token_that_can_tell_is_asked_after_a_kill() {
    let place = Place::new(PIN);
    place.faulty.inject(&["C_Login hang"]).unwrap();
    let agent = place.start();
    until("a login is under way", || {
        (place.logins() == 1).then_some(())
    });
    kill(agent);
    place.faulty.clear().unwrap();
    assert_eq!(place.state_of_next(stop), "ready");
}

#[test]
fn an_operator_has_a_pin_tried_once_more() {
    let place = Place::new(PIN);
    let agent = place.start();
    assert_eq!(place.state(), "ready");
    // Nothing to retry: nothing is tried.
    assert!(place.retry("web").status.success());
    assert_eq!(place.logins(), 1);
    assert_eq!(place.retry("nobody").status.code(), Some(2));
    stop(agent);

    place
        .faulty
        .inject(&["C_Login return CKR_PIN_LOCKED times 2"])
        .unwrap();
    let agent = place.start();
    assert_eq!(place.state(), "pinRejected");
    let hint = identities(&place.scene)[0]["message"].to_string();
    assert!(hint.contains("PIN"), "{hint}");
    assert_eq!(place.retry("web").status.code(), Some(1)); // still locked
    assert_eq!(place.logins(), 3);
    stop(agent);
    assert_eq!(place.state_of_next(stop), "pinRejected");
    assert_eq!(place.logins(), 3);
    let agent = place.start();
    let output = place.retry("web");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(place.state(), "ready");
    assert_eq!(place.logins(), 4);
    stop(agent);
    assert_eq!(place.records(), [] as [PathBuf; 0]);

    // Without a running agent, the next one tries it.
    place
        .faulty
        .inject(&["C_Login return CKR_PIN_LOCKED times 1"])
        .unwrap();
    assert_eq!(place.state_of_next(stop), "pinRejected");
    assert!(place.retry("web").status.success());
    assert_eq!(place.logins(), 5);
    assert_eq!(place.state_of_next(stop), "ready");
}

/// A user's own agent, on a host that has the packaged one, too.
#[test]
fn another_users_records_do_not_keep_a_user_from_a_retry() {
    if as_root::by_sudo!() {
        return;
    }
    let Lab { mut config, scene } = Lab::new(KeyKind::EcP256);
    config.pkcs11_module = SoftHsm::module().unwrap();
    config.identity[0].allow[0].users.extend([0, NOBODY]);
    scene.write("lab.pin", WRONG).unwrap();
    let programs = install(&scene);
    let file = scene
        .write("agent.toml", &config.to_toml().unwrap())
        .unwrap();
    give_to_nobody(scene.dir());
    let mut agent = scene.command(programs.join("roleseal-agent"));
    agent.arg("--config").arg(&file).uid(NOBODY).gid(NOBODY);
    let log = scene.path("agent.log");
    let _agent = Agent::start(agent, &scene.socket(), &log, || false).unwrap();
    let state = || identities(&scene)[0]["state"].as_str().unwrap().to_owned();
    assert_eq!(state(), "pinRejected");
    fs::write(scene.path("lab.pin"), PIN).unwrap();

    let packaged = scene.path("packaged");
    fs::create_dir_all(packaged.join("pin-tries")).unwrap();
    fs::set_permissions(&packaged, Permissions::from_mode(0o700)).unwrap();
    let mut retry = scene.command(programs.join("roleseal-admin"));
    retry.args(["pin", "retry", "web", "--config"]).arg(&file);
    retry.env("STATE_DIRECTORY", &packaged);
    let output = retry.uid(NOBODY).gid(NOBODY).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(state(), "ready");

    // Where no other has been found, that is the agent's.
    config.state = None;
    scene
        .write("agent.toml", &config.to_toml().unwrap())
        .unwrap();
    let output = retry.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

#[test]
fn what_is_damaged_costs_no_try() {
    let place = Place::new(WRONG);
    assert_eq!(place.state_of_next(stop), "pinRejected");
    let key = place.scene.path("state/pin-tries/key");
    for damaged in [place.records().remove(0), key.clone()] {
        fs::write(&damaged, "?").unwrap();
        let agent = place.start();
        let path = damaged.display().to_string();
        let log = log_with(&agent, &path);
        let line = log.lines().find(|line| line.contains(&path)).unwrap();
        assert!(line.contains("cannot read "), "{line}");
        assert_eq!(place.state(), "pinRejected");
        stop(agent);
    }
    assert_eq!(place.logins(), 1);
    // An operator puts it right.
    place.scene.write("lab.pin", PIN).unwrap();
    assert_eq!(place.state_of_next(stop), "pinRejected");
    assert!(place.retry("web").status.success());
    assert_eq!(place.state_of_next(stop), "ready");
    assert_eq!(fs::read(key).unwrap().len(), 32);
    assert_eq!(place.logins(), 2);
}

#[test]
fn a_key_that_cannot_be_opened_costs_no_try() {
    let place = Place::new(WRONG);
    assert_eq!(place.state_of_next(stop), "pinRejected");
    let key = place.scene.path("state/pin-tries/key");
    fs::rename(&key, place.scene.path("key")).unwrap();
    std::os::unix::fs::symlink(place.scene.path("key"), &key).unwrap();
    for end in [stop, kill] {
        assert_eq!(place.state_of_next(end), "pinRejected");
    }
    assert_eq!(place.logins(), 1);
}

/// Else the next agent finds a try without an answer, and a good PIN counts as refused.
#[test]
fn an_agent_that_is_stopped_during_a_login_hears_its_end() {
    let place = Place::new(PIN);
    place
        .faulty
        .inject(&["C_Login sleep 6000", TELLS_NOTHING])
        .unwrap();
    let agent = place.start();
    until("a login is under way", || {
        (place.logins() == 1).then_some(())
    });
    end(agent, Signal::TERM);
    place.faulty.inject(&[TELLS_NOTHING]).unwrap();
    assert_eq!(place.state_of_next(stop), "ready");
}

/// The agent serves, and says once that it will not remember.
#[test]
fn an_agent_without_a_state_directory_serves() {
    let mut place = Place::new(PIN);
    place.config.state = None;
    let agent = place.start();
    assert_eq!(place.state(), "ready");
    let log = log_with(&agent, "not remembered");
    assert_eq!(log.matches("not remembered").count(), 1, "{log}");
}

/// One that is missing, and one in which nothing can be made.
#[test]
fn without_the_state_directory_that_is_configured_no_pin_is_tried() {
    let mut place = Place::new(PIN);
    for state in [place.scene.path("absent"), "/proc".into()] {
        place.config.state = Some(state.clone());
        let agent = place.start();
        let identity = identities(&place.scene).remove(0);
        assert_eq!(identity["state"], "unavailable", "{identity}");
        let message = identity["message"].as_str().unwrap();
        assert!(message.contains(state.to_str().unwrap()), "{message}");
        stop(agent);
    }
    assert_eq!(place.logins(), 0);
}

/// A state directory on a disk of 64 KiB, which `fill` leaves no room on, or whose `remount` forbids writing.
#[test]
fn a_try_that_a_full_or_read_only_disk_does_not_record_is_not_made() {
    if as_root::by_sudo!() {
        return;
    }
    let spoil = [
        ("head -c 1M /dev/zero >\"$0/fill\" || :", "rm \"$0/fill\""),
        ("mount -o remount,ro \"$0\"", "mount -o remount,rw \"$0\""),
    ];
    for (spoil, mend) in spoil {
        let place = Place::new(PIN);
        let state = place.scene.path("state");
        let script = format!(
            "mount -t tmpfs -o size=64k tmpfs \"$0\"; mkdir -m 700 \"$0/pin-tries\"; {spoil}; exec \"$@\""
        );
        let agent = place.command();
        let mut command = place.scene.command("unshare");
        command.envs(place.faulty.env());
        command.args(["--mount", "sh", "-ec", &script]).arg(&state);
        command.arg(agent.get_program()).args(agent.get_args());
        let agent = place.start_by(command);
        let identity = identities(&place.scene).remove(0);
        assert_eq!(identity["state"], "unavailable", "{identity}");
        let message = identity["message"].as_str().unwrap();
        assert!(message.contains(state.to_str().unwrap()), "{message}");
        assert_eq!(place.logins(), 0);

        let process = agent.process().id();
        let mut mended = Command::new("nsenter");
        mended.args(["--mount", "--target", &process.to_string()]);
        mended.args(["sh", "-ec", mend]).arg(&state);
        assert!(mended.status().unwrap().success());
        let agent_pid = Pid::from_raw(process.cast_signed()).unwrap();
        kill_process(agent_pid, Signal::HUP).unwrap();
        until("the PIN is tried", || {
            (place.state() == "ready").then_some(())
        });
        assert_eq!(place.logins(), 1);
    }
}

/// The packages' directory, of an agent that configures no other: where it cannot be written to, what it has counts.
#[test]
fn a_refusal_counts_where_the_directory_can_only_be_read() {
    if as_root::by_sudo!() {
        return;
    }
    let mut place = Place::new(WRONG);
    place.config.state = None;
    let state = place.scene.path("state");
    let script = "mount -t tmpfs tmpfs /var/lib; mkdir /var/lib/roleseal; mount --bind \"$0\" /var/lib/roleseal
        mount -o \"remount,bind,$1\" /var/lib/roleseal; shift; exec \"$@\"";
    for mode in ["rw", "ro", "ro"] {
        let agent = place.command();
        let mut command = place.scene.command("unshare");
        command.envs(place.faulty.env());
        command
            .args(["--mount", "sh", "-ec", script])
            .arg(&state)
            .arg(mode);
        command.arg(agent.get_program()).args(agent.get_args());
        let agent = place.start_by(command);
        assert_eq!(place.state(), "pinRejected", "{mode}");
        stop(agent);
    }
    assert_eq!(place.logins(), 1);
    assert_eq!(place.records().len(), 1);
}

/// systemd's place comes before the configured one.
#[test]
fn the_state_is_where_systemd_says() {
    let place = Place::new(WRONG);
    let other = place.scene.path("by-systemd");
    fs::create_dir(&other).unwrap();
    for _ in 0..2 {
        let mut command = place.command();
        command.env("STATE_DIRECTORY", &other);
        let agent = place.start_by(command);
        assert_eq!(place.state(), "pinRejected");
        stop(agent);
    }
    assert_eq!(place.logins(), 1);
    assert!(!place.scene.path("state/pin-tries").exists());
    assert_eq!(fs::read_dir(other.join("pin-tries")).unwrap().count(), 2);
}

/// A file of the module and its copy, a link, and p11-kit's proxy, which has SoftHSM as this machine installs it.
#[test]
fn names_of_a_module_share_one_record() {
    let mut place = Place::new(WRONG);
    let [copy, link] = ["copy.so", "link.so"].map(|name| place.scene.path(name));
    fs::copy(place.faulty.module(), &copy).unwrap();
    std::os::unix::fs::symlink(&copy, &link).unwrap();
    let web = place.config.identity.remove(0);
    let modules = [
        place.faulty.module().to_owned(),
        copy,
        link,
        SoftHsm::p11_kit_proxy().unwrap(),
    ];
    for (number, module) in modules.iter().enumerate() {
        let mut identity = web.clone();
        identity.name = format!("web{number}");
        identity.key = format!("{}?module-path={}", web.key, module.display());
        place.config.identity.push(identity);
    }
    for _ in 0..2 {
        let agent = place.start();
        for identity in identities(&place.scene) {
            assert_eq!(identity["state"], "pinRejected", "{identity}");
        }
        stop(agent);
    }
    // By the proxy, if it came first.
    assert!(place.logins() <= 1);
    let [record] = &place.records()[..] else {
        panic!("{:?}", place.records())
    };
    let record: Value = serde_json::from_slice(&fs::read(record).unwrap()).unwrap();
    let named = record["identities"].as_array().unwrap();
    assert_eq!(named.len(), modules.len(), "{record}");
}

/// Under another label it has another PIN, and so another try.
#[test]
fn a_token_that_is_initialized_anew_has_its_own_try() {
    let mut place = Place::new(WRONG);
    assert_eq!(place.state_of_next(stop), "pinRejected");
    let softhsm = place.scene.softhsm();
    softhsm.reset_token("lab", "other", PIN).unwrap();
    let key = &mut place.config.identity[0].key;
    *key = key.replace("token=lab", "token=other");
    for _ in 0..2 {
        assert_eq!(place.state_of_next(stop), "pinRejected");
    }
    assert_eq!(place.logins(), 2);
}
