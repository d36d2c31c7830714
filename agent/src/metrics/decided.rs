//! How many requests were decided alike, and when the last one was.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::Timestamp;
use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::{MetricType, TypedMetric};

/// A counter that remembers when it was last counted; Prometheus sees the counter.
#[derive(Debug, Default)]
pub(super) struct Decided {
    count: Counter,
    /// In seconds since the epoch, which stands for never.
    last: AtomicI64,
}

impl Decided {
    pub(super) fn count(&self, now: Timestamp) {
        self.last.store(now.as_second(), Ordering::Relaxed);
        self.count.inc();
    }

    pub(super) fn read(&self) -> (u64, Option<Timestamp>) {
        let last = match self.last.load(Ordering::Relaxed) {
            0 => None,
            seconds => Timestamp::from_second(seconds).ok(),
        };
        (self.count.get(), last)
    }
}

impl TypedMetric for Decided {
    const TYPE: MetricType = Counter::<u64>::TYPE;
}

impl EncodeMetric for Decided {
    fn encode(&self, encoder: MetricEncoder) -> fmt::Result {
        self.count.encode(encoder)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}
