mod connections;

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hsm_fixtures::{KeyKind, LimitsConfig, Scene, WEB_ROLE_ARN};
use serde_json::{Value, json};

use crate::agent::{
    Lab, Web, call, call_on, connect_as, json_of, launcher, read_reply, request, sign, until,
};
use crate::audit::start_with_fifo;
use crate::others::{Caller, STRANGER, become_user, error_of, flood, open_to_others};
use crate::policy::{NOBODY, as_nobody};

/// Whom only a group names, by the user database: its process has another one.
const MEMBER: u32 = 1;
const GROUP: &str = "daemon";
const ANOTHER_GROUP: u32 = 4_000_002;

/// Users whom a rule names, and who take what they get.
const HOGS: [u32; 2] = [4_000_010, 4_000_011];

/// Whoever has subordinate uids has more.
const SUBORDINATE: std::ops::Range<u32> = 5_000_000..5_001_000;

/// What a capped journal keeps, in bytes: the newest.
const CAP: usize = 256 * 1024;

/// What reads the log to its end: a journal that keeps the newest lines.
pub(crate) struct Journal(JoinHandle<Kept>);

#[derive(Default)]
pub(crate) struct Kept {
    lines: VecDeque<String>,
    bytes: usize,
    /// All lines about refusals of a user, and the refusals that they tell of.
    refusals: BTreeMap<u64, (u64, u64)>,
}

impl Journal {
    fn of(reader: File) -> Journal {
        Journal(std::thread::spawn(|| {
            let mut kept = Kept::default();
            for line in BufReader::new(reader).lines() {
                kept.take(line.unwrap());
            }
            kept
        }))
    }

    /// All lines, once the agent has ended.
    pub(crate) fn end(self, web: Web) -> (Kept, Scene) {
        web.agent.stop().unwrap();
        (self.0.join().unwrap(), web.scene)
    }
}

impl Kept {
    fn take(&mut self, line: String) {
        let read: Value = serde_json::from_str(&line).unwrap();
        let refused = match (read["event"].as_str().unwrap(), read["decision"].as_str()) {
            ("decision", Some("refused")) => Some(1),
            ("connection_refused", _) => Some(1),
            ("repeated", _) => read["refused"].as_u64(),
            _ => None,
        };
        if let Some(refused) = refused {
            let uid = read["uid"].as_u64().unwrap_or(u64::MAX); // several users
            let (lines, refusals) = self.refusals.entry(uid).or_default();
            *lines += 1;
            *refusals += refused;
        }
        self.bytes += line.len() + 1;
        self.lines.push_back(line);
        while self.bytes > CAP {
            self.bytes -= self.lines.pop_front().unwrap().len() + 1;
        }
    }

    /// Lines that are still there about what was signed for a user.
    fn signed(&self, uid: u32) -> usize {
        let lines = self.lines.iter();
        let lines = lines.map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines
            .filter(|line| line["decision"] == "signed" && line["uid"] == uid)
            .count()
    }

    fn lines_of(&self, uid: u32) -> u64 {
        self.refusals
            .get(&uid.into())
            .map_or(0, |(lines, _)| *lines)
    }
}

/// An agent with metrics that serves this user and `nobody`, and the hogs.
fn start(limits: Option<LimitsConfig>) -> (Web, Journal) {
    let mut lab = Lab::new(KeyKind::EcP256);
    lab.config.limits = limits;
    let users = &mut lab.config.identity[0].allow[0].users;
    users.push(NOBODY);
    users.extend(HOGS);
    start_with(lab, "")
}

/// An agent with metrics that serves the members of a group, too.
fn start_with_group() -> (Web, Journal) {
    let rule = format!("[[identity.allow]]\ngroups = [{GROUP:?}]\n");
    start_with(Lab::new(KeyKind::EcP256), &rule)
}

pub(crate) fn start_with(lab: Lab, rules: &str) -> (Web, Journal) {
    let metrics = lab.scene.path("metrics.sock").display().to_string();
    let more = format!("{rules}[metrics]\nsocket = {metrics:?}\n");
    let (web, reader) = start_with_fifo(lab, &more, &["--log-format", "json"]);
    open_to_others(&web.scene);
    (web, Journal::of(reader))
}

/// So many connections of a user without a rule, with these bytes sent on each.
pub(crate) fn strangers(web: &Web, count: usize, bytes: &[u8]) -> Vec<UnixStream> {
    let connect = |_| {
        let mut stream = connect_as(&web.scene, STRANGER, STRANGER);
        stream.write_all(bytes).unwrap();
        stream
    };
    (0..count).map(connect).collect()
}

fn signed_for_member(web: &Web) {
    let mut connection = connect_as(&web.scene, MEMBER, ANOTHER_GROUP);
    let reply = call_on(&mut connection, "SignCreateSession", request(&web.scene));
    assert_eq!(error_of(&reply), "");
}

/// The value of each series, by its name and labels.
pub(crate) fn scrape(scene: &Scene) -> BTreeMap<String, u64> {
    let mut stream = UnixStream::connect(scene.path("metrics.sock")).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let samples = answer.lines().filter_map(|line| line.rsplit_once(' '));
    samples
        .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
        .collect()
}

/// Requests of all kinds of outcome but one.
fn refused_in(metrics: &BTreeMap<String, u64>) -> u64 {
    let requests = metrics.iter().filter(|(name, _)| {
        name.starts_with("roleseal_requests_total{") && !name.contains("outcome=\"signed\"")
    });
    requests.map(|(_, count)| count).sum()
}

/// What one user may have written since: eight lines at once, and two a second.
fn few_lines(since: Instant) -> u64 {
    8 + 2 * (since.elapsed().as_secs() + 2)
}

/// The CLI as `nobody`, whom a rule names.
fn credentials(web: &Web) -> Value {
    let arguments = web.scene.credential_process("web", WEB_ROLE_ARN);
    json_of(&as_nobody(web, &arguments))
}

#[test]
fn a_flood_of_refusals_takes_a_few_lines_and_no_signature_from_the_log() {
    if as_root::by_sudo!() {
        return;
    }
    const REQUESTS: usize = 2000;
    const SIGNED: usize = 20;
    let (web, journal) = start(None);
    let (socket, request) = (web.scene.socket(), request(&web.scene));
    credentials(&web);
    let since = Instant::now();
    let answers: Vec<BTreeMap<String, u64>> = std::thread::scope(|scope| {
        let flood = || flood(&socket, STRANGER, &request, REQUESTS);
        let floods = [scope.spawn(flood), scope.spawn(flood)];
        for _ in 1..SIGNED {
            credentials(&web);
        }
        floods.map(|flood| flood.join().unwrap()).into()
    });
    let metrics = scrape(&web.scene);
    let (kept, _scene) = journal.end(web);
    let few = few_lines(since);

    // Each was refused, and counted once.
    let all: u64 = answers.iter().flat_map(BTreeMap::values).sum();
    assert_eq!(all, 2 * REQUESTS as u64);
    assert!(answers.iter().all(|answers| !answers.contains_key("")));
    assert_eq!(refused_in(&metrics), all);
    let (lines, refusals) = kept.refusals[&STRANGER.into()];
    assert_eq!(refusals, all);
    assert!(lines <= few, "{lines} lines, {few} at most");
    assert_eq!(kept.signed(NOBODY), SIGNED);
}

/// What a client may do to be refused: other identities, malformed messages, connections, introspection.
fn misbehave(socket: &Path, uid: u32, request: &Value) {
    become_user(uid);
    let mut caller = Caller::new(socket);
    let mut other = request.clone();
    for number in 0..200 {
        other["identity"] = format!("none-{number}").into();
        let method = [
            "org.roleseal.Agent.SignCreateSession",
            "org.roleseal.Agent.GetCertificate",
            "org.varlink.service.GetInfo",
            "org.roleseal.Agent.None",
        ][number % 4];
        for message in [
            json!({ "method": method, "parameters": other }).to_string(),
            "[]".to_owned(),
        ] {
            let message = format!("{message}\0");
            if caller.send(message.as_bytes()).is_none() {
                caller = Caller::new(socket);
            }
        }
    }
    let crowd: Vec<UnixStream> = (0..200)
        .map(|_| UnixStream::connect(socket).unwrap())
        .collect();
    for number in 0..200 {
        other["identity"] = format!("none-{number}").into();
        let _ = caller.call("org.roleseal.Agent.SignCreateSession", &other);
    }
    drop(crowd);
}

#[test]
fn one_user_writes_a_few_lines_whatever_it_does() {
    if as_root::by_sudo!() {
        return;
    }
    let (web, journal) = start(Some(LimitsConfig {
        connections_per_user: Some(16),
        ..LimitsConfig::default()
    }));
    let (socket, request) = (web.scene.socket(), request(&web.scene));
    let since = Instant::now();
    std::thread::scope(|scope| {
        for uid in [STRANGER, HOGS[0]] {
            let (socket, request) = (&socket, &request);
            scope.spawn(move || misbehave(socket, uid, request));
        }
    });
    // A crowd of users has few lines together.
    let mut crowd = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for uid in SUBORDINATE {
                become_user(uid);
                crowd += u64::from(
                    Caller::new(&socket)
                        .call("org.roleseal.Agent.SignCreateSession", &request)
                        .is_some(),
                );
            }
        });
    });
    assert_eq!(crowd, u64::from(SUBORDINATE.end - SUBORDINATE.start));
    let (kept, _scene) = journal.end(web);
    let few = few_lines(since);
    for uid in [STRANGER, HOGS[0]] {
        let lines = kept.lines_of(uid);
        assert!((1..=few).contains(&lines), "{uid}: {lines}, {few} at most");
    }
    let lines: u64 = kept.refusals.values().map(|(lines, _)| *lines).sum();
    // Beside the one above: eight users, and all the others together.
    assert!(lines <= 11 * few, "{lines}");
}

#[test]
fn callers_whom_no_rule_names_have_a_low_rate_for_calls_of_any_kind() {
    if as_root::by_sudo!() {
        return;
    }
    let (web, journal) = start(Some(LimitsConfig {
        requests_per_second_unnamed: Some(3),
        ..LimitsConfig::default()
    }));
    let socket = web.scene.socket();
    let busy = |uid, method: &'static str| {
        let socket = &socket;
        std::thread::scope(|scope| {
            let calls = move || {
                become_user(uid);
                let mut caller = Caller::new(socket);
                let calls = (0..50).map(|_| caller.call(method, &json!({})).unwrap());
                calls.filter(|reply| error_of(reply) == "Busy").count()
            };
            scope.spawn(calls).join().unwrap()
        })
    };
    for (uid, method) in [
        "org.varlink.service.GetInfo",
        "org.roleseal.Agent.ListIdentities",
        "org.roleseal.Agent.GetCertificate",
        "org.roleseal.Agent.None",
    ]
    .into_iter()
    .enumerate()
    {
        let uid = STRANGER + 100 + u32::try_from(uid).unwrap();
        let many = busy(uid, method);
        assert!((20..=47).contains(&many), "{method}: {many}");
        assert_eq!(busy(NOBODY, method), 0, "{method}");
        assert_eq!(busy(0, method), 0, "{method}");
    }
    // After a reload whoever is named now is served, on the same connection.
    let request = request(&web.scene);
    std::thread::scope(|scope| {
        let client = || {
            become_user(STRANGER);
            let mut caller = Caller::new(&socket);
            let method = "org.roleseal.Agent.SignCreateSession";
            let first = caller.call(method, &request).unwrap();
            assert_eq!(error_of(&first), "NotPermitted");
            become_user(0);
            let text = std::fs::read_to_string(web.scene.path("agent.toml")).unwrap();
            let named = text.replace("65534", &format!("65534, {STRANGER}"));
            let reload = |text| {
                web.scene.write("agent.toml", text).unwrap();
                let agent = rustix::process::Pid::from_raw(web.agent.process().id().cast_signed());
                let signal = rustix::process::Signal::HUP;
                rustix::process::kill_process(agent.unwrap(), signal).unwrap();
            };
            reload(&named);
            until("the user is named", || {
                error_of(&caller.call(method, &request)?)
                    .is_empty()
                    .then_some(())
            });
            for _ in 0..20 {
                assert_eq!(error_of(&caller.call(method, &request).unwrap()), "");
            }
            // And whoever is not named any more has the low rate again.
            reload(&text);
            until("the user is not named", || {
                let reply = caller.call(method, &request)?;
                (!error_of(&reply).is_empty()).then_some(())
            });
            let calls = (0..50).map(|_| error_of(&caller.call(method, &request).unwrap()));
            assert!(calls.filter(|error| error == "Busy").count() >= 20);
        };
        scope.spawn(client).join().unwrap();
    });
    journal.end(web);
}

/// As many connections as each gets, and no word on any of them.
fn take_connections(socket: &Path) -> Vec<UnixStream> {
    let mut connections = Vec::new();
    let mut connect = |uid, count| {
        become_user(uid);
        connections.extend((0..count).map(|_| UnixStream::connect(socket).unwrap()));
    };
    for uid in HOGS.into_iter().chain([STRANGER, STRANGER + 1]) {
        connect(uid, 600);
    }
    for uid in SUBORDINATE {
        connect(uid, 1);
    }
    connections
}

/// Both at once, without a pause.
fn attack(web: &Web, over: &AtomicBool) {
    let (socket, request) = (&web.scene.socket(), &request(&web.scene));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                become_user(STRANGER);
                let mut caller = Caller::new(socket);
                while !over.load(Ordering::Relaxed) {
                    let method = "org.roleseal.Agent.SignCreateSession";
                    if caller.call(method, request).is_none() {
                        caller = Caller::new(socket); // it made room for others
                    }
                }
            });
        }
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                drop(take_connections(socket));
            }
        });
    });
}

/// Ends an attack, also where its test fails.
struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn under_flood_and_connections_an_honest_user_is_served_100_times_of_100() {
    if as_root::by_sudo!() {
        return;
    }
    const RUNS: usize = 100;
    let (web, journal) = start(None);
    let median = || {
        let mut took: Vec<Duration> = (0..RUNS)
            .map(|_| {
                let start = Instant::now();
                credentials(&web);
                start.elapsed()
            })
            .collect();
        took.sort_unstable();
        took[RUNS / 2]
    };
    let idle = median();
    let over = AtomicBool::new(false);
    let since = Instant::now();
    let attacked = std::thread::scope(|scope| {
        let _over = SetAtEnd(&over);
        scope.spawn(|| attack(&web, &over));
        until("the flood is there", || {
            (refused_in(&scrape(&web.scene)) > 100).then_some(())
        });
        median()
    });
    eprintln!("credential-process, median: {idle:?} idle, {attacked:?} under attack");
    let metrics = scrape(&web.scene);
    let (kept, _scene) = journal.end(web);
    assert_eq!(metrics["roleseal_log_lines_lost_total"], 0);
    assert_eq!(kept.signed(NOBODY), 2 * RUNS);
    assert!(kept.lines_of(STRANGER) <= few_lines(since));
}
