//! How many requests were decided alike, and when the last one was.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::Timestamp;
use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::{MetricType, TypedMetric};

/// A counter that remembers when it was last counted; Prometheus sees the counter.
#[derive(Debug, Default)]
pub(super) struct TimestampedCounter {
    count: Counter,
    /// In seconds since the epoch, which stands for never.
    last: AtomicI64,
}

impl TimestampedCounter {
    pub(super) fn count(&self, now: Timestamp) {
        self.last.fetch_max(now.as_second(), Ordering::Relaxed);
        // Released: whoever sees the count sees a time, too.
        self.count.inner().fetch_add(1, Ordering::Release);
    }

    pub(super) fn read(&self) -> (u64, Option<Timestamp>) {
        let count = self.count.inner().load(Ordering::Acquire);
        let last = match self.last.load(Ordering::Relaxed) {
            0 => None,
            seconds => Timestamp::from_second(seconds).ok(),
        };
        (count, last)
    }
}

impl TypedMetric for TimestampedCounter {
    const TYPE: MetricType = Counter::<u64>::TYPE;
}

impl EncodeMetric for TimestampedCounter {
    fn encode(&self, encoder: MetricEncoder) -> fmt::Result {
        self.count.encode(encoder)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_last_one_stays_the_last_whichever_is_counted_first() {
        let decided = TimestampedCounter::default();
        assert_eq!(decided.read(), (0, None));
        decided.count(at(8));
        decided.count(at(7));
        assert_eq!(decided.read(), (2, Some(at(8))));
    }

    /// Each is counted while it is read.
    #[test]
    fn what_is_counted_has_a_time() {
        let all: Vec<TimestampedCounter> =
            (0..5_000).map(|_| TimestampedCounter::default()).collect();
        let reached = AtomicUsize::new(0);
        let without_time = std::thread::scope(|scope| {
            scope.spawn(|| {
                for (number, one) in all.iter().enumerate() {
                    while reached.load(Ordering::Relaxed) < number {
                        std::thread::yield_now();
                    }
                    one.count(at(7));
                }
            });
            let first_read = |(number, one): (usize, &TimestampedCounter)| {
                reached.store(number, Ordering::Relaxed);
                std::iter::repeat_with(|| one.read()).find(|(count, _)| *count == 1)
            };
            let first_reads = all.iter().enumerate().map(first_read);
            first_reads
                .filter(|read| *read != Some((1, Some(at(7)))))
                .count()
        });
        assert_eq!(without_time, 0);
    }
}
