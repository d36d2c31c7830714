//! Many clients at the same time, each of whose answers is judged.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::RwLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hsm_fixtures::Scene;
use serde_json::{Value, json};

use crate::agent::{read_reply, request};

/// How many clients there are.
pub(crate) const CLIENTS: usize = 32;

/// The agent answers within 25 s; this machine may be busy with other tests.
const LATEST: Duration = Duration::from_secs(25 + 10);

const POLL: Duration = Duration::from_millis(5);

/// An answer that a client can use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Headers for which the service would give a session.
    Signed,
    /// The error's name after `org.roleseal.Agent.`, and its message.
    Refused(String, String),
}

/// Each client makes so many requests, one after the other, on a connection of its own. When as many are
/// answered as there are clients, `meanwhile` is done; the last request of each waits for that, if it makes several.
/// Fails on a signature that the service would not take, an error without name or reason, and an answer that is late.
pub(crate) fn ask(scene: &Scene, requests: usize, meanwhile: impl FnOnce()) -> Vec<Answer> {
    let (answered, last) = (AtomicUsize::new(0), RwLock::new(()));
    std::thread::scope(|scope| {
        let hold = last.write().unwrap();
        let client = || client(scene, requests, &answered, &last);
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        while answered.load(Ordering::Relaxed) < CLIENTS && !clients.iter().any(|c| c.is_finished())
        {
            std::thread::sleep(POLL);
        }
        meanwhile();
        drop(hold);
        let answers = clients
            .into_iter()
            .flat_map(|client| client.join().unwrap());
        answers.collect()
    })
}

/// One request on a connection of its own.
pub(crate) fn ask_once(scene: &Scene) -> Answer {
    let answers = client(scene, 1, &AtomicUsize::new(0), &RwLock::new(()));
    answers.into_iter().next().unwrap()
}

/// With several requests, the last is made once nobody holds `last`.
fn client(
    scene: &Scene,
    requests: usize,
    answered: &AtomicUsize,
    last: &RwLock<()>,
) -> Vec<Answer> {
    let mut stream = UnixStream::connect(scene.socket()).unwrap();
    let request = request(scene);
    let call = json!({ "method": "org.roleseal.Agent.SignCreateSession", "parameters": request });
    let call = format!("{call}\0");
    let answer = |number| {
        if number > 1 && number == requests {
            drop(last.read().unwrap());
        }
        let start = Instant::now();
        stream.write_all(call.as_bytes()).unwrap();
        let reply = read_reply(&mut stream);
        let took = start.elapsed();
        assert!(took <= LATEST, "after {took:?}: {reply}");
        answered.fetch_add(1, Ordering::Relaxed);
        judge(scene, &request, &reply).unwrap()
    };
    (1..=requests).map(answer).collect()
}

/// What the answer is; an error where the service would not take what was signed, and for an error without
/// name or reason.
pub(crate) fn judge(scene: &Scene, request: &Value, reply: &Value) -> Result<Answer, String> {
    let wrong = || format!("a wrong answer: {reply}");
    if let Some(error) = reply["error"].as_str() {
        let name = error
            .strip_prefix("org.roleseal.Agent.")
            .ok_or_else(wrong)?;
        let message = reply["parameters"]["message"].as_str().unwrap_or_default();
        if message.is_empty() {
            return Err(wrong());
        }
        return Ok(Answer::Refused(name.to_owned(), message.to_owned()));
    }
    let text = |value: &Value| value.as_str().map(str::to_owned).ok_or_else(wrong);
    let mut headers = Vec::new();
    let signed = &reply["parameters"]["headers"];
    for (name, value) in signed.as_object().ok_or_else(wrong)? {
        headers.push((name.to_lowercase(), text(value)?));
    }
    for (name, parameter) in [("host", "host"), ("content-type", "contentType")] {
        headers.push((name.to_owned(), text(&request[parameter])?));
    }
    let (query, body) = (text(&request["query"])?, text(&request["body"])?);
    let granted = scene.service().would_grant(&query, headers, &body);
    granted.map_err(|why| format!("{why}: {reply}"))?;
    Ok(Answer::Signed)
}
