//! A scene with a running agent: its socket by hand, as any Varlink client sees it, and the CLI.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use hsm_fixtures::{
    Agent, AgentConfig, KeyKind, PROFILE_ARN, REGION, Scene, SoftHsm, TRUST_ANCHOR_ARN,
    WEB_ROLE_ARN,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Gid, Pid, PidfdFlags, Resource, Rlimit, Signal, Uid, getrlimit, getuid, kill_process,
    pidfd_open, setrlimit,
};
use rustix::thread::{set_thread_res_gid, set_thread_res_uid};
use serde_json::{Value, json};
use tempfile::TempDir;

/// What all tests of one process may have open at once: some hold a thousand connections. A login shell has 1,024.
const DESCRIPTORS: u64 = 8192;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The usual scene before its start: token `lab` with the key `web`, and a configuration to change.
pub(crate) struct Lab {
    pub(crate) config: AgentConfig,
    pub(crate) scene: Scene,
}

fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    let enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= DESCRIPTORS);
    if enough(limit.current) {
        return;
    }
    if getuid().is_root() && !enough(limit.maximum) {
        limit.maximum = Some(DESCRIPTORS);
    }
    let current = limit.maximum;
    setrlimit(Resource::Nofile, Rlimit { current, ..limit }).unwrap();
}

impl Lab {
    pub(crate) fn new(kind: KeyKind) -> Lab {
        Lab::of(Scene::new().unwrap(), kind)
    }

    pub(crate) fn of(scene: Scene, kind: KeyKind) -> Lab {
        raise_descriptor_limit();
        let token = scene.add_token("lab").unwrap();
        let web = scene.add_identity(&token, "web", kind).unwrap();
        let config = scene.agent_config(vec![web]).unwrap();
        Lab { config, scene }
    }

    pub(crate) fn start(self) -> Web {
        Web {
            agent: self.scene.start_agent(&self.config).unwrap(),
            scene: self.scene,
        }
    }

    /// With pkcs11-spy between token program and SoftHSM; its log is `spy.log`.
    pub(crate) fn start_spied(mut self) -> Web {
        self.config.pkcs11_module = SoftHsm::spy_module().unwrap();
        let text = self.config.to_toml().unwrap();
        let file = self.scene.write("agent.toml", &text).unwrap();
        let mut command = self.scene.agent_command(&file).unwrap();
        command
            .env("PKCS11SPY", SoftHsm::module().unwrap())
            .env("PKCS11SPY_OUTPUT", self.scene.path("spy.log"));
        let log = self.scene.path("agent.log");
        let agent = Agent::start(command, &self.scene.socket(), &log, || false).unwrap();
        Web {
            agent,
            scene: self.scene,
        }
    }
}

/// The usual scene with its agent running.
pub(crate) struct Web {
    pub(crate) agent: Agent,
    pub(crate) scene: Scene,
}

impl Web {
    /// Writes `aws.config`, by which AWS clients get their credentials from credential_process.
    pub(crate) fn aws_config(&self) -> PathBuf {
        let arguments = self.scene.credential_process("web", WEB_ROLE_ARN);
        let roleseal = self.scene.roleseal(&arguments).unwrap();
        let words: Vec<_> = std::iter::once(roleseal.get_program())
            .chain(roleseal.get_args())
            .map(|word| word.to_str().unwrap())
            .collect();
        let text = format!("[default]\ncredential_process = {}\n", words.join(" "));
        self.scene.write("aws.config", &text).unwrap()
    }

    pub(crate) fn start() -> Web {
        Lab::new(KeyKind::EcP256).start()
    }

    /// Replaces the configuration and has the agent read it; says what its log then says of that.
    pub(crate) fn reload(&self, config: &AgentConfig) -> String {
        self.reload_text(&config.to_toml().unwrap())
    }

    pub(crate) fn reload_text(&self, text: &str) -> String {
        self.scene.write("agent.toml", text).unwrap();
        let told = || {
            let log = self.agent.process().log();
            let lines: Vec<String> = log
                .lines()
                .filter(|line| line.contains("reloaded: "))
                .map(str::to_owned)
                .collect();
            lines
        };
        let before = told().len();
        let agent = Pid::from_raw(self.agent.process().id().cast_signed()).unwrap();
        kill_process(agent, Signal::HUP).unwrap();
        until("the agent reloads", || told().get(before).cloned())
    }

    /// Waits until the identity `web` has a certificate that satisfies.
    pub(crate) fn until_serial(&self, satisfies: impl Fn(&str) -> bool) {
        until("the certificate is taken over", || {
            satisfies(&serial(&self.scene)).then_some(())
        });
    }

    pub(crate) fn credential_process(&self) -> Command {
        let arguments = self.scene.credential_process("web", WEB_ROLE_ARN);
        self.scene.roleseal(&arguments).unwrap()
    }
}

/// The serial number that the identity `web` signs with, as the agent lists it; once its token has been opened.
pub(crate) fn serial(scene: &Scene) -> String {
    until("the token of web is opened", || {
        let listed = call(&scene.socket(), "ListIdentities", json!({}));
        let identities = listed["parameters"]["identities"].as_array().unwrap();
        let web = identities.iter().find(|identity| identity["name"] == "web");
        let web = web.unwrap();
        let serial = web["serial"].as_str().unwrap_or_default();
        (web["state"] != "opening").then(|| serial.to_owned())
    })
}

/// Has `--check` look as this user, whatever user this host has for an agent.
pub(crate) fn as_this_user(check: &mut Command) -> &mut Command {
    match rustix::process::geteuid().is_root() {
        true => check.args(["--user", "root"]),
        false => check,
    }
}

/// Polls until there is a result; what it waits for is in the panic.
pub(crate) fn until<T>(what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(result) = poll() {
            return result;
        }
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The agent's log, once it has the words: it is written in a thread of its own.
pub(crate) fn log_with(agent: &Agent, words: &str) -> String {
    until(words, || {
        let log = agent.process().log();
        log.contains(words).then_some(log)
    })
}

/// Standard output as JSON of a program that succeeded.
pub(crate) fn json_of(output: &Output) -> Value {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {stderr}", output.status);
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The identities of the scene's agent, by the CLI, once none of them is being opened.
pub(crate) fn identities(scene: &Scene) -> Vec<Value> {
    let socket = scene.socket();
    // A request waits for its token: afterwards the state is settled, whatever the request became.
    let listed = call(&socket, "ListIdentities", json!({}));
    for identity in listed["parameters"]["identities"].as_array().unwrap() {
        let mut request = request(scene);
        request["identity"] = identity["name"].clone();
        sign(&socket, request);
    }
    let socket = socket.display().to_string();
    let output = scene
        .roleseal(&["identities", "--json", "--socket", &socket])
        .unwrap()
        .output()
        .unwrap();
    json_of(&output).as_array().unwrap().clone()
}

/// A request for the web role that the scene's agent signs.
pub(crate) fn request(scene: &Scene) -> Value {
    let query = [
        ("profileArn", PROFILE_ARN),
        ("roleArn", WEB_ROLE_ARN),
        ("trustAnchorArn", TRUST_ANCHOR_ARN),
    ]
    .map(|(name, arn)| format!("{name}={}", arn.replace(':', "%3A").replace('/', "%2F")));
    json!({
        "identity": "web",
        "region": REGION,
        "host": format!("localhost:{}", scene.service().port()),
        "query": query.join("&"),
        "contentType": "application/json",
        "body": "{\"durationSeconds\":900}",
    })
}

pub(crate) fn sign(socket: &Path, request: Value) -> Value {
    call(socket, "SignCreateSession", request)
}

/// One call of `org.roleseal.Agent` on a connection of its own, and its reply.
pub(crate) fn call(socket: &Path, method: &str, parameters: Value) -> Value {
    call_on(
        &mut UnixStream::connect(socket).unwrap(),
        method,
        parameters,
    )
}

/// One call on this connection, and its reply.
pub(crate) fn call_on(stream: &mut UnixStream, method: &str, parameters: Value) -> Value {
    let method = format!("org.roleseal.Agent.{method}");
    let message = json!({ "method": method, "parameters": parameters }).to_string();
    stream.write_all(format!("{message}\0").as_bytes()).unwrap();
    read_reply(stream)
}

/// A connection of another user, whom the scene's directory then lets through. Only root can make one.
pub(crate) fn connect_as(scene: &Scene, uid: u32, gid: u32) -> UnixStream {
    std::fs::set_permissions(scene.dir(), PermissionsExt::from_mode(0o711)).unwrap();
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    // The kernel has users by thread.
    let connect = || {
        set_thread_res_gid(gid, gid, gid).unwrap();
        set_thread_res_uid(uid, uid, uid).unwrap();
        UnixStream::connect(scene.socket()).unwrap()
    };
    std::thread::scope(|scope| scope.spawn(connect).join().unwrap())
}

/// Reads one reply.
pub(crate) fn read_reply(stream: &mut UnixStream) -> Value {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut reply = Vec::new();
    let mut byte = [0];
    loop {
        // One at a time: what follows is the next reply.
        stream.read_exact(&mut byte).unwrap();
        match byte {
            [0] => break,
            [byte] => reply.push(byte),
        }
    }
    serde_json::from_slice(&reply)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&reply)))
}

/// Copies a program to where it can be run. Not by this process: while a file is open for writing in one
/// that forks, it cannot be executed.
pub(crate) fn copy_program(from: impl AsRef<OsStr>, to: &Path) {
    let mut install = Command::new("install");
    install.args(["-m", "755"]).arg(from.as_ref()).arg(to);
    hsm_fixtures::command::output(&mut install).unwrap();
}

/// A program of the Python environment that `make test` prepares.
pub(crate) fn venv(program: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../target/venv/bin")
        .join(program);
    assert!(path.exists(), "no {}: run `make test`", path.display());
    path
}

/// A directory in memory, as a session's runtime directory is.
pub(crate) fn in_memory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap()
}

/// The names of the PKCS#11 calls so far, in their order.
pub(crate) fn spied_calls(scene: &Scene) -> Vec<String> {
    let log = std::fs::read_to_string(scene.path("spy.log")).unwrap_or_default();
    log.lines()
        .filter_map(|line| line.split_once(": C_"))
        .map(|(_, name)| format!("C_{name}"))
        .collect()
}

/// Kills the agent, and waits until this token program of it has seen that and is gone.
pub(crate) fn kill_and_wait_for(agent: &Agent, program: Pid) {
    let end = pidfd_open(program, PidfdFlags::empty()).unwrap();
    let agent = Pid::from_raw(agent.process().id().cast_signed()).unwrap();
    kill_process(agent, Signal::KILL).unwrap();
    let mut events = [PollFd::new(&end, PollFlags::IN)];
    let deadline = Timespec {
        tv_sec: 10,
        tv_nsec: 0,
    };
    assert_eq!(poll(&mut events, Some(&deadline)).unwrap(), 1);
}

/// The token programs that the agent has had started.
pub(crate) fn token_programs(agent: &Agent) -> Vec<i32> {
    children(launcher(agent))
        .into_iter()
        .filter(|pid| ["roleseal-pkcs11", "roleseal-tpm"].contains(&name_of(*pid).as_str()))
        .collect()
}

/// The agent's launcher, its only child.
pub(crate) fn launcher(agent: &Agent) -> i32 {
    let own = agent.process().id().cast_signed();
    let [launcher] = children(own)[..] else {
        panic!("children of the agent: {:?}", children(own))
    };
    launcher
}

fn name_of(pid: i32) -> String {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim().to_owned()
}

fn children(pid: i32) -> Vec<i32> {
    std::fs::read_dir(format!("/proc/{pid}/task"))
        .unwrap()
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok())
        .flat_map(|pids| {
            pids.split_whitespace()
                .map(|pid| pid.parse().unwrap())
                .collect::<Vec<i32>>()
        })
        .collect()
}
