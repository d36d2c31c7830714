use std::process::Stdio;
use std::time::{Duration, Instant};

use hsm_fixtures::{Agent, LeafSpec, Scene, WEB_ROLE_ARN, command};
use rustix::process::{Pid, Signal, kill_process};

use crate::agent::{
    Web, copy_program, identities, json_of, kill_and_wait_for, request, sign, token_programs,
};

fn the_token_program(web: &Web) -> Pid {
    let [program] = token_programs(&web.agent)[..] else {
        panic!()
    };
    Pid::from_raw(program).unwrap()
}

#[test]
fn a_token_program_that_dies_is_replaced_without_a_lost_request() {
    let web = Web::start();
    json_of(&web.credential_process().output().unwrap());
    for _ in 0..3 {
        kill_process(the_token_program(&web), Signal::KILL).unwrap();
        let running: Vec<_> = (0..8)
            .map(|_| {
                web.credential_process()
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped())
                    .spawn()
                    .unwrap()
            })
            .collect();
        for child in running {
            json_of(&child.wait_with_output().unwrap());
        }
    }
}

/// Stops a process, and waits until each of its threads has stopped: on a busy machine some go on for a
/// while.
fn stop(program: Pid) {
    kill_process(program, Signal::STOP).unwrap();
    let tasks = format!("/proc/{}/task", program.as_raw_nonzero());
    let deadline = Instant::now() + Duration::from_secs(20);
    let stopped = || {
        std::fs::read_dir(&tasks).unwrap().all(|task| {
            let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap();
            stat.contains(") T ")
        })
    };
    while !stopped() {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_token_program_that_hangs_is_replaced_within_the_requests_deadline() {
    let web = Web::start();
    json_of(&web.credential_process().output().unwrap());
    let hung = the_token_program(&web);
    stop(hung);
    json_of(&web.credential_process().output().unwrap());
    assert_ne!(the_token_program(&web), hung);
}

/// The agent cannot clean up after SIGKILL; its token program sees that it is gone.
#[test]
fn an_agent_that_is_killed_leaves_no_token_program() {
    let web = Web::start();
    json_of(&web.credential_process().output().unwrap());
    kill_and_wait_for(&web.agent, the_token_program(&web));
}

/// An agent whose token program is `liar.py`, of that version: it proves its key, and signs wrongly after that.
fn with_liar(version: &str) -> Web {
    let scene = Scene::new().unwrap();
    scene.write("liar.version", version).unwrap();
    let openssl = |arguments: &[&str]| {
        let mut openssl = scene.command("openssl");
        command::output(openssl.args(arguments).current_dir(scene.dir())).unwrap();
    };
    openssl(&[
        "genpkey",
        "-algorithm",
        "EC",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-out",
        "liar.key",
    ]);
    openssl(&[
        "pkey", "-in", "liar.key", "-pubout", "-outform", "DER", "-out", "liar.pub",
    ]);
    let spki = std::fs::read(scene.path("liar.pub")).unwrap();
    let leaf = scene.pki().leaf(&spki, &LeafSpec::new("web")).unwrap();
    leaf.write(&scene.path("web.pem")).unwrap();
    let text = format!(
        "socket = {:?}\n[[identity]]\nname = \"web\"\nkey = \"pkcs11:token=lab\"\ncertificate = {:?}\nendpoints = [{:?}]\n",
        scene.socket(),
        scene.path("web.pem"),
        scene.service().url(),
    );
    let config = scene.write("agent.toml", &text).unwrap();

    // Token programs are found beside the agent.
    let own = scene.agent_command(&config).unwrap();
    let agent = scene.path("roleseal-agent");
    copy_program(own.get_program(), &agent);
    let liar = concat!(env!("CARGO_MANIFEST_DIR"), "/liar.py");
    copy_program(liar, &scene.path("roleseal-pkcs11"));
    let mut command = scene.command(&agent);
    command.args(own.get_args()).current_dir(scene.dir());
    let log = scene.path("agent.log");
    let agent = Agent::start(command, &scene.socket(), &log, || false).unwrap();
    Web { agent, scene }
}

/// A token that was right when it was opened, and signs wrongly afterwards: a request for AWS to refuse
/// never leaves the agent.
#[test]
fn a_wrong_signature_is_an_error_and_never_an_answer() {
    let Web {
        scene,
        agent: _agent,
    } = with_liar(env!("CARGO_PKG_VERSION"));
    for _ in 0..2 {
        let reply = sign(&scene.socket(), request(&scene));
        assert_eq!(
            reply["error"], "org.roleseal.Agent.SignatureInvalid",
            "{reply}"
        );
    }
    let arguments = scene.credential_process("web", WEB_ROLE_ARN);
    let output = scene.roleseal(&arguments).unwrap().output().unwrap();
    assert_eq!(output.status.code(), Some(5));
    assert_eq!(scene.service().decisions().len(), 0);
}

/// As during an upgrade, when an agent of the previous version still runs.
#[test]
fn a_token_program_of_another_version_is_not_used_and_named() {
    let web = with_liar("0.0.9");
    let [identity] = &identities(&web.scene)[..] else {
        panic!()
    };
    assert_eq!(identity["state"], "unavailable");
    let message = identity["message"].as_str().unwrap();
    for part in ["roleseal-pkcs11", "0.0.9", env!("CARGO_PKG_VERSION")] {
        assert!(message.contains(part), "{message}");
    }
    let output = web.credential_process().output().unwrap();
    assert_eq!(output.status.code(), Some(5));
    // It would have written that down.
    assert!(!web.scene.path("liar.opened").exists());
}
