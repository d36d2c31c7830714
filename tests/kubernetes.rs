mod api_server;
pub(crate) mod issuer;
mod tenants;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hsm_fixtures::{KeyKind, Process, Scene, Service};
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::sign::Signer;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::agent::{Lab, Web, copy_program, json_of, until, venv};
use crate::http::{Answer, Http};
use crate::policy::NOBODY;
use crate::serving::{client, key_of, short_sessions, write_targets};

use api_server::ApiServer;
use issuer::{ISSUER, Issuer, NODE, base64, claims};

/// `roleseal serve --kubernetes`. Fields are dropped in this order.
pub(crate) struct Pods {
    pub(crate) process: Process,
    pub(crate) web: Web,
}

/// The rules of the usual targets.
pub(crate) const RULES: [(&str, &str); 2] = [
    ("web", "service-accounts = [\"payments/api\", \"shop/*\"]\n"),
    (
        "second",
        "service-accounts = [\"batch/*\", \"shop/cart\"]\n",
    ),
];

/// Writes targets that pods may have, and the cluster.
pub(crate) fn write(scene: &Scene, kubernetes: &str, rules: [(&str, &str); 2]) -> PathBuf {
    let mut text = std::fs::read_to_string(write_targets(scene)).unwrap();
    for (target, rules) in rules {
        let table = format!("[target.{target}]\n");
        text = text.replace(&table, &format!("{table}{rules}"));
    }
    text += &format!("[kubernetes]\nissuer = \"{ISSUER}\"\n{kubernetes}");
    scene.write("targets.toml", &text).unwrap()
}

pub(crate) fn serve(scene: &Scene, targets: &Path, more: &[&str]) -> Command {
    let targets = targets.display().to_string();
    let mut arguments = vec!["serve", "--kubernetes", "--targets", &targets];
    arguments.extend(more);
    scene.roleseal(&arguments).unwrap()
}

/// The keys in a file.
pub(crate) fn in_file(scene: &Scene, issuer: &Issuer) -> String {
    let path = scene.write("jwks.json", &issuer.jwks()).unwrap();
    format!("jwks = \"{}\"\nnode = \"{NODE}\"\n", path.display())
}

impl Pods {
    fn start(web: Web, kubernetes: &str) -> Pods {
        Pods::start_with(web, kubernetes, RULES, &["--listen=127.0.0.1:0"])
    }

    pub(crate) fn start_with(
        web: Web,
        kubernetes: &str,
        rules: [(&str, &str); 2],
        more: &[&str],
    ) -> Pods {
        let targets = write(&web.scene, kubernetes, rules);
        let command = serve(&web.scene, &targets, more);
        let process = Process::spawn(command, &web.scene.path("serve.log")).unwrap();
        let pods = Pods { process, web };
        pods.until_log("_FULL_URI=");
        pods.until_log("keys of the cluster: ");
        pods
    }

    pub(crate) fn until_log(&self, text: &str) {
        until(text, || {
            assert!(self.process.is_running(), "{}", self.process.log());
            self.process.log().contains(text).then_some(())
        });
    }

    /// The first that the log names.
    fn url(&self) -> String {
        let log = self.process.log();
        let (_, url) = log.split_once("_FULL_URI=").unwrap();
        url.split(' ').next().unwrap().to_owned()
    }

    fn address(&self) -> SocketAddr {
        let url = self.url();
        let (address, _) = url["http://".len()..].split_once('/').unwrap();
        address.parse().unwrap()
    }

    pub(crate) fn http(&self) -> Http {
        Http::tcp(self.address())
    }

    /// Asks once, on a connection of its own.
    pub(crate) fn ask(&self, path: &str, token: &str) -> Answer {
        self.http().get(path, &[("Authorization", token)])
    }

    fn status(&self, path: &str, token: &str) -> u16 {
        self.ask(path, token).status
    }

    fn reload(&self) {
        let reloads = || self.process.log().matches("reload").count();
        let before = reloads();
        let pid = Pid::from_raw(self.process.id().cast_signed()).unwrap();
        kill_process(pid, Signal::HUP).unwrap();
        until("it reloads", || (reloads() > before).then_some(()));
    }

    fn service(&self) -> &Service {
        self.web.scene.service()
    }

    /// A pod's client, with its token in a file.
    fn client(&self, program: &str, token_file: &Path) -> Command {
        let mut command = client(&self.web.scene, venv(program));
        let url = format!("http://{}/v1/credentials", self.address());
        command
            .env("AWS_CONTAINER_CREDENTIALS_FULL_URI", url)
            .env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token_file);
        command
    }
}

fn refused(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{answer:?}");
    for secret in ["AccessKeyId", "payments", "api", "exp", "kid", "issuer"] {
        assert!(!answer.body.contains(secret), "{answer:?}");
    }
    assert!(answer.json()["code"].is_string());
}

#[test]
fn a_pod_gets_the_roles_of_its_service_account_and_no_others() {
    let mut issuer = Issuer::rs256();
    issuer.rotate_to_es256("second");
    let web = Web::start();
    let kubernetes = in_file(&web.scene, &issuer);
    let pods = Pods::start(web, &kubernetes);
    let api = issuer.token("payments", "api");
    let key = key_of(&pods.ask("/v1/credentials/web", &api));
    assert_eq!(key_of(&pods.ask("/v1/credentials", &api)), key);
    assert_eq!(
        key_of(&pods.ask("/v1/credentials/", &format!(" {api} "))),
        key
    );
    let shop = issuer.token("shop", "front");
    assert_eq!(key_of(&pods.ask("/v1/credentials", &shop)), key);
    let batch = issuer.token("batch", "nightly");
    let second = key_of(&pods.ask("/v1/credentials", &batch));
    assert_ne!(second, key);
    // Who may have several names one.
    let cart = issuer.token("shop", "cart");
    refused(&pods.ask("/v1/credentials", &cart), 403);
    assert_eq!(key_of(&pods.ask("/v1/credentials/web", &cart)), key);
    assert_eq!(key_of(&pods.ask("/v1/credentials/second", &cart)), second);

    for (path, token) in [
        ("/v1/credentials/second", &api),
        ("/v1/credentials/third", &api),
        ("/v1/credentials/../web", &api),
        ("/v1/credentials/web", &batch),
        ("/v1/credentials/web", &issuer.token("payments", "other")),
        ("/v1/credentials", &issuer.token("payments", "other")),
        ("/v1/credentials", &issuer.token("shops", "front")),
    ] {
        refused(&pods.ask(path, token), 403);
    }
    assert_eq!(pods.status("/credentials/web", &api), 404);
    assert_eq!(pods.status("/v1/credentialsweb", &api), 404);
    assert_eq!(pods.service().sessions_created(), 2);

    let log = pods.process.log();
    let line = log
        .lines()
        .find(|line| line.contains("target web: credentials"));
    for fact in [
        "namespace=payments",
        "service-account=api",
        "pod=api-0",
        "pod-uid=uid-of-api-0",
        &format!("access-key={key}"),
    ] {
        assert!(line.unwrap().contains(fact), "{log}");
    }
    assert!(log.contains("payments/other may have no target"), "{log}");
    assert!(!log.contains(&api) && !log.contains(&api[api.len() - 40..]));
}

/// Tokens that are not accepted, each with what is wrong.
pub(crate) fn bad_tokens(issuer: &Issuer) -> Vec<(&'static str, String)> {
    let other = Issuer::rs256(); // with the same key id
    let good = claims("payments", "api", "api-0");
    let changed = |pointer: &str, value: Value| {
        let mut claims = good.clone();
        *claims.pointer_mut(pointer).unwrap() = value;
        issuer.sign(&claims)
    };
    let header = |algorithm: &str| json!({ "alg": algorithm, "kid": "first" });
    let unsigned = |algorithm: &str| {
        let parts = [header(algorithm).to_string(), good.to_string()].map(base64);
        parts.join(".")
    };
    let hs256 = unsigned("HS256");
    let secret = PKey::hmac(&issuer.public_pem()).unwrap();
    let mut mac = Signer::new(MessageDigest::sha256(), &secret).unwrap();
    let mac = base64(mac.sign_oneshot_to_vec(hs256.as_bytes()).unwrap());
    let with = |header: Value| issuer.sign_with(&header, &good);
    vec![
        ("none", String::new()),
        ("no token", "0123456789abcdef".repeat(4)),
        ("expired", changed("/exp", json!(1_700_000_000))),
        ("not yet", changed("/nbf", json!(4_000_000_000_u64))),
        ("audience", changed("/aud", json!(["sts.amazonaws.com"]))),
        ("issuer", changed("/iss", json!("https://evil"))),
        ("node", changed("/kubernetes.io/node/name", json!("node-2"))),
        (
            "subject",
            changed("/sub", json!("system:serviceaccount:payments:root")),
        ),
        ("alg none", unsigned("none") + "."),
        ("HS256 with the public key", format!("{hs256}.{mac}")),
        ("PS256", with(header("PS256"))),
        ("another type", with(header("ES256"))),
        ("another cluster", other.sign(&good)),
        ("no key id", with(json!({ "alg": "RS256" }))),
        (
            "unknown key id",
            with(json!({ "alg": "RS256", "kid": "third" })),
        ),
        (
            "a path for a key id",
            with(json!({ "alg": "RS256", "kid": "../first" })),
        ),
        (
            "a key of its own",
            with(json!({ "alg": "RS256", "kid": "x", "jku": "https://evil/jwks" })),
        ),
        ("too large", changed("/jti", json!("x".repeat(7000)))),
        ("Bearer", format!("Bearer {}", issuer.sign(&good))),
    ]
}

#[test]
fn what_is_no_token_of_this_cluster_for_this_node_is_refused_with_one_answer() {
    let issuer = Issuer::rs256();
    let web = Web::start();
    let kubernetes = in_file(&web.scene, &issuer);
    let pods = Pods::start(web, &kubernetes);
    let mut answers = BTreeSet::new();
    for (what, token) in bad_tokens(&issuer) {
        let answer = pods.ask("/v1/credentials/web", &token);
        assert_eq!(answer.status, 401, "{what}");
        refused(&answer, 401);
        answers.insert(answer.body);
    }
    let good = issuer.token("payments", "api");
    let twice = [("Authorization", good.as_str()), ("Authorization", &good)];
    for headers in [&[][..], &twice] {
        let answer = pods.http().get("/v1/credentials/web", headers);
        refused(&answer, 401);
        answers.insert(answer.body);
    }
    assert_eq!(answers.len(), 1, "{answers:?}");
    let mut http = pods.http();
    let authorization = ("Authorization", good.as_str());
    for (more, status) in [
        (("Host", "evil.example"), 403),
        (("Forwarded", "for=x"), 403),
    ] {
        let answer = http.get("/v1/credentials/web", &[authorization, more]);
        assert_eq!(answer.status, status, "{more:?}");
    }
    assert_eq!(
        http.request("POST", "/v1/credentials/web", &[authorization])
            .status,
        405
    );
    assert!(pods.service().sessions_created() <= 2); // one for each target, whoever asks
    let log = pods.process.log();
    for reason in [
        "expired",
        "audience",
        "\"https://evil\"",
        "\"node-2\"",
        "signature",
        "\"third\"",
    ] {
        assert!(log.contains(reason), "{reason}: {log}");
    }
    key_of(&pods.ask("/v1/credentials/web", &good));
}

#[test]
fn keys_rotate_and_the_api_server_is_away_and_no_pod_notices() {
    let mut issuer = Issuer::rs256();
    let web = Web::start();
    let server = ApiServer::start(&web.scene, issuer.jwks());
    let kubernetes = server.settings(&web.scene);
    let more = ["--listen=127.0.0.1:0", "--node", NODE];
    let pods = Pods::start_with(web, &kubernetes, RULES, &more);
    let old = issuer.token("payments", "api");
    let key = key_of(&pods.ask("/v1/credentials", &old));
    assert_eq!(server.answered(), 1);

    // The request for which the keys are read is answered with their help.
    issuer.rotate_to_es256("second");
    server.publish(issuer.jwks());
    server.rotate_token("second-token");
    let new = issuer.token("payments", "api");
    let status = until("the keys are read", || {
        let status = pods.status("/v1/credentials", &new);
        (server.answered() == 2).then_some(status)
    });
    assert_eq!(status, 200);
    assert_eq!(key_of(&pods.ask("/v1/credentials", &old)), key);

    server.go_away();
    let unknown = Issuer::rs256().sign_with(
        &json!({ "alg": "RS256", "kid": "unknown" }),
        &claims("payments", "api", "api-0"),
    );
    until("somebody wants the keys while they cannot be had", || {
        assert_eq!(pods.status("/v1/credentials", &unknown), 401);
        assert_eq!(key_of(&pods.ask("/v1/credentials", &new)), key);
        assert_eq!(key_of(&pods.ask("/v1/credentials", &old)), key);
        pods.process
            .log()
            .contains("cannot read the keys")
            .then_some(())
    });
    let health = pods.http().get("/healthz", &[]);
    assert_eq!(health.status, 200);
    assert_eq!(health.json()["keys"]["state"], "degraded");
    assert_eq!(health.json()["keys"]["count"], 2);

    // Keys that are withdrawn are no longer good, once that is known.
    issuer.retire_first();
    server.publish(issuer.jwks());
    server.come_back();
    until("the first key is withdrawn", || {
        assert_eq!(pods.status("/v1/credentials", &unknown), 401);
        assert_eq!(key_of(&pods.ask("/v1/credentials", &new)), key);
        (pods.status("/v1/credentials", &old) == 401).then_some(())
    });
}

#[test]
fn without_keys_pods_are_told_to_come_back() {
    let issuer = Issuer::rs256();
    let web = Web::start();
    let server = ApiServer::start(&web.scene, issuer.jwks());
    server.go_away();
    let targets = write(&web.scene, &server.settings(&web.scene), RULES);
    let more = ["--listen=127.0.0.1:0", "--node", NODE];
    let command = serve(&web.scene, &targets, &more);
    let process = Process::spawn(command, &web.scene.path("serve.log")).unwrap();
    let pods = Pods { process, web };
    pods.until_log("cannot read the keys");
    let token = issuer.token("payments", "api");
    refused(&pods.ask("/v1/credentials", &token), 503);
    assert_eq!(pods.http().get("/healthz", &[]).status, 503);
    server.come_back();
    until("it has keys", || {
        (pods.status("/v1/credentials", &token) == 200).then_some(())
    });
}

#[test]
fn a_reload_takes_over_rules_and_keys_and_is_all_or_nothing() {
    let issuer = Issuer::rs256();
    let web = Web::start();
    let kubernetes = in_file(&web.scene, &issuer);
    let pods = Pods::start(web, &kubernetes);
    let (api, batch) = (
        issuer.token("payments", "api"),
        issuer.token("batch", "nightly"),
    );
    let key = key_of(&pods.ask("/v1/credentials", &api));
    let only_batch = [("web", "service-accounts = [\"batch/*\"]\n"), ("third", "")];
    write(&pods.web.scene, &kubernetes, only_batch);
    pods.reload();
    refused(&pods.ask("/v1/credentials", &api), 403);
    assert_eq!(key_of(&pods.ask("/v1/credentials", &batch)), key); // the session is the same
    refused(&pods.ask("/v1/credentials/second", &batch), 403);

    for wrong in ["audience = 7\n", "jwks = \"http://x/\"\n", "node = \"\"\n"] {
        write(&pods.web.scene, wrong, RULES);
        pods.reload();
        refused(&pods.ask("/v1/credentials", &api), 403);
        assert_eq!(key_of(&pods.ask("/v1/credentials", &batch)), key);
    }
    write(
        &pods.web.scene,
        &format!("{kubernetes}audience = \"other\"\n"),
        RULES,
    );
    pods.reload();
    refused(&pods.ask("/v1/credentials", &api), 401);
    let mut other = claims("payments", "api", "api-0");
    other["aud"] = json!(["x", "other"]);
    assert_eq!(
        key_of(&pods.ask("/v1/credentials", &issuer.sign(&other))),
        key
    );
}

#[test]
fn what_does_not_fit_ends_the_server_at_its_start() {
    let (issuer, web) = (Issuer::rs256(), Web::start());
    let kubernetes = in_file(&web.scene, &issuer);
    let without_node = kubernetes.replace("node = ", "# ");
    let none = [("web", ""), ("second", "")];
    let listen = "--listen=127.0.0.1:0";
    for (kubernetes, rules, more) in [
        (&without_node, RULES, &[listen][..]),
        (&kubernetes, none, &[listen]),
        (
            &kubernetes,
            [("web", ""), RULES[1]],
            &[listen, "--target=web"],
        ),
        (&kubernetes, RULES, &[listen, "--target=third"]),
        (&kubernetes, RULES, &["--listen=0.0.0.0:0"]),
        (&kubernetes, RULES, &["--listen=169.254.170.2:80"]),
        (&kubernetes, RULES, &[listen, "--allow-remote"]),
        (&kubernetes, RULES, &[listen, "--target=web", "--imds"]),
    ] {
        let targets = write(&web.scene, kubernetes, rules);
        let output = serve(&web.scene, &targets, more).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{more:?} {output:?}");
    }
    // Another user could make tokens.
    let targets = write(&web.scene, &kubernetes, RULES);
    let keys = web.scene.path("jwks.json");
    std::fs::set_permissions(keys, PermissionsExt::from_mode(0o666)).unwrap();
    let command = serve(&web.scene, &targets, &[listen]);
    let process = Process::spawn(command, &web.scene.path("serve.log")).unwrap();
    let pods = Pods { process, web };
    pods.until_log("cannot read the keys");
    refused(
        &pods.ask("/v1/credentials", &issuer.token("payments", "api")),
        503,
    );
}

pub(crate) const TEMPLATE: &str = "role-session-name = \"{namespace}.{service-account}\"\n";

#[test]
fn cloudtrail_names_the_workload() {
    let scene = Scene::with_service(|service| {
        service.profiles[0].accept_role_session_name = true;
    });
    let web = Lab::of(scene.unwrap(), KeyKind::EcP256).start();
    let issuer = Issuer::rs256();
    let kubernetes = in_file(&web.scene, &issuer);
    let named = format!("{TEMPLATE}{}", RULES[0].1);
    let rules = [("web", named.as_str()), RULES[1]];
    let pods = Pods::start_with(
        web,
        &kubernetes,
        rules,
        &["--listen=127.0.0.1:0", "--target=web"],
    );
    assert_eq!(pods.http().get("/healthz", &[]).status, 200);
    assert_eq!(pods.service().sessions_created(), 0); // nobody has asked
    let (api, front) = (
        issuer.token("payments", "api"),
        issuer.token("shop", "front"),
    );
    let key = key_of(&pods.ask("/v1/credentials/web", &api));
    assert_ne!(key_of(&pods.ask("/v1/credentials/web", &front)), key);
    assert_eq!(key_of(&pods.ask("/v1/credentials/web", &api)), key);
    assert_eq!(pods.service().sessions_created(), 2);
    let health = pods.http().get("/healthz", &[]).json();
    assert_eq!(health["targets"][0]["served"], 3, "{health}");

    let file = pods.web.scene.write("token", &front).unwrap();
    let mut aws = pods.client("aws", &file);
    let identity = aws.args(["sts", "get-caller-identity", "--region=eu-central-1"]);
    let identity = json_of(&identity.output().unwrap());
    let arn = identity["Arn"].as_str().unwrap();
    assert!(arn.ends_with("assumed-role/web-deploy/shop.front"), "{arn}");

    // Nobody else has a service account to fill in.
    let targets = pods.web.scene.path("targets.toml").display().to_string();
    for command in [
        &["credential-process", "--target=web"][..],
        &["serve", "--target=web", "--listen=127.0.0.1:0"],
    ] {
        let arguments = [command, &["--targets", &targets]].concat();
        let output = pods
            .web
            .scene
            .roleseal(&arguments)
            .unwrap()
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
    }
    let listed = pods
        .web
        .scene
        .roleseal(&["targets", "--json", "--targets", &targets]);
    let listed = json_of(&listed.unwrap().output().unwrap());
    let web = listed
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["name"] == "web");
    assert_eq!(
        web.unwrap()["roleSessionName"],
        "{namespace}.{service-account}"
    );
    assert_eq!(web.unwrap()["serviceAccounts"][0], "payments/api");
}

const PODS: usize = 1000;
const AT_ONCE: usize = 32;

#[test]
fn a_thousand_pods_cost_one_request_a_target_and_refresh() {
    let issuer = Issuer::rs256();
    let web = short_sessions(24);
    let kubernetes = in_file(&web.scene, &issuer);
    let pods = Pods::start(web, &kubernetes);
    let clients: Vec<_> = (0..PODS)
        .map(|number| {
            let (namespace, account) = match number % 2 {
                0 => ("payments", "api"),
                _ => ("batch", "nightly"),
            };
            issuer.sign(&claims(namespace, account, &format!("pod-{number}")))
        })
        .collect();
    let (next, deadline) = (
        AtomicUsize::new(0),
        Instant::now() + Duration::from_secs(240),
    );
    let (address, begin) = (pods.address(), Instant::now());
    let client = || {
        let mut keys = [BTreeSet::new(), BTreeSet::new()];
        // Every pod asks once, and all go on until they have seen a refresh.
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= PODS && keys.iter().all(|keys| keys.len() > 1) {
                return keys;
            }
            assert!(Instant::now() < deadline, "{number} requests");
            let authorization = [("Authorization", clients[number % PODS].as_str())];
            let answer = Http::tcp(address).get("/v1/credentials", &authorization);
            keys[number % 2].insert(key_of(&answer));
        }
    };
    let all: Vec<_> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(client)).collect();
        clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .collect()
    });
    let log = pods.process.log();
    for (at, target) in ["web", "second"].into_iter().enumerate() {
        let keys: BTreeSet<_> = all.iter().flat_map(|keys| keys[at].clone()).collect();
        let refreshes = log
            .matches(&format!("target {target}: a session until"))
            .count();
        assert!((2..=refreshes).contains(&keys.len()), "{target}: {keys:?}");
    }
    let refreshes = log.matches(": a session until").count() as u64;
    assert_eq!(pods.service().create_session_requests(), refreshes, "{log}");
    // A session of 24 s is refreshed after 16 s at the earliest.
    let most = 2 * (2 + begin.elapsed().as_secs() / 12);
    assert!(refreshes <= most, "{refreshes} in {:?}", begin.elapsed());
}

const BAD: usize = 10_000;

/// A machine under load takes half a minute.
const LATEST: Duration = Duration::from_secs(240);

#[test]
fn ten_thousand_bad_tokens_cost_neither_the_api_server_nor_the_log_nor_the_pods() {
    let issuer = Issuer::rs256();
    let web = Web::start();
    let server = ApiServer::start(&web.scene, issuer.jwks());
    let kubernetes = server.settings(&web.scene);
    let more = ["--listen=127.0.0.1:0", "--node", NODE];
    let pods = Pods::start_with(web, &kubernetes, RULES, &more);
    let good = issuer.token("payments", "api");
    let key = key_of(&pods.ask("/v1/credentials", &good));
    let before = pods.process.log().lines().count();
    let begin = Instant::now();
    let bad = bad_tokens(&issuer);
    let left = AtomicUsize::new(BAD);
    let asked = std::thread::scope(|scope| {
        let flood = || {
            let mut http = pods.http();
            let next = |left: usize| left.checked_sub(1);
            while let Ok(number) = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next) {
                let (what, token) = &bad[number % bad.len()];
                let answer = http.get("/v1/credentials/web", &[("Authorization", token)]);
                assert_eq!(answer.status, 401, "{what}");
            }
        };
        for _ in 0..4 {
            scope.spawn(flood);
        }
        let mut asked = 0;
        while left.load(Ordering::Relaxed) > 0 && begin.elapsed() < LATEST {
            assert_eq!(key_of(&pods.ask("/v1/credentials", &good)), key);
            asked += 1;
        }
        asked
    });
    let seconds = begin.elapsed().as_secs();
    println!(
        "{BAD} bad tokens and {asked} good ones in {:?}",
        begin.elapsed()
    );
    assert!(asked > 0);
    assert!(
        server.asked() <= 2 + seconds / 10,
        "{} times",
        server.asked()
    );
    // Of each kind of refusal and of the pod 6 a second; there are 13 kinds.
    let lines = pods.process.log().lines().count() - before;
    assert!(lines as u64 <= 14 * 6 * (seconds + 2), "{lines} lines");
    assert!(pods.service().sessions_created() <= 2);
}

/// One boto3 client goes on while its sessions end and its token is replaced.
#[test]
fn clients_of_aws_go_on_while_their_token_is_replaced() {
    let issuer = Issuer::rs256();
    let web = short_sessions(16);
    let kubernetes = in_file(&web.scene, &issuer);
    let pods = Pods::start(web, &kubernetes);
    let file = pods
        .web
        .scene
        .write("token", &issuer.token("payments", "api"))
        .unwrap();
    let identity = |file: &Path| {
        let mut aws = pods.client("aws", file);
        aws.args(["sts", "get-caller-identity", "--region=eu-central-1"]);
        aws.output().unwrap()
    };
    let arn = json_of(&identity(&file))["Arn"].clone();
    assert!(
        arn.as_str().unwrap().contains("assumed-role/web-deploy/"),
        "{arn}"
    );
    let other = issuer.token("payments", "other");
    let stranger = pods.web.scene.write("other", &other).unwrap();
    assert!(!identity(&stranger).status.success());

    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("refresh.py");
    let is_over = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        // As the kubelet does: another file in its place, whose predecessor is worth nothing any more.
        scope.spawn(|| {
            for number in 0.. {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                let mut next = claims("payments", "api", &format!("api-{number}"));
                // With the minute of leeway, it is good for ten seconds: none is for two sessions.
                next["exp"] = json!(next["iat"].as_u64().unwrap() - 40);
                let new = pods
                    .web
                    .scene
                    .write("token.new", &issuer.sign(&next))
                    .unwrap();
                std::fs::rename(new, &file).unwrap();
                std::thread::sleep(Duration::from_millis(200)); // how often it is replaced
            }
        });
        let output = pods.client("python", &file).arg(script).output();
        is_over.store(true, Ordering::Relaxed);
        json_of(&output.unwrap())
    });
    assert_eq!(seen["keys"].as_array().unwrap().len(), 3, "{seen}");
    assert_eq!(seen["arns"].as_array().unwrap().len(), 1, "{seen}");
}

/// A variable for the test that runs again in a network namespace of its own.
const INSIDE: &str = "ROLESEAL_TEST_INSIDE";

#[test]
fn pods_of_the_node_reach_it_at_the_addresses_of_eks() {
    if as_root::by_sudo!() {
        return;
    }
    if std::env::var_os(INSIDE).is_none() {
        let name = "kubernetes::pods_of_the_node_reach_it_at_the_addresses_of_eks";
        let mut again = Command::new("unshare");
        again.arg("--net").arg(std::env::current_exe().unwrap());
        again
            .args(["--exact", name, "--nocapture"])
            .env(INSIDE, "1");
        let output = again.output().unwrap();
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert!(stdout.contains("1 passed"), "{output:?}");
        return;
    }
    for words in [
        "link set lo up",
        "address add 169.254.170.23/32 dev lo",
        "address add fd00:ec2::23/128 dev lo",
    ] {
        let mut ip = Command::new("ip");
        assert!(
            ip.args(words.split(' ')).status().unwrap().success(),
            "{words}"
        );
    }
    let issuer = Issuer::rs256();
    let web = Web::start();
    let kubernetes = in_file(&web.scene, &issuer);
    let more = [
        "--listen=169.254.170.23:9911",
        "--listen=[fd00:ec2::23]:9911",
    ];
    let pods = Pods::start_with(web, &kubernetes, RULES, &more);
    let token = issuer.token("payments", "api");
    let mut keys = BTreeSet::new();
    for address in ["169.254.170.23:9911", "[fd00:ec2::23]:9911"] {
        let mut http = Http::tcp(address.parse().unwrap());
        let authorization = ("Authorization", token.as_str());
        keys.insert(key_of(&http.get("/v1/credentials", &[authorization])));
        let rebound = http.get("/v1/credentials", &[authorization, ("Host", "evil:9911")]);
        assert_eq!(rebound.status, 403);
        refused(&http.get("/v1/credentials", &[]), 401);
    }
    assert_eq!(keys.len(), 1);
    // What the SDKs think of these addresses.
    let file = pods.web.scene.write("token", &token).unwrap();
    for address in ["169.254.170.23:9911", "[fd00:ec2::23]:9911"] {
        let mut aws = pods.client("aws", &file);
        let url = format!("http://{address}/v1/credentials/web");
        aws.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", url);
        let identity = aws.args(["sts", "get-caller-identity", "--region=eu-central-1"]);
        let arn = json_of(&identity.output().unwrap())["Arn"].clone();
        assert!(
            arn.as_str().unwrap().contains("assumed-role/web-deploy/"),
            "{arn}"
        );
    }
}

#[test]
fn a_container_keeps_its_token_files_in_an_empty_dir() {
    if as_root::by_sudo!() {
        return;
    }
    let web = Web::start();
    let scene = &web.scene;
    let targets = write_targets(scene);
    for open in [scene.dir(), &targets] {
        std::fs::set_permissions(open, PermissionsExt::from_mode(0o755)).unwrap();
    }
    let volume = scene.path("volume");
    std::fs::create_dir(&volume).unwrap();
    std::fs::set_permissions(&volume, PermissionsExt::from_mode(0o777)).unwrap();
    let words = [
        "--no-new-privs",
        "--bounding-set=-all",
        "--inh-caps=-all",
        "--clear-groups",
        "--reuid=65534",
        "--regid=65534",
    ];
    let targets = targets.display().to_string();
    let arguments = [
        "serve",
        "--target=web",
        "--listen=127.0.0.1:0",
        "--targets",
        &targets,
    ];
    // Whoever runs the tests may have a home that is closed to others.
    let program = scene.path("roleseal");
    copy_program(scene.roleseal(&arguments).unwrap().get_program(), &program);
    let mut command = scene.command("setpriv");
    command.args(words).arg(&program).args(arguments);
    command.env("XDG_RUNTIME_DIR", &volume);
    let _serving = Process::spawn(command, &scene.path("serve.log")).unwrap();
    let token = volume.join("roleseal/web.token");
    until("there is a token", || token.exists().then_some(()));
    use std::os::unix::fs::MetadataExt;
    for (path, mode) in [(token.parent().unwrap(), 0o700), (&token, 0o600)] {
        let metadata = std::fs::metadata(path).unwrap();
        assert_eq!((metadata.uid(), metadata.mode() & 0o777), (NOBODY, mode));
    }

    // A directory that another container made is none of ours.
    let taken = scene.path("taken");
    std::fs::create_dir_all(taken.join("roleseal")).unwrap();
    let mut command = scene.command(&program);
    command
        .args(arguments)
        .env("XDG_RUNTIME_DIR", &taken)
        .uid(NOBODY)
        .gid(NOBODY);
    assert_eq!(command.output().unwrap().status.code(), Some(1));
}
