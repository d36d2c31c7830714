//! When to try again, and when not to any more: capped exponential backoff with full jitter.

use std::time::Duration;

/// What is tried, and how often at most.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    /// The longest first pause; each later one may be twice as long.
    pub base: Duration,
    /// No pause is longer.
    pub cap: Duration,
}

impl Backoff {
    /// The pause after so many failures: anything up to twice the last longest, so that many who failed
    /// together do not come back together. `random` is from 0 to 1.
    pub fn pause(self, failures: u32, random: f64) -> Duration {
        self.longest(failures).mul_f64(random.clamp(0.0, 1.0))
    }

    /// The same, but never less than half of it: for who comes back for ever.
    pub fn steady_pause(self, failures: u32, random: f64) -> Duration {
        self.longest(failures)
            .mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
    }

    fn longest(self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(31); // far beyond any cap
        self.base
            .saturating_mul(1u32.checked_shl(doublings).unwrap_or(u32::MAX))
            .min(self.cap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_cap_and_are_anything_below() {
        let backoff = Backoff {
            base: Duration::from_millis(400),
            cap: Duration::from_secs(3),
        };
        let longest = |failures| backoff.pause(failures, 1.0).as_millis();
        assert_eq!(
            [1, 2, 3, 4, 5, u32::MAX].map(longest),
            [400, 800, 1600, 3000, 3000, 3000]
        );
        assert_eq!(backoff.pause(3, 0.0), Duration::ZERO);
        assert_eq!(backoff.pause(3, 0.25).as_millis(), 400);
        assert_eq!(backoff.steady_pause(3, 0.0).as_millis(), 800);
        assert_eq!(backoff.steady_pause(3, 1.0).as_millis(), 1600);
    }
}
