use std::fs;
use std::os::unix::process::CommandExt;
use std::time::{Duration, Instant};

use hsm_fixtures::{Agent, KeyKind, WEB_ROLE_ARN};
use rustix::process::{Pid, Signal, kill_process};

use crate::agent::{Lab, Web, copy_program, json_of, launcher, token_programs};

/// For what happens soon, on a busy machine.
const SOON: Duration = Duration::from_secs(20);

fn wait_until(what: &str, happened: impl Fn() -> bool) {
    let deadline = Instant::now() + SOON;
    while !happened() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// One that has ended, and that nobody has reaped yet, does not run.
fn runs(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z")
}

fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// What the kernel says of a process in lines of their own: seccomp's mode, no_new_privs and umask.
fn confinement(pid: i32) -> [String; 3] {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    ["Seccomp:", "NoNewPrivs:", "Umask:"].map(|name| {
        let value = status.lines().find_map(|line| line.strip_prefix(name));
        value.unwrap().trim().to_owned()
    })
}

fn pid(agent: &Agent) -> i32 {
    agent.process().id().cast_signed()
}

/// The usual scene with more in its configuration.
fn start_with(lab: Lab, more: &str) -> Web {
    let text = lab.config.to_toml().unwrap() + more;
    let file = lab.scene.write("agent.toml", &text).unwrap();
    let command = lab.scene.agent_command(&file).unwrap();
    let (socket, log) = (lab.scene.socket(), lab.scene.path("agent.log"));
    Web {
        agent: Agent::start(command, &socket, &log, || false).unwrap(),
        scene: lab.scene,
    }
}

#[test]
fn agent_and_token_programs_are_confined() {
    let mut lab = Lab::new(KeyKind::EcP256);
    let pins = tempfile::tempdir().unwrap();
    let pin = &mut lab.config.identity[0].pin.as_mut().unwrap().file;
    let apart = pins.path().join("lab.pin");
    fs::copy(&pin, &apart).unwrap(); // with its mode
    *pin = apart;
    let web = lab.start();
    json_of(&web.credential_process().output().unwrap());
    let [program] = token_programs(&web.agent)[..] else {
        panic!()
    };
    for confined in [pid(&web.agent), program] {
        assert_eq!(confinement(confined), ["2", "1", "0077"]);
    }
    assert_eq!(confinement(launcher(&web.agent)), ["0", "1", "0077"]);
    let log = web.agent.process().log();
    assert!(log.contains("confined by Landlock"), "{log}");
    assert!(log.contains("confined by seccomp"), "{log}");
    assert!(!log.contains("not confined"), "{log}");
    assert!(!log.contains("could read the PIN"), "{log}");
}

#[test]
fn a_pin_beside_the_certificates_is_warned_of() {
    let web = Web::start();
    let pin = web.scene.path("lab.pin").canonicalize().unwrap();
    let warning = format!("could read the PIN in {}", pin.display());
    wait_until("no warning", || {
        web.agent.process().log().contains(&warning)
    });
}

#[test]
fn each_confinement_can_be_switched_off() {
    for (setting, seccomp, expected) in [
        ("landlock = false", ["2", "2"], "not confined by Landlock"),
        ("seccomp = false", ["0", "2"], "not confined by seccomp"),
        ("token-programs = false", ["2", "0"], "confined by seccomp"),
    ] {
        let web = start_with(
            Lab::new(KeyKind::EcP256),
            &format!("[hardening]\n{setting}\n"),
        );
        json_of(&web.credential_process().output().unwrap());
        let [program] = token_programs(&web.agent)[..] else {
            panic!()
        };
        let actual = [pid(&web.agent), program].map(|pid| confinement(pid)[0].clone());
        assert_eq!(actual, seccomp, "{setting}");
        let log = web.agent.process().log();
        assert!(log.contains(expected), "{log}");
    }
}

/// It reads certificates again, but not from wherever a link may lead by then.
#[test]
fn a_certificate_out_of_reach_says_so() {
    let web = Web::start();
    json_of(&web.credential_process().output().unwrap());
    let [program] = token_programs(&web.agent)[..] else {
        panic!()
    };
    let elsewhere = tempfile::tempdir().unwrap();
    let (certificate, moved) = (web.scene.path("web.pem"), elsewhere.path().join("web.pem"));
    fs::copy(&certificate, &moved).unwrap();
    fs::remove_file(&certificate).unwrap();
    std::os::unix::fs::symlink(&moved, &certificate).unwrap();
    signal(program, Signal::KILL); // the next one's key is proved anew
    wait_until("nothing is said", || {
        web.agent.process().log().contains("[hardening] read")
    });
    // The certificate of before is as good as it was.
    json_of(&web.credential_process().output().unwrap());
}

/// The agent has no user database of its own any more; groups are asked for all the same.
#[test]
fn a_rule_for_a_group_of_the_user_database_holds() {
    if as_root::by_sudo!() {
        return;
    }
    let lab = Lab::new(KeyKind::EcP256);
    let web = start_with(lab, "[[identity.allow]]\ngroups = [\"daemon\"]\n");
    let open = |path: &std::path::Path, mode| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs::set_permissions(path, mode).unwrap();
    };
    open(web.scene.dir(), 0o711);
    open(&web.scene.pki().root_path(), 0o644);
    let arguments = web.scene.credential_process("web", WEB_ROLE_ARN);
    let copy = web.scene.path("roleseal");
    copy_program(web.scene.roleseal(&arguments).unwrap().get_program(), &copy);
    // `daemon` has the group in the database, and another one where it runs; the second user has neither.
    for (uid, permitted) in [(1, true), (4_000_001, false)] {
        let mut command = web.scene.command(&copy);
        command.args(&arguments).uid(uid).gid(4_000_002);
        let output = command.output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), permitted, "{uid}: {stderr}");
    }
}

#[test]
fn a_token_program_that_crashes_is_told_of_and_reaped() {
    let web = Web::start();
    json_of(&web.credential_process().output().unwrap());
    let [program] = token_programs(&web.agent)[..] else {
        panic!()
    };
    signal(program, Signal::ABORT);
    wait_until("it is not reaped", || {
        !fs::exists(format!("/proc/{program}")).unwrap()
    });
    let line = format!("token program {program}: signal: 6");
    wait_until("it is not told of", || {
        web.agent.process().log().contains(&line)
    });
    json_of(&web.credential_process().output().unwrap());
}

/// Ctrl-C and a supervisor's SIGTERM are for the agent; its launcher ends after it.
#[test]
fn a_launcher_outlasts_signals_and_not_the_agent() {
    let web = Web::start();
    json_of(&web.credential_process().output().unwrap());
    let launcher = launcher(&web.agent);
    let [program] = token_programs(&web.agent)[..] else {
        panic!()
    };
    for unwanted in [Signal::INT, Signal::TERM, Signal::HUP] {
        signal(launcher, unwanted);
    }
    signal(program, Signal::KILL);
    json_of(&web.credential_process().output().unwrap());
    let [program] = token_programs(&web.agent)[..] else {
        panic!()
    };
    signal(pid(&web.agent), Signal::KILL);
    wait_until("something is left", || !runs(launcher) && !runs(program));
}

#[test]
fn an_agent_without_its_launcher_ends_with_a_failure() {
    let web = Web::start();
    json_of(&web.credential_process().output().unwrap());
    let [program] = token_programs(&web.agent)[..] else {
        panic!()
    };
    signal(launcher(&web.agent), Signal::KILL);
    wait_until("the agent goes on", || !web.agent.process().is_running());
    let Web { agent, scene } = web;
    let error = agent.stop().unwrap_err().to_string();
    assert!(error.contains("exit status: 1"), "{error}");
    assert!(error.contains("launcher"), "{error}");
    assert!(!scene.socket().exists());
    wait_until("its token program is left", || !runs(program));
}
