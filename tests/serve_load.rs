use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::serving::{Serving, key_of, short_sessions};

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
