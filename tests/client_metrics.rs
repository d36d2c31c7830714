use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;

use hsm_fixtures::{Fault, KeyKind, Process, Scene};
use rustix::process::{Pid, Signal, kill_process};

use crate::agent::{Lab, Web, until};
use crate::http::Http;
use crate::kubernetes::issuer::Issuer;
use crate::kubernetes::{self, Pods, RULES, TEMPLATE, bad_tokens, in_file};
use crate::metrics::Scrape;
use crate::serving::{Serving, key_of, short_sessions};
use crate::update::stage::Stage;

const ANY_PORT: &str = "--metrics=127.0.0.1:0";

/// Longer than a test.
const LONG: u32 = 900;

const OUTCOMES: [&str; 6] = [
    "granted",
    "denied",
    "refused",
    "throttled",
    "unavailable",
    "local",
];

/// Where the program serves metrics.
fn address(process: &Process) -> SocketAddr {
    until("it says where metrics are", || {
        assert!(process.is_running(), "{}", process.log());
        let log = process.log();
        let (_, rest) = log.split_once("metrics at http://")?;
        let (address, _) = rest.split_once("/metrics\n")?;
        Some(address.parse().unwrap())
    })
}

fn scrape(address: SocketAddr) -> Scrape {
    let answer = Http::tcp(address).get("/metrics", &[]);
    assert_eq!(answer.status, 200, "{answer:?}");
    Scrape::read(&answer.body)
}

/// The first scrape that satisfies the condition.
fn scrape_until(address: SocketAddr, what: &str, satisfies: impl Fn(&Scrape) -> bool) -> Scrape {
    until(what, || {
        Some(scrape(address)).filter(|scrape| satisfies(scrape))
    })
}

fn tries(scrape: &Scrape, target: &str) -> BTreeMap<&'static str, f64> {
    let value = |outcome| {
        let labels = [("target", target), ("outcome", outcome)];
        let count = scrape.value("roleseal_session_tries_total", &labels);
        (outcome, count.unwrap())
    };
    OUTCOMES.map(value).into()
}

/// One of the outcome, and none of the others.
fn only(outcome: &'static str, count: f64) -> BTreeMap<&'static str, f64> {
    let mut tries: BTreeMap<_, _> = OUTCOMES.map(|outcome| (outcome, 0.0)).into();
    tries.insert(outcome, count);
    tries
}

fn of_target(scrape: &Scrape, series: &str, target: &str) -> Option<f64> {
    scrape.value(&format!("roleseal_{series}"), &[("target", target)])
}

fn is_valid(scrape: &Scrape, target: &str) -> bool {
    of_target(scrape, "session_valid", target) == Some(1.0)
}

fn now() -> f64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64()
}

#[test]
fn tries_and_answers_are_counted_by_target() {
    let more = ["--target=second", "--no-cache", ANY_PORT];
    let serving = Serving::start(Web::start(), &more);
    let address = address(&serving.process);
    let both = |scrape: &Scrape| is_valid(scrape, "web") && is_valid(scrape, "second");
    scrape_until(address, "both have sessions", both);
    let token = serving.token();
    let authorization = [("Authorization", token.as_str())];
    for _ in 0..5 {
        key_of(&serving.http().get("/credentials/web", &authorization));
    }
    for path in ["/credentials/web", "/credentials/second"] {
        let wrong = [("Authorization", "wrong")];
        assert_eq!(serving.http().get(path, &wrong).status, 401);
    }
    let scrape = scrape(address);
    for target in ["web", "second"] {
        assert_eq!(tries(&scrape, target), only("granted", 1.0));
        assert_eq!(
            of_target(&scrape, "session_failed_tries", target),
            Some(0.0)
        );
    }
    let served = |target| of_target(&scrape, "credentials_served_total", target);
    assert_eq!([served("web"), served("second")], [Some(5.0), Some(0.0)]);
    let times = ["expiry", "next_try"];
    let [expiry, next] =
        times.map(|time| of_target(&scrape, &format!("session_{time}_timestamp_seconds"), "web"));
    let life = expiry.unwrap() - now();
    assert!((3500.0..=3600.0).contains(&life), "{life}");
    let pause = next.unwrap() - now();
    assert!((1700.0..=2701.0).contains(&pause), "{pause}");
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    assert_eq!(scrape.value("roleseal_build_info", &version), Some(1.0));
    let age = now() - scrape.value("process_start_time_seconds", &[]).unwrap();
    assert!((0.0..300.0).contains(&age), "{age}");
}

#[test]
fn there_is_nothing_but_metrics() {
    let serving = Serving::start(Web::start(), &["--no-cache", ANY_PORT]);
    let address = address(&serving.process);
    let token = serving.token();
    let authorization = ("Authorization", token.as_str());
    let status = |path, headers: &[_]| Http::tcp(address).get(path, headers).status;
    for path in [
        "/",
        "/healthz",
        "/credentials/web",
        "/v1/credentials",
        "/metrics/x",
    ] {
        assert_eq!(status(path, &[authorization]), 404, "{path}");
    }
    assert_eq!(status("/metrics", &[("Host", "evil.example")]), 403);
    let posted = Http::tcp(address).request("POST", "/metrics", &[]);
    assert_eq!(posted.status, 405);
    assert_eq!(serving.http().get("/metrics", &[]).status, 404);
    let answer = Http::tcp(address).get("/metrics", &[]);
    let is_type = |(name, value): &(String, String)| {
        name.eq_ignore_ascii_case("content-type") && value.starts_with("application/openmetrics")
    };
    assert!(answer.headers.iter().any(is_type), "{answer:?}");
    assert!(!answer.body.contains(token.trim()));
}

#[test]
fn each_failure_has_its_outcome() {
    for (status, outcome) in [(403, "refused"), (429, "throttled"), (500, "unavailable")] {
        let web = Web::start();
        let seconds = LONG;
        let fault = Fault::RetryAfter { status, seconds };
        web.scene.service().set_fault(Some(fault));
        let serving = Serving::start(web, &["--no-cache", ANY_PORT]);
        let address = address(&serving.process);
        let failed = |scrape: &Scrape| {
            of_target(scrape, "session_failed_tries", "web").is_some_and(|tries| tries > 0.0)
        };
        let scrape = scrape_until(address, "it has failed", failed);
        assert_eq!(tries(&scrape, "web"), only(outcome, 1.0));
        assert_eq!(of_target(&scrape, "session_failed_tries", "web"), Some(1.0));
        assert_eq!(of_target(&scrape, "session_valid", "web"), Some(0.0));
        let expiry = of_target(&scrape, "session_expiry_timestamp_seconds", "web");
        assert_eq!(expiry, None);
        let next = of_target(&scrape, "session_next_try_timestamp_seconds", "web");
        assert!(next.unwrap() - now() > f64::from(LONG) - 60.0);

        serving.service().set_fault(None);
        let pid = Pid::from_raw(serving.process.id().cast_signed()).unwrap();
        kill_process(pid, Signal::HUP).unwrap(); // it tries again at once
        let scrape = scrape_until(address, "it recovers", |scrape| is_valid(scrape, "web"));
        let mut expected = only(outcome, 1.0);
        expected.insert("granted", 1.0);
        assert_eq!(tries(&scrape, "web"), expected);
        assert_eq!(of_target(&scrape, "session_failed_tries", "web"), Some(0.0));
    }
}

#[test]
fn the_agents_refusals_are_not_those_of_aws() {
    let mut lab = Lab::new(KeyKind::EcP256);
    lab.config.identity[0].allow[0].roles = vec![hsm_fixtures::BATCH_ROLE_ARN.to_owned()];
    let serving = Serving::start(lab.start(), &["--no-cache", ANY_PORT]);
    let address = address(&serving.process);
    let outcome = |scrape: &Scrape, outcome| tries(scrape, "web")[outcome] >= 1.0;
    let denied = |scrape: &Scrape| outcome(scrape, "denied");
    let scrape = scrape_until(address, "the agent denies it", denied);
    assert!(!outcome(&scrape, "local"));
    let Serving { process, web } = serving;
    web.agent.stop().unwrap();
    let local = |scrape: &Scrape| outcome(scrape, "local");
    let scrape = scrape_until(address, "there is no agent", local);
    for at_aws in ["granted", "refused", "throttled", "unavailable"] {
        assert!(!outcome(&scrape, at_aws), "{at_aws}");
    }
    process.stop().unwrap();
    assert_eq!(web.scene.service().create_session_requests(), 0);
}

#[test]
fn a_session_that_ends_is_seen() {
    let serving = Serving::start(short_sessions(8), &["--no-cache", ANY_PORT]);
    let address = address(&serving.process);
    scrape_until(address, "a session", |scrape| is_valid(scrape, "web"));
    serving.service().set_fault(Some(Fault::Status(500)));
    let ended = |scrape: &Scrape| of_target(scrape, "session_valid", "web") == Some(0.0);
    let scrape = scrape_until(address, "it has ended", ended);
    let expiry = of_target(&scrape, "session_expiry_timestamp_seconds", "web").unwrap();
    assert!(expiry <= now() + 1.0);
    assert!(tries(&scrape, "web")["unavailable"] >= 1.0);
}

#[test]
fn a_session_of_the_cache_is_no_try() {
    let runtime = crate::agent::in_memory();
    let start = |web: Web| {
        let arguments = ["--target=web", "--listen=127.0.0.1:0", ANY_PORT];
        let mut command = crate::serving::command(&web.scene, &arguments);
        command.env("XDG_RUNTIME_DIR", runtime.path());
        let serving = Serving::start_command(web, command);
        let address = address(&serving.process);
        let scrape = scrape_until(address, "a session", |scrape| is_valid(scrape, "web"));
        (serving, tries(&scrape, "web"))
    };
    let (serving, counted) = start(Web::start());
    assert_eq!(counted, only("granted", 1.0));
    let Serving { process, web } = serving;
    process.stop().unwrap();
    let (_serving, counted) = start(web);
    assert_eq!(counted, only("granted", 0.0));
}

#[test]
fn update_has_its_sessions_and_no_series_of_serve() {
    let stage = Stage::new(None);
    let socket = stage.scene.path("metrics.sock");
    let metrics = format!("--metrics=unix:{}", socket.display());
    let update = stage.keep(&["--target=web", "--target=batch", "--no-cache", &metrics]);
    let scrape = until("both have sessions", || {
        assert!(update.is_running(), "{}", update.log());
        if !socket.exists() {
            return None;
        }
        let scrape = Scrape::read(&Http::unix(&socket).get("/metrics", &[]).body);
        (is_valid(&scrape, "web") && is_valid(&scrape, "batch")).then_some(scrape)
    });
    for target in ["web", "batch"] {
        assert_eq!(tries(&scrape, target), only("granted", 1.0));
    }
    let of_serve =
        |name: &str| name.contains("served") || name.contains("token") || name.contains("cluster");
    for sample in scrape.samples() {
        assert!(!of_serve(sample[0].as_str().unwrap()), "{sample}");
    }
    assert_eq!(Http::unix(&socket).get("/healthz", &[]).status, 404);
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(stage.service().create_session_requests(), 2);
    update.stop().unwrap();
    assert!(!socket.exists());

    let once = stage.once(&["--target=web", ANY_PORT]);
    assert_eq!(once.status.code(), Some(2), "{once:?}");
}

fn token_counts(scrape: &Scrape) -> BTreeMap<String, f64> {
    let samples = scrape.samples().iter();
    let tokens = samples.filter(|sample| sample[0] == "roleseal_service_account_tokens_total");
    let count = tokens.map(|sample| {
        let outcome = sample[1]["outcome"].as_str().unwrap().to_owned();
        (outcome, sample[2].as_f64().unwrap())
    });
    count.filter(|(_, count)| *count > 0.0).collect()
}

#[test]
fn tokens_of_pods_are_counted_by_what_became_of_them() {
    let issuer = Issuer::rs256();
    let web = Web::start();
    let settings = in_file(&web.scene, &issuer);
    let more = ["--listen=127.0.0.1:0", "--no-cache", ANY_PORT];
    let pods = Pods::start_with(web, &settings, RULES, &more);
    let address = address(&pods.process);
    assert_eq!(token_counts(&scrape(address)), BTreeMap::new());

    let bad = bad_tokens(&issuer);
    let count = bad.len();
    for (what, token) in bad {
        assert_eq!(
            pods.ask("/v1/credentials/web", &token).status,
            401,
            "{what}"
        );
    }
    let good = issuer.token("payments", "api");
    for _ in 0..3 {
        key_of(&pods.ask("/v1/credentials", &good));
    }
    let other = issuer.token("payments", "other");
    for token in [&other, &other] {
        assert_eq!(pods.ask("/v1/credentials", token).status, 403);
    }
    assert_eq!(pods.http().get("/v1/credentials", &[]).status, 401);
    assert_eq!(pods.http().get("/elsewhere", &[]).status, 404);

    let scrape = scrape(address);
    let counts = token_counts(&scrape);
    let expected = [
        ("accepted", 3.0),
        ("denied", 2.0),
        ("no_token", 1.0),
        ("malformed", 4.0),
        ("too_long", 1.0),
        ("algorithm", 2.0),
        ("no_key_id", 1.0),
        ("issuer", 1.0),
        ("audience", 1.0),
        ("expired", 1.0),
        ("not_yet", 1.0),
        ("subject", 1.0),
        ("node", 1.0),
        ("unknown_key", 3.0),
        ("key_algorithm", 1.0),
        ("signature", 1.0),
    ];
    let expected = expected.map(|(outcome, count)| (outcome.to_owned(), count));
    assert_eq!(counts, expected.into());
    #[expect(clippy::cast_precision_loss, reason = "some twenty")]
    let all = count as f64 + 3.0 + 2.0 + 1.0;
    assert_eq!(counts.values().sum::<f64>(), all);
    assert_eq!(
        of_target(&scrape, "credentials_served_total", "web"),
        Some(3.0)
    );
    assert_eq!(scrape.value("roleseal_cluster_keys", &[]), Some(1.0));
    scrape.is_documented("## roleseal serve and update");
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
    let docs = std::fs::read_to_string(docs).unwrap();
    for sample in scrape.samples() {
        if let Some(outcome) = sample[1]["outcome"].as_str() {
            assert!(docs.contains(&format!("`{outcome}`")), "{outcome}");
        }
    }
}

#[test]
fn without_keys_of_the_cluster_nobody_is_served_and_metrics_say_so() {
    let issuer = Issuer::rs256();
    let web = Web::start();
    let absent = web.scene.path("absent.json").display().to_string();
    let settings = format!(
        "jwks = \"{absent}\"\nnode = \"{}\"\n",
        kubernetes::issuer::NODE
    );
    let targets = kubernetes::write(&web.scene, &settings, RULES);
    let more = ["--listen=127.0.0.1:0", "--no-cache", ANY_PORT];
    let command = kubernetes::serve(&web.scene, &targets, &more);
    let process = Process::spawn(command, &web.scene.path("serve.log")).unwrap();
    let pods = Pods { process, web };
    let address = address(&pods.process);
    let good = issuer.token("payments", "api");
    assert_eq!(pods.ask("/v1/credentials", &good).status, 503);
    let scrape = scrape(address);
    let expected = [("no_keys".to_owned(), 1.0)];
    assert_eq!(token_counts(&scrape), expected.into());
    assert_eq!(scrape.value("roleseal_cluster_keys", &[]), Some(0.0));
}

#[test]
fn sessions_of_accounts_count_under_their_target() {
    let scene = Scene::with_service(|service| {
        service.profiles[0].accept_role_session_name = true;
    });
    let web = Lab::of(scene.unwrap(), KeyKind::EcP256).start();
    let issuer = Issuer::rs256();
    let settings = in_file(&web.scene, &issuer);
    let named = format!("{TEMPLATE}{}", RULES[0].1);
    let rules = [("web", named.as_str()), RULES[1]];
    let more = [
        "--listen=127.0.0.1:0",
        "--target=web",
        "--no-cache",
        ANY_PORT,
    ];
    let pods = Pods::start_with(web, &settings, rules, &more);
    let address = address(&pods.process);
    let before = scrape(address);
    assert_eq!(tries(&before, "web"), only("granted", 0.0));
    assert_eq!(of_target(&before, "session_valid", "web"), None); // nobody has asked
    for (namespace, account) in [("payments", "api"), ("shop", "front"), ("payments", "api")] {
        key_of(&pods.ask("/v1/credentials", &issuer.token(namespace, account)));
    }
    let after = scrape(address);
    assert_eq!(tries(&after, "web"), only("granted", 2.0));
    assert!(is_valid(&after, "web"));
    let served = of_target(&after, "credentials_served_total", "web");
    assert_eq!(served, Some(3.0));
}
