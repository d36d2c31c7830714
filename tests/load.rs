use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use hsm_fixtures::{Agent, FaultyModule, KeyKind, LimitsConfig, Scene};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::agent::{Lab, Web, call_on, json_of, read_reply, request, sign, token_programs, until};
use crate::policy::{NOBODY, as_nobody};

const CALL: &str = "org.roleseal.Agent.SignCreateSession";

fn message(scene: &Scene) -> Vec<u8> {
    let call = json!({ "method": CALL, "parameters": request(scene) });
    format!("{call}\0").into_bytes()
}

/// Sends a request and does not wait for its answer.
fn ask(scene: &Scene) -> UnixStream {
    let mut stream = UnixStream::connect(scene.socket()).unwrap();
    // An agent that takes no more clients says so and closes, before anything is asked.
    let _ = stream.write_all(&message(scene));
    stream
}

fn signed(reply: &Value) -> bool {
    reply["parameters"]["headers"]["Authorization"].is_string()
}

fn the_token_program(web: &Web) -> Pid {
    let [program] = token_programs(&web.agent)[..] else {
        panic!()
    };
    Pid::from_raw(program).unwrap()
}

#[test]
fn a_thousand_idle_connections_and_a_slow_writer_hold_nobody_up() {
    if as_root::by_sudo!() {
        return;
    }
    let mut lab = Lab::new(KeyKind::EcP256);
    lab.config.limits = Some(LimitsConfig {
        connections: Some(1100),
        connections_per_user: Some(1050),
        ..LimitsConfig::default()
    });
    lab.config.identity[0].allow[0].users.push(NOBODY);
    let web = lab.start();
    let connect = || UnixStream::connect(web.scene.socket()).unwrap();
    let idle: Vec<UnixStream> = (0..1000).map(|_| connect()).collect();
    let message = message(&web.scene);
    let mut slow = connect();
    let (last, first) = message.split_last().unwrap();
    slow.write_all(&first[..first.len() / 2]).unwrap();

    let arguments = web
        .scene
        .credential_process("web", hsm_fixtures::WEB_ROLE_ARN);
    json_of(&as_nobody(&web, &arguments));
    let start = Instant::now();
    assert!(signed(&sign(&web.scene.socket(), request(&web.scene))));
    eprintln!("beside 1,000 idle connections: {:?}", start.elapsed());

    // None of them was given up for the others.
    slow.write_all(&first[first.len() / 2..]).unwrap();
    slow.write_all(&[*last]).unwrap();
    assert!(signed(&read_reply(&mut slow)));
    let mut one = idle.into_iter().last().unwrap();
    one.write_all(&message).unwrap();
    assert!(signed(&read_reply(&mut one)));
}

#[test]
fn one_user_cannot_take_all_connections() {
    if as_root::by_sudo!() {
        return;
    }
    let mut lab = Lab::new(KeyKind::EcP256);
    lab.config.limits = Some(LimitsConfig {
        connections_per_user: Some(8),
        ..LimitsConfig::default()
    });
    lab.config.identity[0].allow[0].users.push(NOBODY);
    let web = lab.start();
    let mut mine = Vec::new();
    let refused = until("there are too many", || {
        let mut stream = ask(&web.scene);
        let reply = read_reply(&mut stream);
        mine.push(stream);
        (!signed(&reply)).then_some(reply)
    });
    assert_eq!(refused["error"], "org.roleseal.Agent.Busy");
    assert_eq!(mine.len(), 9);
    let arguments = web
        .scene
        .credential_process("web", hsm_fixtures::WEB_ROLE_ARN);
    json_of(&as_nobody(&web, &arguments));
    drop(mine);
    until("mine are given back", || {
        signed(&read_reply(&mut ask(&web.scene))).then_some(())
    });
}

#[test]
fn a_user_may_make_so_many_requests_a_second() {
    if as_root::by_sudo!() {
        return;
    }
    let mut lab = Lab::new(KeyKind::EcP256);
    lab.config.limits = Some(LimitsConfig {
        requests_per_second_per_user: Some(2),
        ..LimitsConfig::default()
    });
    lab.config.identity[0].allow[0].users.push(NOBODY);
    let web = lab.start();
    let refused = until("there are too many", || {
        let reply = sign(&web.scene.socket(), request(&web.scene));
        (!signed(&reply)).then_some(reply)
    });
    assert_eq!(refused["error"], "org.roleseal.Agent.Busy");
    let text = refused["parameters"]["message"].as_str().unwrap();
    assert!(text.contains("2 requests a second"), "{text}");
    let arguments = web
        .scene
        .credential_process("web", hsm_fixtures::WEB_ROLE_ARN);
    json_of(&as_nobody(&web, &arguments));
    until("a second has passed", || {
        signed(&sign(&web.scene.socket(), request(&web.scene))).then_some(())
    });
}

/// The kernel's limit, which no configuration raises.
#[test]
fn descriptors_that_run_out_come_back() {
    let lab = Lab::new(KeyKind::EcP256);
    let scene = lab.scene;
    let file = scene
        .write("agent.toml", &lab.config.to_toml().unwrap())
        .unwrap();
    let agent = scene.agent_command(&file).unwrap();
    let mut shell = scene.command("sh");
    shell
        .args(["-c", "ulimit -n 48; exec \"$@\"", "sh"])
        .arg(agent.get_program())
        .args(agent.get_args());
    let log = scene.path("agent.log");
    let agent = Agent::start(shell, &scene.socket(), &log, || false).unwrap();
    let web = Web { agent, scene };
    assert!(signed(&sign(&web.scene.socket(), request(&web.scene))));
    let crowd: Vec<UnixStream> = (0..100)
        .map(|_| UnixStream::connect(web.scene.socket()).unwrap())
        .collect();
    until("the agent is out of descriptors", || {
        let log = web.agent.process().log();
        log.contains("cannot accept connections").then_some(())
    });
    // Even its token program is lost just now.
    kill_process(the_token_program(&web), Signal::KILL).unwrap();
    drop(crowd);
    until("it serves again", || {
        signed(&sign(&web.scene.socket(), request(&web.scene))).then_some(())
    });
    web.agent.stop().unwrap();
}

/// An agent on the faulty module, with so many sessions; it has signed once. Another identity of its token
/// has no key.
fn on_faulty_module(sessions: u32) -> (Web, FaultyModule) {
    let mut lab = Lab::new(KeyKind::EcP256);
    let mut keyless = lab.config.identity[0].clone();
    keyless.name = "keyless".to_owned();
    keyless.key = "pkcs11:token=lab;object=keyless".to_owned();
    lab.config.identity.push(keyless);
    let faulty = FaultyModule::new(lab.scene.dir()).unwrap();
    lab.config.pkcs11_module = faulty.module().to_owned();
    for identity in &mut lab.config.identity {
        identity.sessions = Some(sessions); // the token has as many as one of them wants
    }
    lab.config.identity[0].allow[0].users.push(NOBODY);
    let text = lab.config.to_toml().unwrap();
    let file = lab.scene.write("agent.toml", &text).unwrap();
    let mut command = lab.scene.agent_command(&file).unwrap();
    command.envs(faulty.env());
    let log = lab.scene.path("agent.log");
    let agent = Agent::start(command, &lab.scene.socket(), &log, || false).unwrap();
    let scene = lab.scene;
    let web = Web { agent, scene };
    assert!(signed(&sign(&web.scene.socket(), request(&web.scene))));
    (web, faulty)
}

fn until_signing(faulty: &FaultyModule, signatures: usize) {
    until("the token signs", || {
        (faulty.count("C_Sign").unwrap() == signatures).then_some(())
    });
}

#[test]
fn nothing_is_signed_for_whoever_is_gone() {
    let (web, faulty) = on_faulty_module(1);
    let before = faulty.count("C_Sign").unwrap();
    faulty.inject(&["C_Sign hang"]).unwrap();
    let mut first = ask(&web.scene);
    until_signing(&faulty, before + 1);
    let leaving: Vec<UnixStream> = (0..20).map(|_| ask(&web.scene)).collect();
    let mut staying = ask(&web.scene);
    for stream in leaving {
        // A program that another test starts right now may hold a copy of the stream.
        stream.shutdown(Shutdown::Both).unwrap();
    }
    faulty.clear().unwrap();
    assert!(signed(&read_reply(&mut first)));
    assert!(signed(&read_reply(&mut staying)));
    // One of those who left was at hand for the token already.
    let signatures = faulty.count("C_Sign").unwrap() - before;
    assert!(signatures <= 3, "{signatures}");
}

#[test]
fn who_asks_much_does_not_keep_others_waiting() {
    if as_root::by_sudo!() {
        return;
    }
    let (web, faulty) = on_faulty_module(1);
    let before = faulty.count("C_Sign").unwrap();
    faulty.inject(&["C_Sign sleep 150"]).unwrap();
    let mut crowd: Vec<UnixStream> = (0..100).map(|_| ask(&web.scene)).collect();
    until("the token signs", || {
        (faulty.count("C_Sign").unwrap() > before).then_some(())
    });
    let arguments = web
        .scene
        .credential_process("web", hsm_fixtures::WEB_ROLE_ARN);
    json_of(&as_nobody(&web, &arguments));
    // The others' signatures would take 15 s.
    let signatures = faulty.count("C_Sign").unwrap() - before;
    assert!(signatures < 60, "{signatures}");
    faulty.clear().unwrap();
    for stream in &mut crowd {
        assert!(signed(&read_reply(stream)));
    }
}

#[test]
fn the_end_finishes_what_is_under_way() {
    let (web, faulty) = on_faulty_module(4);
    let before = faulty.count("C_Sign").unwrap();
    faulty.inject(&["C_Sign hang"]).unwrap();
    let mut waiting: Vec<UnixStream> = (0..4).map(|_| ask(&web.scene)).collect();
    until_signing(&faulty, before + 4);
    let agent = Pid::from_raw(web.agent.process().id().cast_signed()).unwrap();
    kill_process(agent, Signal::TERM).unwrap();
    until("the socket is removed", || {
        (!web.scene.socket().exists()).then_some(())
    });
    assert!(UnixStream::connect(web.scene.socket()).is_err());
    faulty.clear().unwrap();
    for stream in &mut waiting {
        assert!(signed(&read_reply(stream)));
    }
    web.agent.stop().unwrap();
}

/// So that a restart, as of an upgrade, refuses nobody.
#[test]
fn the_end_serves_who_has_just_connected() {
    let web = Lab::new(KeyKind::EcP256).start();
    let mut connected = UnixStream::connect(web.scene.socket()).unwrap();
    // Who comes later has been accepted, too.
    assert!(signed(&sign(&web.scene.socket(), request(&web.scene))));
    let agent = Pid::from_raw(web.agent.process().id().cast_signed()).unwrap();
    kill_process(agent, Signal::TERM).unwrap();
    until("the socket is removed", || {
        (!web.scene.socket().exists()).then_some(())
    });
    let reply = call_on(&mut connected, "SignCreateSession", request(&web.scene));
    assert!(signed(&reply), "{reply}");
    web.agent.stop().unwrap();
}

/// What is under way at the end and does not end by itself is refused.
#[test]
fn the_end_does_not_wait_for_ever() {
    let (web, faulty) = on_faulty_module(1);
    let before = faulty.count("C_Sign").unwrap();
    faulty.inject(&["C_Sign hang"]).unwrap();
    let mut waiting = ask(&web.scene);
    until_signing(&faulty, before + 1);
    let programs = token_programs(&web.agent);
    web.agent.stop().unwrap();
    let reply = read_reply(&mut waiting);
    assert_eq!(reply["error"], "org.roleseal.Agent.TokenUnavailable");
    until("no token program is left", || {
        let left = |program: &i32| std::fs::exists(format!("/proc/{program}")).unwrap();
        (!programs.iter().any(left)).then_some(())
    });
}

/// The reload looks for the key that was not there, in the same program, when it has nothing to sign.
#[test]
fn a_reload_lets_what_is_being_signed_finish() {
    let (web, faulty) = on_faulty_module(2);
    let before = faulty.count("C_Sign").unwrap();
    faulty.inject(&["C_Sign hang"]).unwrap();
    let mut waiting: Vec<UnixStream> = (0..2).map(|_| ask(&web.scene)).collect();
    until_signing(&faulty, before + 2);
    let text = std::fs::read_to_string(web.scene.path("agent.toml")).unwrap();
    web.reload_text(&text);
    faulty.clear().unwrap();
    for stream in &mut waiting {
        assert!(signed(&read_reply(stream)));
    }
    until("the token is opened again", || {
        (faulty.count("C_Initialize").unwrap() == 2).then_some(())
    });
    assert!(signed(&sign(&web.scene.socket(), request(&web.scene))));
    // Each was signed once, beside the two proofs and the first and the last request.
    assert_eq!(faulty.count("C_Sign").unwrap(), before + 4);
    assert_eq!(faulty.processes().unwrap().len(), 1);
}

/// Some tokens take one program at a time.
#[test]
fn a_token_is_closed_before_it_is_opened_otherwise() {
    let (web, faulty) = on_faulty_module(2);
    let text = std::fs::read_to_string(web.scene.path("agent.toml")).unwrap();
    let other = text.replace("sessions = 2", "sessions = 6");
    assert_ne!(other, text);
    faulty.inject(&["C_CloseSession sleep 300"]).unwrap();
    web.reload_text(&other);
    let reply = sign(&web.scene.socket(), request(&web.scene));
    assert!(signed(&reply), "{reply}");
    let calls = faulty.calls().unwrap();
    let starts_and_ends: Vec<&str> = calls
        .iter()
        .map(String::as_str)
        .filter(|call| ["C_Initialize", "C_Finalize"].contains(call))
        .collect();
    assert_eq!(
        starts_and_ends,
        ["C_Initialize", "C_Finalize", "C_Initialize"]
    );
}
