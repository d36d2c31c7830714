use std::collections::BTreeSet;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use hsm_fixtures::{Agent, KeyKind};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::agent::{
    Lab, Web, call, identities, log_with, request, sign, token_programs, until, venv,
};
use crate::renewal;

/// The usual agent with a port for metrics, and that port.
fn start() -> (Web, String) {
    start_lab(Lab::new(KeyKind::EcP256))
}

fn start_lab(Lab { scene, config }: Lab) -> (Web, String) {
    let text = config.to_toml().unwrap() + "[metrics]\nlisten = \"127.0.0.1:0\"\n";
    let file = scene.write("agent.toml", &text).unwrap();
    let command = scene.agent_command(&file).unwrap();
    let log = scene.path("agent.log");
    let agent = Agent::start(command, &scene.socket(), &log, || false).unwrap();
    let web = Web { agent, scene };
    let log = log_with(&web.agent, "/metrics\n");
    let (_, port) = log.split_once("metrics at http://").unwrap();
    let port = port.split_once("/metrics\n").unwrap().0.to_owned();
    (web, port)
}

/// What Prometheus's own reader makes of a scrape.
pub(crate) struct Scrape(Value);

impl Scrape {
    fn of(port: &str) -> Scrape {
        let mut stream = TcpStream::connect(port).unwrap();
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
        Scrape::read(body)
    }

    pub(crate) fn read(body: &str) -> Scrape {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scrape.py");
        let mut python = Command::new(venv("python"));
        python.env_clear().arg(script).stdin(Stdio::piped());
        let mut python = python.stdout(Stdio::piped()).spawn().unwrap();
        let mut stdin = python.stdin.take().unwrap();
        stdin.write_all(body.as_bytes()).unwrap();
        drop(stdin);
        let output = python.wait_with_output().unwrap();
        assert!(output.status.success(), "{body}");
        Scrape(serde_json::from_slice(&output.stdout).unwrap())
    }

    pub(crate) fn samples(&self) -> &[Value] {
        self.0["samples"].as_array().unwrap()
    }

    /// The value of the one sample of that name with these labels among others.
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let found: Vec<&Value> = self
            .samples()
            .iter()
            .filter(|sample| sample[0] == name)
            .filter(|sample| {
                let has = |(key, value): &(&str, &str)| sample[1][key] == *value;
                labels.iter().all(has)
            })
            .collect();
        assert!(found.len() <= 1, "{found:?}");
        found.first().map(|sample| sample[2].as_f64().unwrap())
    }

    /// These series are those of the first table below that heading of docs/metrics.md, with its types and labels.
    pub(crate) fn is_documented(&self, heading: &str) {
        let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
        let docs = fs::read_to_string(docs).unwrap();
        let (_, section) = docs.split_once(&format!("{heading}\n")).unwrap();
        let (_, table) = section
            .split_once("| series | type | labels | meaning |\n")
            .unwrap();
        let mut documented = BTreeSet::new();
        for row in table
            .lines()
            .skip(1)
            .map_while(|row| row.strip_prefix("| "))
        {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let (name, kind) = (cells[0].trim_matches('`'), cells[1]);
            let family = name.strip_suffix("_total").unwrap_or(name);
            assert_eq!(self.0["types"][family], kind, "{name}");
            let mut labels: BTreeSet<&str> =
                cells[2].split(", ").map(|l| l.trim_matches('`')).collect();
            labels.remove("");
            for sample in self.samples() {
                let full = sample[0].as_str().unwrap();
                if full == name || kind == "histogram" && full == format!("{name}_count") {
                    let keys = sample[1].as_object().unwrap().keys();
                    assert_eq!(keys.map(String::as_str).collect::<BTreeSet<_>>(), labels);
                }
            }
            documented.insert(name.to_owned());
        }
        let served: BTreeSet<String> = self
            .samples()
            .iter()
            .map(|sample| {
                let name = sample[0].as_str().unwrap();
                let of_histogram = ["_bucket", "_count", "_sum"];
                let family = of_histogram.iter().find_map(|end| name.strip_suffix(end));
                family.unwrap_or(name).to_owned()
            })
            .collect();
        assert_eq!(served, documented);
    }

    fn requests(&self, identity: &str, outcome: &str) -> Option<f64> {
        let labels = [("identity", identity), ("outcome", outcome)];
        self.value("roleseal_requests_total", &labels)
    }
}

#[test]
fn every_request_is_counted_once_while_scrapes_go_on() {
    let (web, port) = start();
    let socket = web.scene.socket();
    let good = request(&web.scene);
    let mut unknown = good.clone();
    unknown["identity"] = json!("x\"} 1\n");
    let mut forbidden = good.clone();
    let query = good["query"].as_str().unwrap();
    forbidden["query"] = query.replace("web-deploy", "batch-nightly").into();

    assert_eq!(Scrape::of(&port).requests("web", "signed"), Some(0.0));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..10 {
                        sign(&socket, good.clone());
                        sign(&socket, unknown.clone());
                        sign(&socket, forbidden.clone());
                        sign(&socket, forbidden.clone());
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            let mut last = 0.0;
            while !done.load(Ordering::Relaxed) {
                let now = Scrape::of(&port).requests("web", "signed").unwrap();
                assert!((last..=80.0).contains(&now), "{last} {now}");
                last = now;
            }
        });
        for client in clients {
            client.join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });

    let scrape = Scrape::of(&port);
    assert_eq!(scrape.requests("web", "signed"), Some(80.0));
    let listed = call(&socket, "ListIdentities", json!({}));
    let web_now = &listed["parameters"]["identities"][0];
    assert_eq!(web_now["signatures"], 80, "{web_now}");
    assert_eq!(scrape.requests("web", "NotPermitted"), Some(160.0));
    assert_eq!(scrape.requests("", "IdentityNotFound"), Some(80.0));
    let count = |name| scrape.value(name, &[]);
    assert_eq!(count("roleseal_token_seconds_count"), Some(80.0));
    assert!(count("roleseal_token_seconds_sum") > Some(0.0));
    let bucket = |le| scrape.value("roleseal_token_seconds_bucket", &[("le", le)]);
    assert_eq!(bucket("+Inf"), Some(80.0));
    assert!(bucket("0.0001") < Some(80.0)); // nothing is that fast
    assert_eq!(count("roleseal_token_queue_depth"), Some(0.0));
    assert_eq!(count("roleseal_log_lines_lost_total"), Some(0.0));
}

#[test]
fn clients_that_say_nothing_stop_no_scrape() {
    let (web, port) = start();
    let silent: Vec<TcpStream> = (0..60)
        .map(|_| TcpStream::connect(&port).unwrap())
        .collect();
    assert_eq!(Scrape::of(&port).requests("web", "signed"), Some(0.0));
    // It did not have to wait until the agent gave all of them up.
    let open = silent.iter().filter(|stream| {
        stream.set_nonblocking(true).unwrap();
        let read = (&**stream).read(&mut [0]);
        read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    });
    assert!(open.count() > 0);
    web.agent.stop().unwrap();
}

#[test]
fn renewals_are_told_as_the_renewer_left_them() {
    let (mut lab, key) = renewal::lab();
    let ca = renewal::ca(&lab.scene);
    renewal::add(&mut lab, &key, "web", &ca);
    renewal::add(&mut lab, &key, "batch", "false");
    let (web, port) = start_lab(lab);
    let value = |series: &str, identity| {
        Scrape::of(&port).value(
            &format!("roleseal_renewal_{series}"),
            &[("identity", identity)],
        )
    };
    assert_eq!(value("failures", "batch"), Some(0.0));
    let renewed = renewal::renew(&web.scene, &[]).status().unwrap();
    assert_eq!(renewed.code(), Some(1)); // one failed
    until("the failure is seen", || {
        (value("failures", "batch") == Some(1.0)).then_some(())
    });
    assert_eq!(value("failures", "web"), Some(0.0));
    let times = [
        "last_success_timestamp_seconds",
        "last_failure_timestamp_seconds",
    ];
    let known = |identity| times.map(|series| value(series, identity).is_some());
    assert_eq!(
        [known("web"), known("batch")],
        [[true, false], [false, true]]
    );
}

#[test]
fn the_state_is_that_of_the_scrape() {
    let (web, port) = start();
    let identity = &identities(&web.scene)[0]; // after its token was opened
    let scrape = Scrape::of(&port);
    let state = |scrape: &Scrape, state| {
        let labels = [("identity", "web"), ("state", state)];
        scrape.value("roleseal_identity_state", &labels).unwrap()
    };
    assert_eq!(state(&scrape, "ready"), 1.0);
    for other in ["opening", "unavailable", "pinRejected", "unusable"] {
        assert_eq!(state(&scrape, other), 0.0);
    }
    let expiry = scrape.value("roleseal_certificate_expiry_timestamp_seconds", &[]);
    let date = hsm_fixtures::command::output(
        Command::new("date")
            .args(["+%s", "-d"])
            .arg(identity["notAfter"].as_str().unwrap()),
    )
    .unwrap();
    let date: f64 = String::from_utf8(date).unwrap().trim().parse().unwrap();
    assert_eq!(expiry, Some(date));
    let started = scrape.value("process_start_time_seconds", &[]).unwrap();
    let days = scrape.value("roleseal_certificate_expiry_days", &[]);
    let since_start = (date - started) / 86_400.0;
    assert!((since_start - days.unwrap()).abs() < 0.01, "{days:?}");
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    assert_eq!(scrape.value("roleseal_build_info", &version), Some(1.0));

    let clients: Vec<UnixStream> = (0..3)
        .map(|_| UnixStream::connect(web.scene.socket()).unwrap())
        .collect();
    let connections = |count| {
        until("the connections are counted", || {
            (Scrape::of(&port).value("roleseal_connections", &[]) == Some(count)).then_some(())
        });
    };
    connections(3.0);
    drop(clients);
    connections(0.0);

    let restarts = |scrape: &Scrape| scrape.value("roleseal_token_process_restarts_total", &[]);
    assert_eq!(restarts(&scrape), Some(0.0));
    let [program] = token_programs(&web.agent)[..] else {
        panic!()
    };
    kill_process(Pid::from_raw(program).unwrap(), Signal::KILL).unwrap();
    until("the program is started again", || {
        (restarts(&Scrape::of(&port)) == Some(1.0)).then_some(())
    });
}

#[test]
fn a_reload_changes_what_is_scraped_and_no_count() {
    let (web, port) = start();
    sign(&web.scene.socket(), request(&web.scene));
    let ready = |scrape: &Scrape, identity| {
        let labels = [("identity", identity), ("state", "ready")];
        scrape.value("roleseal_identity_state", &labels)
    };
    assert_eq!(ready(&Scrape::of(&port), "web"), Some(1.0));
    let text = fs::read_to_string(web.scene.path("agent.toml")).unwrap();
    let text = text.replace("name = \"web\"", "name = \"shop\"");
    let told = web.reload_text(&text.replace("127.0.0.1:0", "127.0.0.1:1"));
    assert!(told.contains(" reloaded: 1 identities"), "{told}");
    assert!(web.agent.process().log().contains("place for metrics"));
    let scrape = Scrape::of(&port);
    assert_eq!(ready(&scrape, "web"), None);
    assert_eq!(ready(&scrape, "shop"), Some(1.0));
    assert_eq!(scrape.requests("web", "signed"), Some(1.0));
}

#[test]
fn the_series_are_those_that_are_documented() {
    let (mut lab, key) = renewal::lab();
    renewal::add(&mut lab, &key, "web", "false");
    let ca = renewal::ca(&lab.scene);
    renewal::add(&mut lab, &key, "batch", &ca);
    let (web, port) = start_lab(lab);
    let mut web_request = request(&web.scene);
    web_request["identity"] = "web".into();
    sign(&web.scene.socket(), web_request);
    renewal::renew(&web.scene, &[]).status().unwrap();
    let scrape = until("the renewals are seen", || {
        let scrape = Scrape::of(&port);
        let seen = |series: &str, identity| {
            let labels = [("identity", identity)];
            scrape.value(
                &format!("roleseal_renewal_last_{series}_timestamp_seconds"),
                &labels,
            )
        };
        (seen("failure", "web").is_some() && seen("success", "batch").is_some()).then_some(scrape)
    });
    scrape.is_documented("## roleseal-agent");
    let token = scrape
        .samples()
        .iter()
        .find_map(|sample| sample[1]["token"].as_str());
    let token = token.unwrap();
    assert!(
        token.starts_with("pkcs11:token=lab?module-path=/"),
        "{token}"
    );
    assert!(!token.contains("pin"), "{token}");
}
