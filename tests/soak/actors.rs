use std::collections::VecDeque;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hsm_fixtures::{AgentConfig, BATCH_ROLE_ARN, FaultyModule, LeafSpec, WEB_ROLE_ARN};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::agent::{Web, identities, read_reply, request, sign, token_programs, until};
use crate::crowd::{Answer, judge};
use crate::figures::Figures;
use crate::others::{Caller, STRANGER, become_user};

/// A running agent, its module, and its configuration.
pub(crate) struct Stage {
    pub(crate) web: Web,
    pub(crate) faulty: FaultyModule,
    pub(crate) config: AgentConfig,
}

/// Faults that pass by themselves, or that are cleared after a while. None refuses a PIN: that would be for good.
const FAULTS: [&str; 16] = [
    "C_Sign return CKR_DEVICE_REMOVED times 1",
    "C_Sign return CKR_SESSION_HANDLE_INVALID times 2",
    "C_SignInit return CKR_KEY_HANDLE_INVALID times 1",
    "C_Sign return CKR_HOST_MEMORY",
    "C_Sign segfault times 1",
    "C_SignInit abort times 1",
    "C_Sign exit 0 times 1",
    "C_Sign hang times 1",
    "C_Sign flip times 1",
    "C_Sign overlong times 1",
    "C_Sign sleep 50",
    "C_OpenSession limit 2",
    "C_FindObjectsInit return CKR_SESSION_CLOSED times 1",
    "token absent",
    "token back shift 1000",
    "token back reinitialized",
];

/// Asks for ever; every answer is judged.
pub(crate) fn client(stage: &Stage, identity: &str, over: &AtomicBool, figures: &Figures) {
    let scene = &stage.web.scene;
    let request = request_for(stage, identity);
    let call = json!({ "method": "org.roleseal.Agent.SignCreateSession", "parameters": request });
    let call = format!("{call}\0");
    let mut connection: Option<UnixStream> = None;
    while !over.load(Ordering::Relaxed) {
        let start = Instant::now();
        let mut stream = match connection
            .take()
            .map_or_else(|| UnixStream::connect(scene.socket()), Ok)
        {
            Ok(stream) => stream,
            Err(error) => return figures.fault(format!("cannot connect: {error}")),
        };
        if stream.write_all(call.as_bytes()).is_err() {
            continue; // the agent closed an idle connection
        }
        let reply = read_reply(&mut stream);
        figures.took(start.elapsed());
        match judge(scene, &request, &reply) {
            Ok(Answer::Signed) => figures.signed(),
            Ok(Answer::Refused(name, _)) => {
                figures.refused(&name);
                std::thread::sleep(Duration::from_millis(20)); // as a client that tries again would
            }
            Err(wrong) => figures.fault(wrong),
        }
        if fastrand::u8(..) > 10 {
            connection = Some(stream);
        }
    }
}

/// A request that the identity's rules permit.
fn request_for(stage: &Stage, identity: &str) -> Value {
    let mut request = request(&stage.web.scene);
    request["identity"] = identity.into();
    if identity == "batch" {
        let [web, batch] =
            [WEB_ROLE_ARN, BATCH_ROLE_ARN].map(|arn| arn.replace(':', "%3A").replace('/', "%2F"));
        let query = request["query"].as_str().unwrap().replace(&web, &batch);
        request["query"] = query.into();
    }
    request
}

/// Sends what no client should send, or leaves.
pub(crate) fn hostile(stage: &Stage, number: usize, over: &AtomicBool, figures: &Figures) {
    let scene = &stage.web.scene;
    let good =
        json!({ "method": "org.roleseal.Agent.SignCreateSession", "parameters": request(scene) });
    let good = format!("{good}\0").into_bytes();
    let mut open = Vec::new();
    while !over.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(fastrand::u64(1..50)));
        let Ok(mut stream) = UnixStream::connect(scene.socket()) else {
            continue;
        };
        let _ = stream.set_write_timeout(Some(Duration::from_secs(1)));
        let sent = match (number + fastrand::usize(..6)) % 6 {
            0 => garbage(&good),
            1 => good[..fastrand::usize(..good.len())].to_vec(),
            2 => vec![b'x'; 100_000],
            3 => good.repeat(20),
            4 => json!({ "method": "org.roleseal.Agent.SignCreateSession", "parameters": Value::Null }).to_string().into_bytes(),
            _ => Vec::new(),
        };
        let _ = stream.write_all(&sent); // it may be thrown out before the end
        figures.did("hostile messages");
        match fastrand::u8(..4) {
            0 => {
                let _ = stream.set_read_timeout(Some(Duration::from_millis(100)));
                let _ = stream.read(&mut [0; 100]);
            }
            1 if open.len() < 50 => open.push(stream), // and never says a word again
            1 => open.clear(),
            _ => {} // leaves at once
        }
    }
}

/// Asks without a pause, as a user whom no rule names.
pub(crate) fn flooder(stage: &Stage, over: &AtomicBool, figures: &Figures) {
    become_user(STRANGER);
    let scene = &stage.web.scene;
    let request = request(scene);
    let mut caller = Caller::new(&scene.socket());
    while !over.load(Ordering::Relaxed) {
        match caller.call("org.roleseal.Agent.SignCreateSession", &request) {
            Some(reply) if reply["error"].is_string() => figures.did("requests of a hostile user"),
            Some(reply) => return figures.fault(format!("a stranger was served: {reply}")),
            None => caller = Caller::new(&scene.socket()), // it made room for others
        }
    }
}

/// Takes as many connections as it gets, for itself and for its subordinate users, and says nothing on them.
pub(crate) fn squatter(stage: &Stage, over: &AtomicBool, figures: &Figures) {
    let mut held = VecDeque::new();
    for uid in (STRANGER..).flat_map(|uid| [STRANGER, STRANGER, uid]) {
        if over.load(Ordering::Relaxed) {
            return;
        }
        become_user(uid);
        if let Ok(stream) = UnixStream::connect(stage.web.scene.socket()) {
            held.push_back(stream);
            figures.did("connections of hostile users");
        }
        if held.len() > 800 {
            held.pop_front();
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// A message with some bytes changed.
fn garbage(message: &[u8]) -> Vec<u8> {
    let mut bytes = message.to_vec();
    for _ in 0..fastrand::usize(1..20) {
        let at = fastrand::usize(..bytes.len());
        bytes[at] = fastrand::u8(..);
    }
    bytes
}

/// Breaks something every second or two, and mends it.
pub(crate) fn breaker(stage: &Stage, over: &AtomicBool, figures: &Figures) {
    let pause =
        |longest: u64| std::thread::sleep(Duration::from_millis(fastrand::u64(100..longest)));
    while !over.load(Ordering::Relaxed) {
        pause(2000);
        match fastrand::u8(..8) {
            0..4 => {
                let fault = FAULTS[fastrand::usize(..FAULTS.len())];
                stage.faulty.inject(&[fault]).unwrap();
                figures.did("faults of the module");
                pause(4000);
                stage.faulty.clear().unwrap();
            }
            4 => {
                for program in token_programs(&stage.web.agent) {
                    let program = Pid::from_raw(program).unwrap();
                    let _ = kill_process(program, Signal::KILL); // it may be gone by now
                    figures.did("token programs killed");
                }
            }
            5 => {
                let mut config = stage.config.clone();
                config.identity[0].sessions = Some(fastrand::u32(1..5));
                reload(stage, &config.to_toml().unwrap());
                figures.did("reloads, with the token opened anew");
            }
            6 => {
                reload(
                    stage,
                    if fastrand::bool() {
                        "[[identity]"
                    } else {
                        "socket = 1"
                    },
                );
                figures.did("reloads of a broken configuration");
            }
            _ => {
                renew(stage);
                figures.did("new certificates");
            }
        }
    }
}

fn reload(stage: &Stage, text: &str) {
    stage.web.scene.write("agent.toml", text).unwrap();
    let agent = Pid::from_raw(stage.web.agent.process().id().cast_signed()).unwrap();
    kill_process(agent, Signal::HUP).unwrap();
}

/// Another certificate for the key of `web`, put in the place of the one before in one step.
fn renew(stage: &Stage) {
    let scene = &stage.web.scene;
    let (current, new) = (scene.path("web.pem"), scene.path("new.pem"));
    let leaf = openssl::x509::X509::from_pem(&fs::read(&current).unwrap()).unwrap();
    let spki = leaf.public_key().unwrap().public_key_to_der().unwrap();
    let leaf = scene.pki().leaf(&spki, &LeafSpec::new("web")).unwrap();
    leaf.write(&new).unwrap();
    fs::rename(new, current).unwrap();
}

/// How many signatures the agent has counted.
pub(crate) fn signatures(stage: &Stage) -> u64 {
    let identities = identities(&stage.web.scene);
    let counts = identities.iter().map(|one| one["signatures"].as_u64());
    counts.map(Option::unwrap).sum()
}

/// Everything is mended: both identities sign again by themselves, each with one token program.
pub(crate) fn recover(stage: &Stage) {
    stage.faulty.clear().unwrap();
    reload(stage, &stage.config.to_toml().unwrap());
    for identity in ["web", "batch"] {
        let request = request_for(stage, identity);
        until(&format!("{identity} signs again"), || {
            let reply = sign(&stage.web.scene.socket(), request.clone());
            if reply.get("error").is_some() {
                println!("soak: {identity} does not sign yet: {reply}");
                std::thread::sleep(Duration::from_secs(1));
            }
            reply.get("error").is_none().then_some(())
        });
    }
    until("there is one program for each token", || {
        (token_programs(&stage.web.agent).len() == 2).then_some(())
    });
}
