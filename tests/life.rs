use std::fs;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, Output, Stdio};

use hsm_fixtures::{KeyKind, Scene};

use crate::agent::{Lab, Web, as_this_user, json_of, token_programs};

fn check(web: &Web, text: &str) -> Output {
    let file = web.scene.write("other.toml", text).unwrap();
    let mut command = web.scene.agent_command(&file).unwrap();
    as_this_user(command.arg("--check")).output().unwrap()
}

#[test]
fn the_end_leaves_no_socket_and_no_process() {
    let web = Web::start();
    json_of(&web.credential_process().output().unwrap());
    let programs = token_programs(&web.agent);
    assert_eq!(programs.len(), 1);
    web.agent.stop().unwrap();
    assert!(!web.scene.socket().exists());
    for program in programs {
        assert!(!fs::exists(format!("/proc/{program}")).unwrap());
    }
}

#[test]
fn a_socket_left_over_is_replaced_and_one_in_use_is_not() {
    let lab = Lab::new(KeyKind::EcP256);
    drop(UnixListener::bind(lab.scene.socket()).unwrap()); // its file stays
    let web = lab.start();
    json_of(&web.credential_process().output().unwrap());

    let mut second = web
        .scene
        .agent_command(&web.scene.path("agent.toml"))
        .unwrap();
    let output = second.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(stderr.contains("another agent listens"), "{stderr}");
    json_of(&web.credential_process().output().unwrap());

    let path = web.scene.write("file", "precious").unwrap();
    let text = fs::read_to_string(web.scene.path("agent.toml")).unwrap();
    let text = text.replace("agent.sock", "file");
    let file = web.scene.write("other.toml", &text).unwrap();
    let output = web.scene.agent_command(&file).unwrap().output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("not a socket"));
    assert_eq!(fs::read_to_string(path).unwrap(), "precious");
}

#[test]
fn systemds_socket_wins() {
    let Lab { scene, config, .. } = Lab::new(KeyKind::EcP256);
    let passed = scene.path("passed.sock");
    let listener = UnixListener::bind(&passed).unwrap();
    let file = scene
        .write("agent.toml", &config.to_toml().unwrap())
        .unwrap();
    let agent = scene.agent_command(&file).unwrap();
    let mut running = socket_activated(&scene, &agent, listener);
    let arguments: Vec<String> = scene
        .credential_process("web", hsm_fixtures::WEB_ROLE_ARN)
        .into_iter()
        .map(|word| word.replace("agent.sock", "passed.sock"))
        .collect();
    json_of(&scene.roleseal(&arguments).unwrap().output().unwrap());
    assert!(!scene.socket().exists());
    rustix::process::kill_process(
        rustix::process::Pid::from_child(&running),
        rustix::process::Signal::TERM,
    )
    .unwrap();
    assert!(running.wait().unwrap().success());
    assert!(passed.exists()); // systemd's, not ours to remove
}

/// The agent started as systemd does: with that socket as descriptor 3, and two variables that name the process. The shell
/// gets it as its standard input, which `Agent::start` would replace.
fn socket_activated(scene: &Scene, agent: &Command, socket: UnixListener) -> Child {
    let mut shell = scene.command("sh");
    shell
        .args([
            "-c",
            "exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\"",
            "sh",
        ])
        .arg(agent.get_program())
        .args(agent.get_args())
        .stdin(std::os::fd::OwnedFd::from(socket))
        .stderr(Stdio::piped());
    shell.spawn().unwrap()
}

/// systemd would start it again at once for each client that waits, and soon give the socket up.
#[test]
fn without_a_configuration_waiting_clients_are_answered_and_the_exit_code_tells() {
    let Lab { scene, config, .. } = Lab::new(KeyKind::EcP256);
    let good = config.to_toml().unwrap();
    for text in [
        None,
        Some(String::new()),
        Some(good.replace("sessions", "session")),
    ] {
        let path = scene.path("faulty.toml");
        let _ = fs::remove_file(&path);
        if let Some(text) = text {
            scene.write("faulty.toml", &text).unwrap();
        }
        let agent = scene.agent_command(&path).unwrap();
        let passed = scene.path("passed.sock");
        let _ = fs::remove_file(&passed);
        let listener = UnixListener::bind(&passed).unwrap();
        let arguments: Vec<String> = scene
            .credential_process("web", hsm_fixtures::WEB_ROLE_ARN)
            .into_iter()
            .map(|word| word.replace("agent.sock", "passed.sock"))
            .collect();
        let spawn = || {
            let mut client = scene.roleseal(&arguments).unwrap();
            client
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        };
        // One that connects and says nothing does not keep the others from their answers.
        let silent = UnixStream::connect(&passed).unwrap();
        let clients = [spawn(), spawn()];
        let waiting = listener.try_clone().unwrap();
        let status = socket_activated(&scene, &agent, listener).wait().unwrap();
        assert_eq!(status.code(), Some(78));
        drop((waiting, silent));
        for client in clients {
            let output = client.wait_with_output().unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(3), "{stderr}");
            assert!(stderr.contains("systemctl status"), "{stderr}");
        }
        let mut alone = scene.agent_command(&path).unwrap();
        assert_eq!(alone.output().unwrap().status.code(), Some(78));
        let checked = alone.arg("--check").output().unwrap();
        assert_eq!(checked.status.code(), Some(78));
    }
}

#[test]
fn check_says_what_is_wrong_and_where() {
    let web = Web::start();
    let good = fs::read_to_string(web.scene.path("agent.toml")).unwrap();
    let output = check(&web, &good);
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains(": 1 identity, no fault"));

    fs::copy(web.scene.path("lab.pin"), web.scene.path("open.pin")).unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    fs::set_permissions(web.scene.path("open.pin"), open).unwrap();
    for (text, expected) in [
        (
            good.replace("sessions", "session"),
            "unknown field `session`",
        ),
        (good.replace("web.pem", "absent.pem"), "identity \"web\""),
        (good.replace("web.pem", "root.pem"), "CA certificate"),
        (good.replace("lab.pin", "open.pin"), "chmod 600"),
        (good.replace("lab.pin", "absent.pin"), "absent.pin"),
        (good.replace("pkcs11:token", "pkcs11:tokn"), "\"tokn\""),
        ("[[identity]".to_owned(), "other.toml:1"),
    ] {
        let output = check(&web, &text);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(78), "{stderr}");
        assert!(
            stderr.contains(expected) && stderr.contains("other.toml"),
            "{stderr}"
        );
    }
}

/// A module that is missing is the identity's trouble, not the agent's.
#[test]
fn a_missing_module_is_named() {
    let mut lab = Lab::new(KeyKind::EcP256);
    lab.config.pkcs11_module = lab.scene.path("absent.so");
    let web = lab.start();
    let identity = &crate::agent::identities(&web.scene)[0];
    assert!(
        identity["message"].as_str().unwrap().contains("absent.so"),
        "{identity}"
    );
}
