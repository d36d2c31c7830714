use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::serving::{Serving, key_of, short_sessions};

/// More than twice as many as are open at once.
const SLOW: usize = 1200;

#[test]
fn clients_that_are_slow_keep_nobody_with_a_token_out() {
    let serving = Serving::start(short_sessions(3600), &[]);
    let (address, token) = (serving.address(), serving.token());
    let authorization = [("Authorization", token.as_str())];
    let mut before = crate::http::Http::tcp(address);
    let key = key_of(&before.get("/credentials/web", &authorization));
    let slow: Vec<TcpStream> = (0..SLOW)
        .map(|_| {
            let mut stream = TcpStream::connect(address).unwrap();
            let _ = stream.write_all(b"GET /credentials/web HTTP/1.1\r\nHost: loc"); // it may be closed
            stream
        })
        .collect();
    let mut after = crate::http::Http::tcp(address);
    for http in [&mut after, &mut before] {
        assert_eq!(key_of(&http.get("/credentials/web", &authorization)), key);
    }
    // Nobody had to wait until those who are slow were given up.
    let open = slow.iter().filter(|stream| {
        stream.set_nonblocking(true).unwrap();
        let read = (&**stream).read(&mut [0]);
        read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    });
    let open = open.count();
    assert!((400..=512).contains(&open), "{open}");
}

const CLIENTS: usize = 64;
const REQUESTS: usize = 10_000;

/// Long enough for a loaded machine to renew a session within the quarter of its life that is left for that.
const SECONDS: u32 = 24;

/// So that the requests are spread over a session's life and beyond.
const PAUSE: Duration = Duration::from_millis(120);

#[test]
fn many_clients_across_a_refresh_see_no_error_and_aws_one_request() {
    let serving = Serving::start(short_sessions(SECONDS), &["--imds"]);
    let (address, token) = (serving.address(), serving.token());
    let (requests, deadline) = (
        AtomicUsize::new(0),
        Instant::now() + Duration::from_secs(240),
    );
    let client = || {
        let mut http = crate::http::Http::tcp(address);
        let mut keys = BTreeSet::new();
        // Each sees the refresh.
        while requests.fetch_add(1, Ordering::Relaxed) < REQUESTS || keys.len() < 2 {
            let answer = http.get("/credentials/web", &[("Authorization", &token)]);
            keys.insert(key_of(&answer));
            assert!(
                Instant::now() < deadline,
                "{} requests",
                requests.load(Ordering::Relaxed)
            );
            std::thread::sleep(PAUSE);
        }
        keys
    };
    let keys: BTreeSet<_> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        clients
            .into_iter()
            .flat_map(|client| client.join().unwrap())
            .collect()
    });
    assert!(requests.load(Ordering::Relaxed) >= REQUESTS);
    let (asked, log) = (
        serving.service().create_session_requests(),
        serving.process.log(),
    );
    let refreshes = log.matches("target web: a session until").count() as u64;
    assert_eq!(asked, refreshes, "{log}");
    assert_eq!(asked, serving.service().sessions_created());
    // The last may have come after the clients.
    assert!((2..=asked).contains(&(keys.len() as u64)), "{keys:?}");
}
