//! `make soak`: the agent for ten minutes, or for as many as the first argument says, with everything that can
//! go wrong at once. Prints what came of it, and writes it to `docs/soak.md`; fails on a wrong signature, an
//! answer that is late, a signature without its line in the log, memory that grows, or an agent that does not come back.
//! Only root may run it: the hostile clients are another user's.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "how a test fails"
)]
#![allow(dead_code, reason = "the tests use the rest of these modules")]

#[path = "soak/actors.rs"]
mod actors; // clients, hostile ones, and whoever breaks things
mod agent;
mod crowd;
#[path = "soak/figures.rs"]
mod figures;
mod others; // what is counted and measured, and what of it is a failure

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hsm_fixtures::{Agent, FaultyModule, KeyKind, Scene, TpmConfig, TpmKeySpec};

use actors::Stage;
use agent::Web;
use figures::Figures;

/// Clients that behave, of the key on the PKCS#11 token and of the one in the TPM.
const CLIENTS: (usize, usize) = (16, 2);

/// Clients that do not, of the same user and of one whom no rule names.
const HOSTILE: (usize, usize) = (4, 2);

fn main() {
    let minutes = std::env::args().nth(1).map_or(10.0, |word| {
        word.parse()
            .unwrap_or_else(|_| panic!("{word:?} is no number of minutes"))
    });
    let length = Duration::from_secs_f64(60.0 * minutes);
    // The TPM outlives the agent that uses it.
    let scene = Scene::new().unwrap();
    let tpm = scene.add_tpm().unwrap();
    let stage = stage(scene, &tpm);
    others::open_to_others(&stage.web.scene);
    println!("soak: {minutes} minutes, {CLIENTS:?} clients, {HOSTILE:?} hostile ones");
    let start = Instant::now();
    let figures = run(&stage, length);
    actors::recover(&stage);
    let signatures = actors::signatures(&stage);
    let Web { agent, scene } = stage.web;
    agent.stop().unwrap();
    let log = std::fs::read(scene.path("agent.log")).unwrap();
    figures.read_log(&String::from_utf8_lossy(&log), signatures, start.elapsed());
    let report = report(&figures, minutes);
    println!("{report}");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/soak.md");
    std::fs::write(path, report).unwrap();
    figures.check();
    println!("soak: passed; docs/soak.md is written");
}

fn stage(scene: Scene, tpm: &hsm_fixtures::Swtpm) -> Stage {
    let token = scene.add_token("lab").unwrap();
    let web = scene.add_identity(&token, "web", KeyKind::EcP256).unwrap();
    let chip = TpmKeySpec::new(KeyKind::EcP256);
    let batch = scene.add_tpm_identity(tpm, "batch", &chip).unwrap();
    let faulty = FaultyModule::new(scene.dir()).unwrap();
    let mut config = scene.agent_config(vec![web, batch]).unwrap();
    config.pkcs11_module = faulty.module().to_owned();
    config.tpm = Some(TpmConfig { tcti: tpm.tcti() });
    let file = scene
        .write("agent.toml", &config.to_toml().unwrap())
        .unwrap();
    let mut command = scene.agent_command(&file).unwrap();
    command.envs(faulty.env());
    let log = scene.path("agent.log");
    let agent = Agent::start(command, &scene.socket(), &log, || false).unwrap();
    Stage {
        web: Web { agent, scene },
        faulty,
        config,
    }
}

fn run(stage: &Stage, length: Duration) -> Figures {
    let (over, figures) = (AtomicBool::new(false), Figures::default());
    std::thread::scope(|scope| {
        let (over, figures) = (&over, &figures);
        for (identity, count) in [("web", CLIENTS.0), ("batch", CLIENTS.1)] {
            for _ in 0..count {
                scope.spawn(move || actors::client(stage, identity, over, figures));
            }
        }
        for number in 0..HOSTILE.0 {
            scope.spawn(move || actors::hostile(stage, number, over, figures));
        }
        for number in 0..HOSTILE.1 {
            scope.spawn(move || actors::flooder(stage, over, figures));
            scope.spawn(move || {
                others::become_user(others::STRANGER);
                actors::hostile(stage, number, over, figures);
            });
        }
        scope.spawn(move || actors::squatter(stage, over, figures));
        scope.spawn(move || actors::breaker(stage, over, figures));
        let start = Instant::now();
        let mut told = Instant::now();
        while start.elapsed() < length && !figures.failed() {
            figures.measure(&stage.web.agent);
            if told.elapsed() > Duration::from_secs(30) {
                println!("soak: {:?}: {}", start.elapsed(), figures.line());
                told = Instant::now();
            }
            std::thread::sleep(Duration::from_secs(1));
        }
        over.store(true, Ordering::Relaxed);
    });
    figures
}

fn report(figures: &Figures, minutes: f64) -> String {
    let mut text = format!(
        "# Ten minutes of everything at once\n\n\
         Written by `make soak`, the last time for {minutes} minutes: {} clients of a key on SoftHSM behind a module \
         that misbehaves, {} of a key in swtpm, {} hostile clients; beside them another user, whom no rule names: floods of \
         requests, hostile messages, and as many connections as it and its subordinate users get; meanwhile faults of the module, killed \
         token programs, reloads and new certificates at random. Every signature is checked by the local service, and has \
         its line in the log.\n\n\
         | what | figure |\n| --- | --- |\n",
        CLIENTS.0, CLIENTS.1, HOSTILE.0
    );
    for (name, value) in figures.rows() {
        let _ = writeln!(text, "| {name} | {value} |");
    }
    text
}
