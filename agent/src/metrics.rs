//! What Prometheus may ask of the agent: counts that requests leave behind, and what is so at the time of
//! a scrape. docs/metrics.md has the series.

mod timestamped_counter;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use config::renewal::Record;
use jiff::Timestamp;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use token::Pkcs11Uri;
use token::link::Open;
use wire::State;

use crate::decision::{Decision, Outcome};
use crate::identity::Identities;
use crate::log;
use crate::token_worker::TokenWorker;
use timestamped_counter::TimestampedCounter;

/// All series, and what requests write of them.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<Request, TimestampedCounter>,
    token_seconds: Family<Token, Histogram>,
    connections: Gauge,
    connections_refused: Counter,
    connections_evicted: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    /// Empty where none of the configured ones was meant: a caller's own words are no label.
    identity: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Token {
    token: String,
}

/// An open connection; counted until it is dropped.
#[derive(Debug)]
pub struct OpenConnection(Gauge);

/// What the identities and their tokens are like at the time of a scrape.
#[derive(Debug)]
struct Now(Arc<Identities>);

/// From an EC key in SoftHSM to a smart card that others wait for, in seconds.
const BUCKETS: [f64; 16] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];

/// As `ListIdentities` names them.
const STATES: [(State, &str); 5] = [
    (State::Opening, "opening"),
    (State::Ready, "ready"),
    (State::Unavailable, "unavailable"),
    (State::PinRejected, "pinRejected"),
    (State::Unusable, "unusable"),
];

const SECONDS_A_DAY: f64 = 86_400.0;

impl Default for Metrics {
    /// Nothing counted yet, by an agent that starts now.
    fn default() -> Metrics {
        let mut metrics = Metrics {
            registry: Registry::default(),
            requests: Family::default(),
            token_seconds: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            connections: Gauge::default(),
            connections_refused: Counter::default(),
            connections_evicted: Counter::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let started = Gauge::<f64, std::sync::atomic::AtomicU64>::default();
        started.set(Timestamp::now().as_duration().as_secs_f64());
        self.registry.register_with_unit(
            "process_start_time",
            "When the agent started, since the epoch",
            Unit::Seconds,
            started,
        );
        let ours = self.registry.sub_registry_with_prefix("roleseal");
        // Not an Info: readers of the older text format, such as promtool, stop at that type.
        let build = Family::<[(&str, &str); 1], Gauge>::default();
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        build.get_or_create(&version).set(1);
        ours.register("build_info", "The agent's version", build);
        ours.register(
            "requests",
            "CreateSession requests that were decided",
            self.requests.clone(),
        );
        ours.register_with_unit(
            "token",
            "How long signatures took, from a token's queue to its answer",
            Unit::Seconds,
            self.token_seconds.clone(),
        );
        ours.register(
            "connections",
            "Clients that are connected",
            self.connections.clone(),
        );
        ours.register(
            "connections_refused",
            "Connections that were too many",
            self.connections_refused.clone(),
        );
        ours.register(
            "connections_evicted",
            "Idle connections that were closed for others",
            self.connections_evicted.clone(),
        );
    }

    /// Counts a request that is decided now.
    pub fn decided(&self, decision: &Decision, now: Timestamp) {
        let name = decision.identity.map(|identity| identity.name.as_str());
        if let (Outcome::Signed, Some(identity), Some(time)) =
            (decision.outcome, decision.identity, decision.token_time)
        {
            self.took(identity.worker(), time);
        }
        let request = Request::new(name.unwrap_or_default(), decision.outcome.name());
        self.requests.get_or_create(&request).count(now);
    }

    /// How many requests were signed for the identity, whoever asked, and when the last one was.
    pub fn signed(&self, identity: &str) -> (u64, Option<Timestamp>) {
        let signed = Outcome::Signed.name();
        let signed = self.requests.get(&Request::new(identity, signed));
        signed.map_or((0, None), |signed| signed.read())
    }

    fn took(&self, worker: &TokenWorker, time: Duration) {
        let token = Token {
            token: name(worker),
        };
        self.token_seconds
            .get_or_create(&token)
            .observe(time.as_secs_f64());
    }

    /// Counts a connection as open, until the answer is dropped.
    pub fn connected(&self) -> OpenConnection {
        self.connections.inc();
        OpenConnection(self.connections.clone())
    }

    /// Returns whether a client is connected.
    pub fn has_connections(&self) -> bool {
        self.connections.get() > 0
    }

    /// Counts a connection that was one too many.
    pub fn connection_refused(&self) {
        self.connections_refused.inc();
    }

    /// Counts a connection that was closed to make room.
    pub fn connection_evicted(&self) {
        self.connections_evicted.inc();
    }

    /// Everything, in the OpenMetrics text format.
    pub fn text(&self, identities: &Arc<Identities>) -> Result<String, fmt::Error> {
        for identity in identities.iter() {
            // From the first scrape on, so that an increase from none to one is seen as one.
            let request = Request::new(&identity.name, Outcome::Signed.name());
            let _ = self.requests.get_or_create(&request);
        }
        let mut now = Registry::with_prefix("roleseal");
        now.register_collector(Box::new(Now(Arc::clone(identities))));
        let mut text = String::new();
        text::encode_registry(&mut text, &self.registry)?;
        text::encode_registry(&mut text, &now)?;
        text::encode_eof(&mut text)?;
        Ok(text)
    }
}

impl Request {
    fn new(identity: &str, outcome: &'static str) -> Request {
        Request {
            identity: identity.to_owned(),
            outcome,
        }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A token's name, which no other has: a URI with the module, or the way to a TPM.
fn name(worker: &TokenWorker) -> String {
    match worker.open() {
        Open::Pkcs11(open) => Pkcs11Uri {
            module_path: Some(open.token.module.clone()),
            ..Pkcs11Uri::from(open.token.token.clone())
        }
        .to_string(),
        Open::Tpm(open) => open.tcti.to_string(),
    }
}

impl Collector for Now {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        encode_tokens(&self.0, &mut encoder)?;
        encode_states(&self.0, &mut encoder)?;
        encode_expiries(&self.0, &mut encoder)?;
        encode_renewals(&self.0, &mut encoder)?;
        let lost = encoder.encode_descriptor(
            "log_lines_lost",
            "Lines of the log that standard error did not take.",
            None,
            MetricType::Counter,
        )?;
        ConstCounter::new(log::lost()).encode(lost)
    }
}

fn encode_tokens(identities: &Identities, encoder: &mut DescriptorEncoder) -> fmt::Result {
    let mut depths = encoder.encode_descriptor(
        "token_queue_depth",
        "Requests that wait for the token.",
        None,
        MetricType::Gauge,
    )?;
    for worker in identities.workers() {
        let depth = ConstGauge::new(worker.waiting());
        depth.encode(depths.encode_family(&[("token", name(worker))])?)?;
    }
    let mut restarts = encoder.encode_descriptor(
        "token_process_restarts",
        "How often the token's program was started again.",
        None,
        MetricType::Counter,
    )?;
    for worker in identities.workers() {
        let count = ConstCounter::new(worker.starts().saturating_sub(1));
        count.encode(restarts.encode_family(&[("token", name(worker))])?)?;
    }
    Ok(())
}

fn encode_states(identities: &Identities, encoder: &mut DescriptorEncoder) -> fmt::Result {
    let now = Timestamp::now();
    let mut states = encoder.encode_descriptor(
        "identity_state",
        "1 for the state that the identity is in, 0 for the others.",
        None,
        MetricType::Gauge,
    )?;
    for identity in identities.iter() {
        let current = identity.describe(now).state;
        for (state, name) in STATES {
            let labels = [("identity", identity.name.as_str()), ("state", name)];
            let is_it = ConstGauge::new(i64::from(state == current));
            is_it.encode(states.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

/// As the renewer has left it beside each certificate.
fn encode_renewals(identities: &Identities, encoder: &mut DescriptorEncoder) -> fmt::Result {
    let records: Vec<(&str, Record)> = identities
        .iter()
        .filter_map(|identity| Some((identity.name.as_str(), identity.renewal()?.record())))
        .collect();
    let mut failures = encoder.encode_descriptor(
        "renewal_failures",
        "Renewals of the identity's certificate that failed since the last one that succeeded.",
        None,
        MetricType::Gauge,
    )?;
    for (identity, record) in &records {
        let labels = [("identity", *identity)];
        ConstGauge::new(i64::from(record.failures)).encode(failures.encode_family(&labels)?)?;
    }
    for (name, help, time) in [
        (
            "renewal_last_success_timestamp",
            "When the identity's certificate was last renewed, since the epoch.",
            (|record| Some(record.renewed.as_ref()?.at)) as fn(&Record) -> Option<Timestamp>,
        ),
        (
            "renewal_last_failure_timestamp",
            "When a renewal of the identity's certificate last failed, if none has succeeded since, since the epoch.",
            |record| Some(record.failure.as_ref()?.at),
        ),
    ] {
        let mut times =
            encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Gauge)?;
        for (identity, record) in &records {
            if let Some(at) = time(record) {
                let labels = [("identity", *identity)];
                let seconds = ConstGauge::new(at.as_duration().as_secs_f64());
                seconds.encode(times.encode_family(&labels)?)?;
            }
        }
    }
    Ok(())
}

fn encode_expiries(identities: &Identities, encoder: &mut DescriptorEncoder) -> fmt::Result {
    let expiries: Vec<(&str, f64)> = identities
        .iter()
        .filter_map(|identity| {
            let expiry = identity.expiry()?.as_duration().as_secs_f64();
            Some((identity.name.as_str(), expiry))
        })
        .collect();
    let mut seconds = encoder.encode_descriptor(
        "certificate_expiry_timestamp",
        "When the identity's certificate expires, since the epoch.",
        Some(&Unit::Seconds),
        MetricType::Gauge,
    )?;
    for (identity, expiry) in &expiries {
        let labels = [("identity", *identity)];
        ConstGauge::new(*expiry).encode(seconds.encode_family(&labels)?)?;
    }
    let now = Timestamp::now().as_duration().as_secs_f64();
    let mut days = encoder.encode_descriptor(
        "certificate_expiry_days",
        "Days until the identity's certificate expires, negative afterwards.",
        None,
        MetricType::Gauge,
    )?;
    for (identity, expiry) in &expiries {
        let labels = [("identity", *identity)];
        let left = ConstGauge::new((expiry - now) / SECONDS_A_DAY);
        left.encode(days.encode_family(&labels)?)?;
    }
    Ok(())
}
