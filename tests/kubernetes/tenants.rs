//! Pods that do not trust each other, and reloads that take something away from one of them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hsm_fixtures::Fault;

use super::{Issuer, LATEST, Pods, in_file, write};
use crate::agent::{Web, until};
use crate::serving::key_of;

/// As many as are open at once.
const CONNECTIONS: usize = 512;

/// Says whether it got an answer with credentials.
fn asks(stream: &mut TcpStream, head: &str) -> bool {
    let mut answer = [0; 8192];
    let timeout = Some(Duration::from_secs(60));
    stream.set_read_timeout(timeout).unwrap();
    let sent = stream.write_all(head.as_bytes());
    let read = sent.and_then(|()| stream.read(&mut answer));
    read.is_ok_and(|count| answer[..count].starts_with(b"HTTP/1.1 200"))
}

/// A pod keeps all connections for itself, with its token, and no other pod notices.
#[test]
fn a_pod_with_all_connections_keeps_no_other_pod_out() {
    let issuer = Issuer::rs256();
    let web = Web::start();
    let kubernetes = in_file(&web.scene, &issuer);
    let pods = Pods::start(web, &kubernetes);
    let (api, evil) = (
        issuer.token("payments", "api"),
        issuer.token("shop", "evil"),
    );
    let api = [("Authorization", api.as_str())];
    let path = "/v1/credentials/web";
    let mut kept = pods.http();
    let key = key_of(&kept.get(path, &api));
    let address = pods.address();
    let head = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: {evil}\r\n\r\n");
    let mut all: Vec<TcpStream> = (0..CONNECTIONS)
        .map(|number| {
            if number % 50 == 0 {
                assert_eq!(key_of(&kept.get(path, &api)), key); // so that it is not idle for long
            }
            let mut stream = TcpStream::connect(address).unwrap();
            assert!(asks(&mut stream, &head));
            stream
        })
        .collect();
    let (is_over, begin) = (AtomicBool::new(false), Instant::now());
    std::thread::scope(|scope| {
        // None of its connections is ever idle for long; those that are closed come again.
        scope.spawn(|| {
            for at in (0..all.len()).cycle() {
                if is_over.load(Ordering::Relaxed) || begin.elapsed() > LATEST {
                    break;
                }
                if !asks(&mut all[at], &head) {
                    all[at] = TcpStream::connect(address).unwrap();
                }
            }
        });
        for _ in 0..50 {
            assert_eq!(key_of(&pods.http().get(path, &api)), key);
            assert_eq!(key_of(&kept.get(path, &api)), key);
        }
        is_over.store(true, Ordering::Relaxed);
        println!("100 requests in {:?}", begin.elapsed());
    });
}

/// A pod asked while a target had another role, and waits for that session.
#[test]
fn who_waits_for_a_session_gets_none_of_a_later_target() {
    let issuer = Issuer::rs256();
    let web = Web::start();
    web.scene.service().set_fault(Some(Fault::Hang));
    let kubernetes = in_file(&web.scene, &issuer);
    let pods = Pods::start(web, &kubernetes);
    let (api, batch) = (
        issuer.token("payments", "api"),
        issuer.token("batch", "nightly"),
    );
    let mut waiting = pods.http();
    let host = pods.address();
    waiting.send(&format!(
        "GET /v1/credentials/web HTTP/1.1\r\nHost: {host}\r\nAuthorization: {api}\r\n\r\n"
    ));
    for _ in 0..20 {
        pods.http().get("/healthz", &[]); // it has read the other request by now
    }
    pods.service().set_fault(None);
    let only_batch = [
        ("web", "service-accounts = [\"batch/*\"]\n"),
        ("second", ""),
    ];
    let targets = write(&pods.web.scene, &kubernetes, only_batch);
    let text = std::fs::read_to_string(&targets).unwrap();
    let text = text.replace("session-duration = 3600", "session-duration = 1800");
    pods.web.scene.write("targets.toml", &text).unwrap();
    pods.reload();
    let new = until("there is a session of the new target", || {
        let answer = pods.ask("/v1/credentials/web", &batch);
        (answer.status == 200).then(|| key_of(&answer))
    });
    let answer = waiting.read().unwrap();
    assert!(!answer.body.contains(&new), "{answer:?}");
    assert_eq!(pods.status("/v1/credentials/web", &api), 403);
}

#[test]
fn a_reload_repeats_requests_of_names_that_failed() {
    let issuer = Issuer::rs256();
    let pods = Pods::start_named(&issuer);
    let (api, front) = (
        issuer.token("payments", "api"),
        issuer.token("shop", "front"),
    );
    key_of(&pods.ask("/v1/credentials", &front));
    pods.service().set_fault(Some(Fault::Status(403)));
    assert_eq!(pods.status("/v1/credentials", &api), 503);
    // The other names work.
    let health = pods.http().get("/healthz", &[]);
    assert_eq!(health.status, 200);
    assert_eq!(health.json()["targets"][0]["state"], "degraded");
    pods.service().set_fault(None);
    pods.reload();
    until("it is repeated", || {
        (pods.status("/v1/credentials", &api) == 200).then_some(())
    });
}
