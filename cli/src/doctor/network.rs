//! The network to the endpoint: name, connection, TLS, and AWS's clock.

use std::net::{IpAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

use client::clock_skew::{self, ClockSkew};
use client::exit::Exit;
use client::http::{Http, HttpError, Stage};
use client::target::Target;
use client::timeout::timeout;
use jiff::{SignedDuration, Timestamp};

use super::finding::{Check, Finding, skipped};

/// What an unsigned request shows of the network.
pub(super) struct NetworkProbe {
    /// The host whose name is looked up: the endpoint's, or the proxy's.
    host: String,
    /// The endpoint, and the proxy.
    route: String,
    /// The trusted CAs.
    trust: String,
    addresses: Result<Vec<IpAddr>, String>,
    response: Result<ProbeResponse, HttpError>,
}

/// An answer of any status.
struct ProbeResponse {
    took: Duration,
    skew: Option<ClockSkew>,
}

/// As long as the HTTP client waits for a name.
const NAME_TIMEOUT: Duration = Duration::from_secs(5);

/// For the whole of an unsigned request.
const PROBE_TIMEOUT: Duration = Duration::from_secs(15);

impl NetworkProbe {
    /// Looks up the name, and requests the endpoint's root without a signature.
    pub(super) fn run(target: &Target, http: &Http) -> NetworkProbe {
        let endpoint = target.session.endpoint.host();
        let proxy = target.route.proxy.as_ref().map(|proxy| proxy.shown());
        let host = proxy.map_or(endpoint, |proxy| proxy.split("://").nth(1).unwrap_or(proxy));
        let addresses = addresses(host);
        let begin = Instant::now();
        let response = http
            .probe(endpoint, PROBE_TIMEOUT)
            .map(|answer| ProbeResponse {
                took: begin.elapsed(),
                skew: ClockSkew::of(answer.date.as_deref(), Timestamp::now()),
            });
        NetworkProbe {
            host: host.to_owned(),
            route: match proxy {
                Some(proxy) => format!("{endpoint} through {proxy}"),
                None => endpoint.to_owned(),
            },
            trust: match &target.route.ca_bundle {
                Some(path) => format!("the CAs of {}", path.display()),
                None => "the system's CAs".to_owned(),
            },
            addresses,
            response,
        }
    }

    /// Returns a finding for each part: what lies behind a failure is skipped.
    pub(super) fn findings(&self) -> Vec<Finding> {
        let name = self.name();
        if name.is_failure() {
            let behind = skipped(
                &[Check::Connection, Check::Tls, Check::Clock],
                "there is no address",
            );
            return [vec![name], behind].concat();
        }
        let connection =
            |what: &str| Finding::ok(Check::Connection, format!("{} {what}", self.route));
        let mut findings = vec![name];
        match &self.response {
            Ok(response) => findings.extend([
                connection(&format!("answers within {} ms", response.took.as_millis())),
                Finding::ok(
                    Check::Tls,
                    format!("its certificate is valid, by {}", self.trust),
                ),
                clock(response.skew),
            ]),
            Err(error) if error.stage() == Some(Stage::Tls) => {
                let mut tls = Finding::error(Check::Tls, error);
                tls.detail += &format!(" (trusted are {})", self.trust);
                findings.extend([connection("accepts connections"), tls]);
                findings.extend(skipped(&[Check::Clock], "there is no answer"));
            }
            Err(error) => {
                findings.push(Finding::error(Check::Connection, error));
                findings.extend(skipped(&[Check::Tls, Check::Clock], "there is no answer"));
            }
        }
        findings
    }

    fn name(&self) -> Finding {
        let host = &self.host;
        let fault = match &self.addresses {
            Ok(addresses) if !addresses.is_empty() => {
                let shown: Vec<_> = addresses.iter().map(ToString::to_string).collect();
                return Finding::ok(Check::Name, format!("{host} is {}", shown.join(", ")));
            }
            Ok(_) => "it has no address",
            Err(error) => error,
        };
        Finding::failed(
            Check::Name,
            Exit::Network,
            format!("cannot resolve {host}: {fault}"),
            "check the name (--endpoint, region, proxy), and whether this host resolves others (resolvectl query, getent \
             hosts); if only a proxy reaches AWS, name it with HTTPS_PROXY or --proxy",
        )
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

/// A difference of more than that grows, as nothing synchronizes the clock.
const DRIFT: SignedDuration = SignedDuration::from_mins(1);

fn clock(skew: Option<ClockSkew>) -> Finding {
    let Some(skew) = skew else {
        return Finding::skipped(Check::Clock, "the answer has no Date");
    };
    if !skew.is_tolerated() {
        Finding::failed(
            Check::Clock,
            Exit::Failed,
            skew.to_string(),
            clock_skew::HINT,
        )
    } else if skew.exceeds(DRIFT) {
        Finding::warning(Check::Clock, skew.to_string(), clock_skew::HINT)
    } else {
        Finding::ok(Check::Clock, skew.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Outcome::{self, Failed, Ok as Fine, Skipped, Warning};

    fn outcomes(
        addresses: Result<Vec<IpAddr>, String>,
        response: Result<ProbeResponse, HttpError>,
    ) -> [Outcome; 4] {
        let probe = NetworkProbe {
            host: "proxy:3128".into(),
            route: "aws.example through http://proxy:3128".into(),
            trust: "the system's CAs".into(),
            addresses,
            response,
        };
        let findings = probe.findings();
        let checks: Vec<_> = findings.iter().map(|one| one.check).collect();
        assert_eq!(
            checks,
            [Check::Name, Check::Connection, Check::Tls, Check::Clock]
        );
        let outcomes: Vec<_> = findings.iter().map(|one| one.outcome).collect();
        outcomes.try_into().unwrap()
    }

    fn no_answer(stage: Stage) -> Result<ProbeResponse, HttpError> {
        Err(HttpError::NoAnswer {
            host: "aws.example".into(),
            proxy: None,
            fault: "it says why".into(),
            hint: "what to do",
            stage,
            passing: true,
        })
    }

    #[test]
    fn a_request_is_lost_at_one_check() {
        let address = || Ok(vec![IpAddr::from([10, 0, 0, 1])]);
        let failed = Failed(Exit::Network);
        for stage in [Stage::Connection, Stage::Proxy, Stage::Answer] {
            let expected = [Fine, failed, Skipped, Skipped];
            assert_eq!(outcomes(address(), no_answer(stage)), expected);
        }
        let tls = outcomes(address(), no_answer(Stage::Tls));
        assert_eq!(tls, [Fine, Fine, failed, Skipped]);
        for addresses in [Ok(vec![]), Err("no such name".to_owned())] {
            let name = outcomes(addresses, no_answer(Stage::Name));
            assert_eq!(name, [failed, Skipped, Skipped, Skipped]);
        }
    }

    #[test]
    fn a_clock_may_be_a_minute_off_and_not_five() {
        for (now, expected) in [
            ("12:01:00", Fine),
            ("12:01:01", Warning),
            ("11:55:00", Warning),
            ("12:05:01", Failed(Exit::Failed)),
        ] {
            let now = format!("2026-01-01T{now}Z").parse().unwrap();
            let skew = ClockSkew::of(Some("Thu, 01 Jan 2026 12:00:00 GMT"), now);
            let took = Duration::from_millis(7);
            let address = Ok(vec![IpAddr::from([10, 0, 0, 1])]);
            let response = Ok(ProbeResponse { took, skew });
            assert_eq!(outcomes(address, response), [Fine, Fine, Fine, expected]);
        }
        assert_eq!(clock(None).outcome, Skipped);
    }

    #[test]
    fn names_are_looked_up_with_and_without_a_port() {
        for host in ["127.0.0.1", "127.0.0.1:8443", "[::1]", "[::1]:8443"] {
            assert_eq!(addresses(host).unwrap().len(), 1, "{host}");
        }
    }
}
