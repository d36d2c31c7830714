//! CreateSession, tried until it succeeds, is refused, or its time is up.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use wire::UnsignedRequest;

use crate::agent_client;
use crate::credentials::Credentials;
use crate::error::Error;
use crate::http::Http;
use crate::moment::Moment;
use crate::progress::Progress;
use crate::retry::Backoff;
use crate::session::Session;
use crate::target::Target;

/// With these, five tries that fail at once are over in 3 s on average: a person still waits, and a
/// service that is restarted or that throttles is mostly back.
const BACKOFF: Backoff = Backoff {
    base: Duration::from_millis(400),
    cap: Duration::from_secs(4),
};

/// How often a request is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tries {
    /// Nobody waits for the outcome: the caller repeats it by its own schedule.
    Once,
    /// Somebody waits: up to five times. More would only add load to a service in trouble.
    Several,
}

impl Tries {
    fn most(self) -> u32 {
        match self {
            Tries::Once => 1,
            Tries::Several => 5,
        }
    }
}

/// A slow token may leave no time of the deadline's: what it has signed is sent all the same.
const SIGNED: Duration = Duration::from_secs(10);

/// An answer's date has no fractions: it is up to this much later.
const WHOLE_SECONDS: Duration = Duration::from_secs(1);

/// A new session. Each try is signed anew, as a signature is good for five minutes and one request.
pub(crate) fn create_session(
    target: &Target,
    deadline: Instant,
    most: Tries,
    progress: &Progress,
) -> Result<Session, Error> {
    let http = Http::new(&target.route)?;
    let mut tries = 0;
    loop {
        tries += 1;
        let error = match one_try(target, &http, deadline, progress) {
            Ok(session) => return Ok(session),
            Err(error) => error,
        };
        let asked = error.setback().retry_after.unwrap_or_default();
        let pause = BACKOFF.pause(tries, fastrand::f64()).saturating_add(asked);
        let in_time = pause < deadline.saturating_duration_since(Instant::now());
        if !error.passing() || tries == most.most() || !in_time {
            return Err(error.after(tries));
        }
        thread::sleep(pause);
    }
}

fn one_try(
    target: &Target,
    http: &Http,
    deadline: Instant,
    progress: &Progress,
) -> Result<Session, Error> {
    progress.waiting_for("roleseal-agent's signature");
    let unsigned = target.session.unsigned();
    let headers = agent_client::sign(&target.socket, unsigned.clone())?;
    progress.waiting_for(&unsigned.host);
    let timeout = deadline.saturating_duration_since(Instant::now());
    send(http, &unsigned, &headers, timeout.max(SIGNED))
}

/// Sends a signed request once, and reads the session in the answer.
pub fn send(
    http: &Http,
    unsigned: &UnsignedRequest,
    headers: &BTreeMap<String, String>,
    timeout: Duration,
) -> Result<Session, Error> {
    let asked = Moment::now();
    let answer = http.post_session(unsigned, headers, timeout)?;
    let credentials = Credentials::from_answer(&answer, Timestamp::now())?;
    let date = answer.date.as_deref();
    let date = date.and_then(|date| Some(rfc2822::parse(date).ok()?.timestamp()));
    let begin = date.map(|date| date + WHOLE_SECONDS);
    let serial = headers.get("Authorization").and_then(|value| serial(value));
    Ok(Session::new(credentials, asked, begin, serial))
}

/// The serial in `ALGORITHM Credential=SERIAL/DATE/…`.
fn serial(authorization: &str) -> Option<String> {
    let (_, credential) = authorization.split_once("Credential=")?;
    let (serial, _) = credential.split_once('/')?;
    Some(serial.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_certificate_is_named_by_the_signature() {
        let header = "AWS4-X509-ECDSA-SHA256 Credential=4711/20260101/eu-central-1/rolesanywhere/\
                      aws4_request, SignedHeaders=host, Signature=00";
        assert_eq!(serial(header).as_deref(), Some("4711"));
        assert_eq!(serial("AWS4-X509-ECDSA-SHA256 x"), None);
    }
}
