//! The way to the endpoint: name, connection, TLS, and AWS's clock.

use std::net::{IpAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

use client::exit::Exit;
use client::http::{Http, HttpError, Stage};
use client::target::Target;
use client::timeout::timeout;
use jiff::fmt::rfc2822;
use jiff::{SignedDuration, Timestamp};

use super::finding::{Check, Finding};

/// What was seen of it.
pub(super) struct Way {
    /// The host whose name is looked up: the endpoint's, or the proxy's.
    host: String,
    endpoint: String,
    proxy: Option<String>,
    /// Whose CAs are trusted.
    trust: String,
    addresses: Result<Vec<IpAddr>, String>,
    knock: Result<Knock, HttpError>,
}

/// An answer, whatever it says: nothing was asked for.
struct Knock {
    took: Duration,
    date: Option<String>,
    at: Timestamp,
}

/// So long may a name take: as long as the HTTP client lets it.
const NAME_TIMEOUT: Duration = Duration::from_secs(5);

/// For the whole of an unsigned request.
const KNOCK_TIMEOUT: Duration = Duration::from_secs(15);

/// Goes as far as an unsigned request for the endpoint's root gets.
pub(super) fn walk(target: &Target, http: &Http) -> Way {
    let endpoint = target.session.endpoint.host().to_owned();
    let proxy = target.route.proxy.as_ref();
    let proxy = proxy.map(|proxy| proxy.shown().to_owned());
    let host = match &proxy {
        Some(proxy) => proxy.split("://").nth(1).unwrap_or(proxy).to_owned(),
        None => endpoint.clone(),
    };
    let addresses = addresses(&host);
    let begin = Instant::now();
    let knock = http.knock(&endpoint, KNOCK_TIMEOUT).map(|answer| Knock {
        took: begin.elapsed(),
        date: answer.date,
        at: Timestamp::now(),
    });
    Way {
        host,
        endpoint,
        proxy,
        trust: match &target.route.ca_bundle {
            Some(path) => format!("the CAs of {}", path.display()),
            None => "the system's CAs".to_owned(),
        },
        addresses,
        knock,
    }
}

/// By the system's resolver, which has no deadline of its own.
fn addresses(host: &str) -> Result<Vec<IpAddr>, String> {
    let with_port = match host.rsplit_once(':') {
        Some((_, port)) if port.parse::<u16>().is_ok() => host.to_owned(),
        _ => format!("{host}:443"),
    };
    let found = timeout(NAME_TIMEOUT, move || -> std::io::Result<Vec<IpAddr>> {
        let found = with_port.to_socket_addrs()?;
        Ok(found.map(|address| address.ip()).collect())
    });
    match found {
        Some(Ok(mut found)) => {
            found.dedup();
            Ok(found)
        }
        Some(Err(error)) => Err(error.to_string()),
        None => Err(format!("no answer within {} s", NAME_TIMEOUT.as_secs())),
    }
}

/// What there is to say of each part of the way.
pub(super) fn judge(way: &Way) -> Vec<Finding> {
    let mut findings = vec![judge_name(way)];
    if findings.iter().any(Finding::is_failure) {
        findings.extend(not_reached(
            &[Check::Connection, Check::Tls, Check::Clock],
            "the name has no address",
        ));
        return findings;
    }
    match &way.knock {
        Ok(knock) => {
            let via = via(way);
            findings.push(Finding::ok(
                Check::Connection,
                format!(
                    "{}{via} answers, in {} ms",
                    way.endpoint,
                    knock.took.as_millis()
                ),
            ));
            findings.push(Finding::ok(
                Check::Tls,
                format!("its certificate is good, by {}", way.trust),
            ));
            findings.push(judge_clock(knock.date.as_deref(), knock.at));
        }
        Err(error) => findings.extend(lost(way, error)),
    }
    findings
}

fn via(way: &Way) -> String {
    let via = way.proxy.as_ref().map(|proxy| format!(" through {proxy}"));
    via.unwrap_or_default()
}

fn judge_name(way: &Way) -> Finding {
    let host = &way.host;
    match &way.addresses {
        Ok(addresses) if !addresses.is_empty() => {
            let shown: Vec<_> = addresses.iter().take(4).map(ToString::to_string).collect();
            let more = match addresses.len() > shown.len() {
                true => " and more",
                false => "",
            };
            Finding::ok(Check::Name, format!("{host} is {}{more}", shown.join(", ")))
        }
        Ok(_) => unknown_name(host, "it has no address"),
        Err(error) => unknown_name(host, error),
    }
}

fn unknown_name(host: &str, why: &str) -> Finding {
    Finding::failed(
        Check::Name,
        Exit::Network,
        format!("{host}: {why}"),
        "Is the name right (--endpoint, region, proxy), and does this host resolve others (resolvectl query, \
         getent hosts)? Where AWS is reached through a proxy only: HTTPS_PROXY or --proxy.",
    )
}

/// The part of the way where the request was lost, those before it, and those behind it.
fn lost(way: &Way, error: &HttpError) -> Vec<Finding> {
    let text = error.to_string();
    let failed =
        |check| Finding::told(check, error.exit(), &text, "Is the endpoint the right one?");
    let connected = || {
        let reached = format!("{}{} takes connections", way.endpoint, via(way));
        Finding::ok(Check::Connection, reached)
    };
    match error.stage() {
        Some(Stage::Tls) => {
            let mut tls = failed(Check::Tls);
            tls.detail += &format!(" (trusted are {})", way.trust);
            let clock = not_reached(&[Check::Clock], "there is no answer");
            [connected(), tls].into_iter().chain(clock).collect()
        }
        Some(Stage::Answer) => {
            let behind = not_reached(&[Check::Tls, Check::Clock], "there is no answer");
            [failed(Check::Connection)]
                .into_iter()
                .chain(behind)
                .collect()
        }
        Some(Stage::Proxy) => {
            let behind = not_reached(&[Check::Tls, Check::Clock], "the proxy makes no tunnel");
            [failed(Check::Connection)]
                .into_iter()
                .chain(behind)
                .collect()
        }
        Some(Stage::Name | Stage::Connection) | None => {
            let behind = not_reached(&[Check::Tls, Check::Clock], "there is no connection");
            [failed(Check::Connection)]
                .into_iter()
                .chain(behind)
                .collect()
        }
    }
}

fn not_reached(checks: &[Check], why: &str) -> Vec<Finding> {
    let skip = |check: &Check| Finding::skipped(*check, why);
    checks.iter().map(skip).collect()
}

/// More is an omen: clocks drift on.
const WORTH_A_WORD: SignedDuration = SignedDuration::from_mins(1);

/// What SigV4 bears.
const TOO_FAR: SignedDuration = SignedDuration::from_mins(5);

/// How this host's clock stands to AWS's, by the `Date` of an answer.
pub(super) fn judge_clock(date: Option<&str>, now: Timestamp) -> Finding {
    let theirs = date.and_then(|date| rfc2822::parse(date).ok());
    let Some(theirs) = theirs else {
        return Finding::skipped(Check::Clock, "the answer has no Date");
    };
    let ahead = now.duration_since(theirs.timestamp());
    let (seconds, direction) = match ahead.is_negative() {
        true => (-ahead.as_secs(), "behind"),
        false => (ahead.as_secs(), "ahead of"),
    };
    let detail = format!("this host's is {seconds} s {direction} AWS's");
    const REMEDY: &str = "Set it by NTP: timedatectl shows whether it is synchronised.";
    if ahead.abs() > TOO_FAR {
        let detail = format!("{detail}, which bears {} s", TOO_FAR.as_secs());
        return Finding::failed(Check::Clock, Exit::Failed, detail, REMEDY);
    }
    match ahead.abs() > WORTH_A_WORD {
        true => Finding::warning(Check::Clock, detail, REMEDY),
        false => Finding::ok(Check::Clock, detail),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Outcome;

    fn way(knock: Result<Knock, HttpError>) -> Way {
        Way {
            host: "proxy:3128".into(),
            endpoint: "aws.example".into(),
            proxy: Some("http://proxy:3128".into()),
            trust: "the system's CAs".into(),
            addresses: Ok(vec![IpAddr::from([10, 0, 0, 1])]),
            knock,
        }
    }

    fn outcomes(way: &Way) -> Vec<(Check, Outcome)> {
        let findings = judge(way);
        findings
            .iter()
            .map(|one| (one.check, one.outcome))
            .collect()
    }

    fn no_answer(stage: Stage) -> HttpError {
        HttpError::NoAnswer {
            host: "aws.example".into(),
            proxy: None,
            fault: "it says why".into(),
            hint: "what to do",
            stage,
            passing: true,
        }
    }

    const FAILED: Outcome = Outcome::Failed(Exit::Network);

    #[test]
    fn a_request_is_lost_at_one_place() {
        use Outcome::{Ok, Skipped};
        let checks = [Check::Name, Check::Connection, Check::Tls, Check::Clock];
        for (stage, expected) in [
            (Stage::Connection, [Ok, FAILED, Skipped, Skipped]),
            (Stage::Proxy, [Ok, FAILED, Skipped, Skipped]),
            (Stage::Tls, [Ok, Ok, FAILED, Skipped]),
            (Stage::Answer, [Ok, FAILED, Skipped, Skipped]),
        ] {
            let way = way(Err(no_answer(stage)));
            let expected: Vec<_> = checks.into_iter().zip(expected).collect();
            assert_eq!(outcomes(&way), expected, "{stage:?}");
            let failed = judge(&way).into_iter().find(Finding::is_failure).unwrap();
            assert!(failed.detail.contains("it says why"), "{}", failed.detail);
            assert_eq!(failed.remedy.as_deref(), Some("what to do"));
        }
        for addresses in [Result::Ok(vec![]), Err("no such name".to_owned())] {
            let way = Way {
                addresses,
                ..way(Err(no_answer(Stage::Name)))
            };
            let expected = [FAILED, Skipped, Skipped, Skipped];
            assert_eq!(
                outcomes(&way),
                checks.into_iter().zip(expected).collect::<Vec<_>>()
            );
        }
    }

    #[test]
    fn an_answer_says_all_at_once() {
        let knock = Knock {
            took: Duration::from_millis(7),
            date: Some("Thu, 01 Jan 2026 00:00:00 GMT".into()),
            at: "2026-01-01T00:00:01Z".parse().unwrap(),
        };
        let findings = judge(&way(Ok(knock)));
        assert!(findings.iter().all(|one| one.outcome == Outcome::Ok));
        let details: Vec<_> = findings.iter().map(|one| one.detail.as_str()).collect();
        assert_eq!(
            details,
            [
                "proxy:3128 is 10.0.0.1",
                "aws.example through http://proxy:3128 answers, in 7 ms",
                "its certificate is good, by the system's CAs",
                "this host's is 1 s ahead of AWS's",
            ]
        );
    }

    #[test]
    fn a_clock_may_be_a_minute_off_and_not_five() {
        let outcome = |now: &str| {
            let now = format!("2026-01-01T{now}Z").parse().unwrap();
            judge_clock(Some("Thu, 01 Jan 2026 12:00:00 GMT"), now).outcome
        };
        assert_eq!(outcome("12:01:00"), Outcome::Ok);
        assert_eq!(outcome("11:59:00"), Outcome::Ok);
        assert_eq!(outcome("12:01:01"), Outcome::Warning);
        assert_eq!(outcome("11:55:00"), Outcome::Warning);
        assert_eq!(outcome("12:05:01"), Outcome::Failed(Exit::Failed));
        assert_eq!(outcome("11:54:59"), Outcome::Failed(Exit::Failed));
        let now = Timestamp::now();
        for date in [None, Some("yesterday")] {
            assert_eq!(judge_clock(date, now).outcome, Outcome::Skipped);
        }
    }

    #[test]
    fn names_are_looked_up_with_and_without_a_port() {
        for host in ["127.0.0.1", "127.0.0.1:8443", "[::1]", "[::1]:8443"] {
            assert_eq!(addresses(host).unwrap().len(), 1, "{host}");
        }
    }
}
