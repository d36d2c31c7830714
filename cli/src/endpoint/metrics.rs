//! What Prometheus may ask of `roleseal serve` and `roleseal update`: counts that tries and requests leave behind, and how
//! sessions stand at the time of a scrape. docs/metrics.md has the series.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use client::moment::Moment;
use client::refresh_policy::SetbackKind;
use client::refresher::Status;
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use jiff::Timestamp;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::{Registry, Unit};
use service_account::Refusal;

use super::answer::{Answer, method_not_allowed, open_metrics, refusal};

/// All counts.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    tries: Family<Try, Counter>,
    served: Family<OfTarget, Counter>,
    tokens: Family<Token, Counter>,
}

/// What is counted of one target. Without [`Metrics`] around it, nobody reads it.
#[derive(Debug, Clone, Default)]
pub(crate) struct TargetCounts {
    target: String,
    tries: Family<Try, Counter>,
    served: Family<OfTarget, Counter>,
}

/// What became of a service-account token.
#[derive(Debug, Clone, Copy)]
pub(super) enum TokenOutcome {
    Accepted,
    /// It is sound, and no target permits its account.
    Denied,
    NoToken,
    NoKeys,
    /// By [`Refusal::kind`].
    Refused(&'static str),
}

/// How sessions and keys stand.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    /// Each target's sessions; a target may be here twice.
    pub(crate) targets: Vec<(String, Vec<Status>)>,
    /// The number of keys that verify tokens of pods.
    pub(crate) keys: Option<usize>,
}

/// `GET /metrics`
pub(crate) struct Scrape {
    metrics: Arc<Metrics>,
    snapshot: Box<dyn Fn() -> Snapshot + Send + Sync>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Try {
    target: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfTarget {
    target: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Token {
    outcome: &'static str,
}

/// Outcomes of a try, as [`outcome`] has them.
const OUTCOMES: [&str; 6] = [
    "granted",
    "denied",
    "refused",
    "throttled",
    "unavailable",
    "local",
];

impl Default for Metrics {
    /// Nothing counted yet, by a process that starts now.
    fn default() -> Metrics {
        let mut metrics = Metrics {
            registry: Registry::default(),
            tries: Family::default(),
            served: Family::default(),
            tokens: Family::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let started = Gauge::<f64, AtomicU64>::default();
        started.set(seconds(Timestamp::now()));
        self.registry.register_with_unit(
            "process_start_time",
            "When this process started, since the epoch",
            Unit::Seconds,
            started,
        );
        let ours = self.registry.sub_registry_with_prefix("roleseal");
        // Not an Info: readers of the older text format, such as promtool, stop at that type.
        let build = Family::<[(&str, &str); 1], Gauge>::default();
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        build.get_or_create(&version).set(1);
        ours.register("build_info", "The version of roleseal", build);
        ours.register(
            "session_tries",
            "Tries to get a session",
            self.tries.clone(),
        );
        ours.register(
            "credentials_served",
            "Requests that were answered with credentials",
            self.served.clone(),
        );
        ours.register(
            "service_account_tokens",
            "Requests of pods, by what became of their tokens",
            self.tokens.clone(),
        );
    }

    /// Counts of a target. Each outcome is there from the first scrape on, so that an increase from none to one is seen as
    /// one.
    pub(crate) fn target(&self, name: &str) -> TargetCounts {
        for outcome in OUTCOMES {
            let target = name.to_owned();
            let _ = self.tries.get_or_create(&Try { target, outcome });
        }
        TargetCounts {
            target: name.to_owned(),
            tries: self.tries.clone(),
            served: self.served.clone(),
        }
    }

    /// The same of a target that is served.
    pub(crate) fn served_target(&self, name: &str) -> TargetCounts {
        let target = name.to_owned();
        let _ = self.served.get_or_create(&OfTarget { target });
        self.target(name)
    }

    /// Shows a count of each outcome of a token.
    pub(super) fn expect_tokens(&self) {
        let ours = [
            TokenOutcome::Accepted,
            TokenOutcome::Denied,
            TokenOutcome::NoToken,
            TokenOutcome::NoKeys,
        ];
        let refused = Refusal::KINDS.map(TokenOutcome::Refused);
        for outcome in ours.into_iter().chain(refused) {
            let _ = self.tokens.get_or_create(&outcome.label());
        }
    }

    /// Counts a request of a pod.
    pub(super) fn token(&self, outcome: TokenOutcome) {
        self.tokens.get_or_create(&outcome.label()).inc();
    }

    /// Everything, in the OpenMetrics text format.
    fn text(&self, snapshot: Snapshot, now: Moment) -> Result<String, fmt::Error> {
        let mut states = Registry::with_prefix("roleseal");
        states.register_collector(Box::new(Now::of(snapshot, now)));
        let mut text = String::new();
        text::encode_registry(&mut text, &self.registry)?;
        text::encode_registry(&mut text, &states)?;
        text::encode_eof(&mut text)?;
        Ok(text)
    }
}

impl TargetCounts {
    /// Counts a try that has ended, or a permission that the agent has withdrawn.
    pub(crate) fn tried(&self, status: &Status) {
        let target = self.target.clone();
        let outcome = outcome(status);
        self.tries.get_or_create(&Try { target, outcome }).inc();
    }

    /// Counts an answer with credentials.
    pub(super) fn served(&self) {
        let target = self.target.clone();
        self.served.get_or_create(&OfTarget { target }).inc();
    }
}

fn outcome(status: &Status) -> &'static str {
    let Some(failure) = &status.failure else {
        return "granted";
    };
    match failure.error.setback_kind() {
        _ if failure.error.refused_by_agent() => "denied",
        SetbackKind::Refused => "refused",
        SetbackKind::Throttled => "throttled",
        SetbackKind::Unavailable => "unavailable",
        SetbackKind::Local => "local",
    }
}

impl TokenOutcome {
    fn label(self) -> Token {
        let outcome = match self {
            TokenOutcome::Accepted => "accepted",
            TokenOutcome::Denied => "denied",
            TokenOutcome::NoToken => "no_token",
            TokenOutcome::NoKeys => "no_keys",
            TokenOutcome::Refused(kind) => kind,
        };
        Token { outcome }
    }
}

impl Scrape {
    pub(crate) fn new(
        metrics: &Arc<Metrics>,
        snapshot: impl Fn() -> Snapshot + Send + Sync + 'static,
    ) -> Scrape {
        Scrape {
            metrics: Arc::clone(metrics),
            snapshot: Box::new(snapshot),
        }
    }

    pub(super) fn answer(&self, request: &Parts) -> Answer {
        if !matches!(request.method, Method::GET | Method::HEAD) {
            return method_not_allowed();
        }
        match self.metrics.text((self.snapshot)(), Moment::now()) {
            Ok(text) => open_metrics(text),
            Err(fmt::Error) => refusal(StatusCode::INTERNAL_SERVER_ERROR, "no metrics"),
        }
    }
}

/// How targets and keys stand at the time of a scrape.
#[derive(Debug)]
struct Now {
    targets: BTreeMap<String, TargetState>,
    keys: Option<usize>,
}

/// One target: of several sessions, the one that is next to end or to be tried.
#[derive(Debug)]
struct TargetState {
    valid: bool,
    failed_tries: u32,
    expiry: Option<Timestamp>,
    next_try: Option<Timestamp>,
}

impl Now {
    /// A target whose sessions nobody has asked for is not there.
    fn of(snapshot: Snapshot, now: Moment) -> Now {
        let mut targets: BTreeMap<String, TargetState> = BTreeMap::new();
        for (name, statuses) in snapshot.targets {
            for status in statuses {
                let state = TargetState::of(&status, now);
                match targets.remove(&name) {
                    Some(other) => targets.insert(name.clone(), state.with(&other)),
                    None => targets.insert(name.clone(), state),
                };
            }
        }
        let keys = snapshot.keys;
        Now { targets, keys }
    }

    /// Writes one series with a value for each target that has one.
    fn encode_targets(
        &self,
        encoder: &mut DescriptorEncoder,
        (name, help, unit): (&str, &str, Option<&Unit>),
        value: impl Fn(&TargetState) -> Option<f64>,
    ) -> fmt::Result {
        let mut series = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        for (target, state) in &self.targets {
            if let Some(value) = value(state) {
                let labels = [("target", target.as_str())];
                ConstGauge::new(value).encode(series.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

impl TargetState {
    fn of(status: &Status, now: Moment) -> TargetState {
        let session = status.session.as_ref();
        TargetState {
            valid: status.valid(now),
            failed_tries: status.failure.as_ref().map_or(0, |failure| failure.tries),
            expiry: session.map(|session| session.credentials.expiration),
            next_try: status.next(now),
        }
    }

    fn with(self, other: &TargetState) -> TargetState {
        let first = |one: Option<Timestamp>, other| one.into_iter().chain(other).min();
        TargetState {
            valid: self.valid && other.valid,
            failed_tries: self.failed_tries.max(other.failed_tries),
            expiry: first(self.expiry, other.expiry),
            next_try: first(self.next_try, other.next_try),
        }
    }
}

impl Collector for Now {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let encoder = &mut encoder;
        let seconds_of = |time: Option<Timestamp>| time.map(seconds);
        self.encode_targets(
            encoder,
            (
                "session_valid",
                "1 while the target has a session that is valid, else 0.",
                None,
            ),
            |state| Some(f64::from(u8::from(state.valid))),
        )?;
        self.encode_targets(
            encoder,
            (
                "session_expiry_timestamp",
                "When the latest session expires, since the epoch.",
                Some(&Unit::Seconds),
            ),
            |state| seconds_of(state.expiry),
        )?;
        self.encode_targets(
            encoder,
            (
                "session_failed_tries",
                "Tries that failed since the last success.",
                None,
            ),
            |state| Some(f64::from(state.failed_tries)),
        )?;
        self.encode_targets(
            encoder,
            (
                "session_next_try_timestamp",
                "When the next session is requested, since the epoch.",
                Some(&Unit::Seconds),
            ),
            |state| seconds_of(state.next_try),
        )?;
        let Some(keys) = self.keys else {
            return Ok(());
        };
        let keys = u32::try_from(keys).unwrap_or(u32::MAX);
        let series = encoder.encode_descriptor(
            "cluster_keys",
            "Keys of the cluster that verify tokens of pods.",
            None,
            MetricType::Gauge,
        )?;
        ConstGauge::new(keys).encode(series)
    }
}

fn seconds(time: Timestamp) -> f64 {
    time.as_duration().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use client::refresher::Failure;

    use super::*;
    use crate::test_support::session;

    fn at(time: &str) -> Timestamp {
        time.parse().unwrap()
    }

    #[test]
    fn of_several_sessions_the_worst_counts() {
        let [begin, first, last] =
            ["12:00", "13:00", "14:00"].map(|t| format!("2026-01-01T{t}:00Z"));
        let with_session = |end: &str| {
            let mut status = Status::default();
            status.session = Some(Arc::new(session("A", &begin, end)));
            status
        };
        let mut failed = with_session(&first);
        failed.failure = Some(Failure {
            error: Arc::new(client::Error::Lost),
            since: at(&begin),
            tries: 3,
        });
        let state = |statuses: &[&Status], now: &str| {
            let now = Moment {
                wall: at(now),
                ..Moment::now()
            };
            let one = |status: &&Status| ("web".to_owned(), vec![(*status).clone()]);
            let targets = statuses.iter().map(one).collect();
            let snapshot = Snapshot {
                targets,
                keys: None,
            };
            let state = Now::of(snapshot, now).targets.remove("web").unwrap();
            (state.valid, state.failed_tries, state.expiry)
        };
        let good = with_session(&last);
        for both in [[&good, &failed], [&failed, &good]] {
            assert_eq!(state(&both, &begin), (true, 3, Some(at(&first))));
            assert_eq!(state(&both, &first), (false, 3, Some(at(&first))));
        }
        assert_eq!(state(&[&good], &first), (true, 0, Some(at(&last))));
        let none = Status::default();
        assert_eq!(state(&[&none], &begin), (false, 0, None));
    }
}
