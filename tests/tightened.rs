mod groups;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use hsm_fixtures::{Agent, AgentConfig, BATCH_ROLE_ARN, KeyKind, Process, Scene, WEB_ROLE_ARN};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::agent::{Lab, Web, call, in_memory, json_of, log_with, request, sign, until};
use crate::clock::{Clock, serve};
use crate::http::Http;
use crate::serving::{Serving, key_of, write_targets};

/// More than the minute within which groups are asked anew, and the agent about sessions at hand.
const LATER: i64 = 61;

/// A scene with a port for metrics, and whose runs of `roleseal` keep their sessions.
struct Keeping {
    web: Web,
    config: AgentConfig,
    runtime: TempDir,
}

const METRICS: &str = "[metrics]\nlisten = \"127.0.0.1:0\"\n";

impl Keeping {
    fn start() -> Keeping {
        let Lab { scene, config } = Lab::new(KeyKind::EcP256);
        let text = config.to_toml().unwrap() + METRICS;
        let file = scene.write("agent.toml", &text).unwrap();
        let (command, log) = (scene.agent_command(&file).unwrap(), scene.path("agent.log"));
        let agent = Agent::start(command, &scene.socket(), &log, || false).unwrap();
        Keeping {
            web: Web { agent, scene },
            config,
            runtime: in_memory(),
        }
    }

    fn run(&self) -> Output {
        self.command().output().unwrap()
    }

    fn command(&self) -> Command {
        run_in(&self.web.scene, &self.runtime)
    }

    /// Has the agent permit no other role than that one.
    fn permit(&self, role: &str) {
        permit(&self.web, &self.config, role);
    }

    /// How many requests were decided so.
    fn decided(&self, outcome: &str) -> u64 {
        decided(&self.web, outcome)
    }
}

fn run_in(scene: &Scene, runtime: &TempDir) -> Command {
    let arguments = scene.credential_process("web", WEB_ROLE_ARN);
    let mut command = scene.roleseal(&arguments).unwrap();
    command.env("XDG_RUNTIME_DIR", runtime.path());
    command
}

fn permit(web: &Web, config: &AgentConfig, role: &str) {
    let mut config = config.clone();
    config.identity[0].allow[0].roles = vec![role.to_owned()];
    let said = web.reload_text(&(config.to_toml().unwrap() + METRICS));
    assert!(said.contains("1 identities"), "{said}");
}

fn decided(web: &Web, outcome: &str) -> u64 {
    let log = log_with(&web.agent, "/metrics\n");
    let (_, address) = log.split_once("metrics at http://").unwrap();
    let address = address.split_once("/metrics\n").unwrap().0;
    let text = Http::tcp(address.parse().unwrap())
        .get("/metrics", &[])
        .body;
    let label = format!("outcome=\"{outcome}\"");
    let counts = text
        .lines()
        .filter(|line| line.starts_with("roleseal_requests_total") && line.contains(&label))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap());
    counts.sum()
}

fn entries(runtime: &TempDir) -> Vec<PathBuf> {
    fs::read_dir(runtime.path().join("roleseal"))
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "json"))
        .collect()
}

/// Has the agent been asked about the one session that is kept more than a minute ago.
fn age(runtime: &TempDir) {
    let [entry] = &entries(runtime)[..] else {
        panic!()
    };
    let then = SystemTime::now() - Duration::from_secs(LATER.unsigned_abs());
    File::open(entry).unwrap().set_modified(then).unwrap();
}

fn access_key(output: &Output) -> String {
    json_of(output)["AccessKeyId"].as_str().unwrap().to_owned()
}

#[test]
fn the_agent_is_asked_once_a_minute_about_a_session_that_is_kept() {
    let keeping = Keeping::start();
    let first = access_key(&keeping.run());
    for _ in 0..5 {
        assert_eq!(access_key(&keeping.run()), first);
    }
    assert_eq!(
        (keeping.decided("permitted"), keeping.decided("signed")),
        (0, 1)
    );
    age(&keeping.runtime);
    let running: Vec<_> = (0..20)
        .map(|_| {
            let mut command = keeping.command();
            command
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for child in running {
        assert_eq!(access_key(&child.wait_with_output().unwrap()), first);
    }
    assert_eq!(
        (keeping.decided("permitted"), keeping.decided("signed")),
        (1, 1)
    );
    // It is no signature, and no line of the log.
    let listed = call(&keeping.web.scene.socket(), "ListIdentities", json!({}));
    assert_eq!(listed["parameters"]["identities"][0]["signatures"], 1);
    let log = keeping.web.agent.process().log();
    assert_eq!(log.matches("identity=web uid=").count(), 1, "{log}");
}

#[test]
fn a_session_that_is_kept_is_dropped_when_the_agent_refuses_it() {
    let keeping = Keeping::start();
    let first = access_key(&keeping.run());
    keeping.permit(BATCH_ROLE_ARN);
    assert_eq!(access_key(&keeping.run()), first); // within the minute
    age(&keeping.runtime);
    let output = keeping.run();
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    assert_eq!(output.stdout, b"");
    assert!(entries(&keeping.runtime).is_empty());
    assert_eq!(keeping.web.scene.service().sessions_created(), 1);
    keeping.permit("*");
    assert_ne!(access_key(&keeping.run()), first);
    assert_eq!(keeping.web.scene.service().sessions_created(), 2);
}

/// An agent of another version, or of another program: it answers as `answer` says, and the calls are kept.
struct FakeAgent(Arc<Mutex<Vec<String>>>);

impl FakeAgent {
    fn start(scene: &Scene, answer: impl Fn(&str) -> Option<Value> + Send + 'static) -> FakeAgent {
        let _ = fs::remove_file(scene.socket());
        let listener = UnixListener::bind(scene.socket()).unwrap();
        let calls: Arc<Mutex<Vec<String>>> = Arc::default();
        let heard = Arc::clone(&calls);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut message = Vec::new();
                let mut byte = [0];
                while stream.read_exact(&mut byte).is_ok() && byte != [0] {
                    message.extend(byte);
                }
                let call: Value = serde_json::from_slice(&message).unwrap();
                let method = call["method"].as_str().unwrap().rsplit('.').next().unwrap();
                heard.lock().unwrap().push(method.to_owned());
                match answer(method) {
                    Some(reply) => _ = stream.write_all(format!("{reply}\0").as_bytes()),
                    None => std::mem::forget(stream), // silence
                }
            }
        });
        FakeAgent(calls)
    }

    fn heard(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// An agent that is absent, silent, busy, too old for the question or talks nonsense leaves a session as it is; one that
/// says no does not.
#[test]
fn only_an_agent_that_refuses_ends_a_session_that_is_kept() {
    let Keeping { web, runtime, .. } = Keeping::start();
    let first = access_key(&run_in(&web.scene, &runtime).output().unwrap());
    let listed = call(&web.scene.socket(), "ListIdentities", json!({}));
    let Web { agent, scene } = web;
    agent.stop().unwrap();
    let run = || {
        age(&runtime);
        run_in(&scene, &runtime).output().unwrap()
    };
    assert_eq!(access_key(&run()), first); // absent
    let error =
        |name: &str, parameters: Value| Some(json!({ "error": name, "parameters": parameters }));
    let why = json!({ "message": "why" });
    let old = json!({ "method": "org.roleseal.Agent.MayCreateSession" });
    let good = [
        None,
        error("org.varlink.service.MethodNotFound", old),
        error("org.roleseal.Agent.Busy", why.clone()),
        error("org.roleseal.Agent.NotConfigured", why.clone()),
        error("org.roleseal.Agent.OfTheFuture", json!({})),
        Some(json!([])),
        Some(json!({ "parameters": { "later": "versions" } })),
    ];
    for answer in good {
        let (may, listed) = (answer.clone(), listed.clone());
        let fake = FakeAgent::start(&scene, move |method| match method {
            "MayCreateSession" => may.clone(),
            _ => Some(listed.clone()),
        });
        assert_eq!(access_key(&run()), first, "{answer:?}");
        assert_eq!(fake.heard(), ["MayCreateSession", "ListIdentities"]);
        let again = run_in(&scene, &runtime).output().unwrap();
        assert_eq!(access_key(&again), first, "{answer:?}");
        assert_eq!(fake.heard(), ["ListIdentities"], "{answer:?}"); // whatever it said
    }
    let [entry] = &entries(&runtime)[..] else {
        panic!()
    };
    let kept = fs::read(entry).unwrap();
    let rule = json!({ "rule": "duration", "message": "why" });
    for (name, parameters) in [
        ("NotPermitted", rule),
        (
            "IdentityNotFound",
            json!({ "identity": "web", "message": "why" }),
        ),
        (
            "IdentityAmbiguous",
            json!({ "identities": ["a", "b"], "message": "why" }),
        ),
        (
            "RequestRefused",
            json!({ "fault": "host", "message": "why" }),
        ),
    ] {
        fs::write(entry, &kept).unwrap();
        fs::set_permissions(entry, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let refusal = error(&format!("org.roleseal.Agent.{name}"), parameters);
        let fake = FakeAgent::start(&scene, move |_| refusal.clone());
        let output = run();
        assert_eq!(output.status.code(), Some(4), "{name} {output:?}");
        assert_eq!(output.stdout, b"");
        assert!(!entry.exists(), "{name}");
        assert_eq!(fake.heard(), ["MayCreateSession", "SignCreateSession"]);
    }
}

/// A `serve` with a wall clock of its own, and the agent's configuration.
fn serving() -> (Serving, Clock, AgentConfig) {
    let Keeping { web, config, .. } = Keeping::start();
    let clock = Clock::new(&web.scene, 0);
    let serving = serve(web, &clock);
    (serving, clock, config)
}

#[test]
fn serve_hands_out_what_the_agent_permits() {
    let (serving, clock, config) = serving();
    let token = serving.token();
    let get = || {
        let mut http = serving.http();
        http.get("/credentials/web", &[("Authorization", &token)])
    };
    let first = key_of(&get());
    // Many clients, a minute later: one question.
    clock.set(LATER);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..16).map(|_| scope.spawn(|| key_of(&get()))).collect();
        for client in clients {
            assert_eq!(client.join().unwrap(), first);
        }
    });
    assert_eq!(decided(&serving.web, "permitted"), 1);
    permit(&serving.web, &config, BATCH_ROLE_ARN);
    assert_eq!(key_of(&get()), first); // within the minute
    clock.set(2 * LATER);
    let refused = get();
    assert_eq!(refused.status, 503, "{refused:?}");
    assert_eq!(serving.state(), "failing");
    assert_eq!(get().status, 503);
    assert_eq!(serving.service().sessions_created(), 1);
    permit(&serving.web, &config, "*");
    let second = until("it is permitted again", || {
        let answer = get();
        (answer.status == 200).then(|| key_of(&answer))
    });
    assert_ne!(second, first);
}

#[test]
fn serve_goes_on_while_the_agent_is_silent_or_gone() {
    let (serving, clock, _) = serving();
    let token = serving.token();
    let get = || {
        let mut http = serving.http();
        key_of(&http.get("/credentials/web", &[("Authorization", &token)]))
    };
    let first = get();
    let agent = Pid::from_raw(serving.web.agent.process().id().cast_signed()).unwrap();
    kill_process(agent, Signal::STOP).unwrap();
    clock.set(LATER);
    assert_eq!(get(), first);
    kill_process(agent, Signal::CONT).unwrap();
    let Serving { process, web } = serving;
    let Web { agent, scene } = web;
    agent.stop().unwrap();
    clock.set(2 * LATER);
    let log = process.log();
    let (_, address) = log.split_once("http://").unwrap();
    let mut http = Http::tcp(address.split_once('/').unwrap().0.parse().unwrap());
    let answer = http.get("/credentials/web", &[("Authorization", &token)]);
    assert_eq!(key_of(&answer), first);
    drop((process, scene));
}

/// The command asks, and the clock is its own.
#[test]
fn exec_hands_out_what_the_agent_permits() {
    let Keeping { web, config, .. } = Keeping::start();
    let clock = Clock::new(&web.scene, 0);
    let (go, went) = (web.scene.path("go"), web.scene.path("went"));
    let script = format!(
        "ask() {{ curl -s -o /dev/null -w '%{{http_code}}\\n' -H \"Authorization: $AWS_CONTAINER_AUTHORIZATION_TOKEN\" \
         $AWS_CONTAINER_CREDENTIALS_FULL_URI; }}; ask; touch {}; until test -e {}; do sleep 0.05; done; ask",
        went.display(),
        go.display()
    );
    let targets = write_targets(&web.scene);
    let mut exec = web.scene.roleseal(&["exec", "--target=web"]).unwrap();
    exec.arg("--targets").arg(targets);
    exec.args(["--", "env", "-u", "LD_PRELOAD", "sh", "-c", &script]);
    let output = std::thread::scope(|scope| {
        let running = scope.spawn(|| clock.of(exec).output().unwrap());
        until("it has asked", || went.exists().then_some(()));
        permit(&web, &config, BATCH_ROLE_ARN);
        clock.set(LATER);
        fs::write(&go, "").unwrap();
        running.join().unwrap()
    });
    assert_eq!(output.stdout, b"200\n503\n", "{output:?}");
    assert!(!output.stderr.is_empty()); // it says why
}

/// What is in a file is handed out all the time.
#[test]
fn update_withdraws_what_the_agent_does_not_permit() {
    let Keeping { web, config, .. } = Keeping::start();
    let clock = Clock::new(&web.scene, 0);
    let targets = write_targets(&web.scene);
    let file = web.scene.path("credentials");
    let update = |more: &[&str]| {
        let line = [&["update", "--target=web"], more].concat();
        let mut update = web.scene.roleseal(&line).unwrap();
        update.arg("--targets").arg(&targets);
        update.arg("--credentials-file").arg(&file);
        clock.of(update)
    };
    let log = web.scene.path("update.log");
    let start = || Process::spawn(update(&[]), &log).unwrap();
    let process = start();
    let has_key = || {
        let text = fs::read_to_string(&file).unwrap_or_default();
        text.contains("aws_access_key_id = ASIA")
    };
    until("the profile is written", || has_key().then_some(()));
    permit(&web, &config, BATCH_ROLE_ARN);
    clock.set(LATER);
    until("the profile has no credentials", || {
        (!has_key()).then_some(())
    });
    permit(&web, &config, "*");
    until("the profile is written again", || has_key().then_some(()));
    assert!(process.stop().unwrap().success());

    // So does one that has not written them itself.
    permit(&web, &config, BATCH_ROLE_ARN);
    let process = start();
    until("the profile has no credentials", || {
        (!has_key()).then_some(())
    });
    process.stop().unwrap();
    permit(&web, &config, "*");
    assert!(update(&["--once"]).status().unwrap().success());
    assert!(has_key());
    permit(&web, &config, BATCH_ROLE_ARN);
    assert!(!update(&["--once", "--force"]).status().unwrap().success());
    assert!(!has_key());
}

/// The same judgement as of a request to sign, and no signature.
#[test]
fn what_may_be_signed_is_what_is_signed() {
    let web = Web::start();
    let good = request(&web.scene);
    let may = |request: Value| call(&web.scene.socket(), "MayCreateSession", request);
    assert_eq!(may(good.clone()), json!({ "parameters": {} }));
    for (member, value) in [
        ("identity", json!("absent")),
        ("body", json!("{\"durationSeconds\":7200}")),
        ("body", json!("{")),
        ("host", json!("example.com")),
        ("query", json!("x")),
        ("region", json!(7)),
    ] {
        let mut request = good.clone();
        request[member] = value;
        let signed = sign(&web.scene.socket(), request.clone());
        assert!(signed["error"].is_string());
        assert_eq!(may(request), signed);
    }
}
