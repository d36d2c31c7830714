mod api_server;
mod crowd; // a thousand pods, and ten thousand bad tokens
pub(crate) mod issuer;
mod node; // where the server runs, and the clients of AWS
mod tenants; // pods that do not trust each other

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

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

/// A machine under load takes half a minute.
const LATEST: Duration = Duration::from_secs(240);

impl Pods {
    fn start(web: Web, kubernetes: &str) -> Pods {
        Pods::start_with(web, kubernetes, RULES, &["--listen=127.0.0.1:0"])
    }

    /// The target `web` alone, with a session for each service account.
    fn start_named(issuer: &Issuer) -> Pods {
        let scene = Scene::with_service(|service| {
            service.profiles[0].accept_role_session_name = true;
        });
        let web = Lab::of(scene.unwrap(), KeyKind::EcP256).start();
        let kubernetes = in_file(&web.scene, issuer);
        let named = format!("{TEMPLATE}{}", RULES[0].1);
        let rules = [("web", named.as_str()), RULES[1]];
        let more = ["--listen=127.0.0.1:0", "--target=web"];
        Pods::start_with(web, &kubernetes, rules, &more)
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
    let issuer = Issuer::rs256();
    let pods = Pods::start_named(&issuer);
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
