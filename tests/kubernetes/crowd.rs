//! Many pods, and many who are none: what they cost.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::*;

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
