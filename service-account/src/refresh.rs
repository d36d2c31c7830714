//! When the keys of a cluster are read again: now and then, and soon where a token names a key that is not known, but
//! however many do, not more often than the pace permits.

use std::time::{Duration, Instant};

/// How often the keys are read.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Between two successful reads at least.
    pub at_least: Duration,
    /// Between two reads where no token wants one.
    pub usual: Duration,
    /// After failures at most, from `at_least` on, doubled each time.
    pub after_failures: Duration,
}

/// When the next read is due.
#[derive(Debug)]
pub struct Refresh {
    pace: Pace,
    last: Option<Last>,
    wanted: bool,
}

#[derive(Debug, Clone, Copy)]
struct Last {
    at: Instant,
    failures: u32,
    random: f64,
}

impl Refresh {
    /// Returns a schedule whose first read is due at once.
    pub fn new(pace: Pace) -> Refresh {
        Refresh {
            pace,
            last: None,
            wanted: false,
        }
    }

    /// Notes that a token names an unknown key; says whether that is news.
    pub fn want(&mut self) -> bool {
        !std::mem::replace(&mut self.wanted, true)
    }

    /// Returns how long until the next read.
    pub fn wait(&self, now: Instant) -> Duration {
        let Some(last) = self.last else {
            return Duration::ZERO;
        };
        let pause = match (last.failures, self.wanted) {
            (0, true) => self.pace.at_least,
            // Nodes that started together do not ask together.
            (0, false) => self.pace.usual.mul_f64(0.75 + 0.25 * last.random),
            (failures, _) => {
                let doubled = 2_u32.saturating_pow(failures - 1);
                let pause = self.pace.at_least.saturating_mul(doubled);
                pause.min(self.pace.after_failures)
            }
        };
        (last.at + pause).saturating_duration_since(now)
    }

    /// Notes that a read begins: what is wanted from now on wants the one after it.
    pub fn begin(&mut self) {
        self.wanted = false;
    }

    /// Notes how a read ended. `random` is from 0 to 1.
    pub fn note(&mut self, is_good: bool, now: Instant, random: f64) {
        let failures = match (is_good, self.last) {
            (true, _) => 0,
            (false, last) => last.map_or(0, |last| last.failures).saturating_add(1),
        };
        let random = random.clamp(0.0, 1.0);
        self.last = Some(Last {
            at: now,
            failures,
            random,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace {
        at_least: Duration::from_secs(10),
        usual: Duration::from_secs(600),
        after_failures: Duration::from_secs(60),
    };

    /// Runs for so long with a token that names an unknown key each tenth of a second; returns how many reads there
    /// were.
    fn reads(refresh: &mut Refresh, now: &mut Instant, time: Duration, is_good: bool) -> u32 {
        let (end, mut reads) = (*now + time, 0);
        while *now < end {
            refresh.want();
            if refresh.wait(*now).is_zero() {
                refresh.begin();
                refresh.note(is_good, *now, 0.5);
                reads += 1;
            }
            *now += Duration::from_millis(100);
        }
        reads
    }

    #[test]
    fn unknown_keys_cost_a_read_each_ten_seconds_and_an_hours_outage_one_a_minute() {
        let (mut refresh, mut now) = (Refresh::new(PACE), Instant::now());
        let hour = Duration::from_secs(3600);
        assert_eq!(reads(&mut refresh, &mut now, hour, true), 360);
        let in_outage = reads(&mut refresh, &mut now, hour, false);
        assert!((60..=65).contains(&in_outage), "{in_outage}");
        // It is back: the next read comes within a minute.
        assert!(refresh.wait(now) <= PACE.after_failures);
        let after = reads(&mut refresh, &mut now, Duration::from_secs(120), true);
        assert!((6..=12).contains(&after), "{after}");
    }

    #[test]
    fn without_unknown_keys_a_read_is_rare() {
        let (mut refresh, now) = (Refresh::new(PACE), Instant::now());
        assert_eq!(refresh.wait(now), Duration::ZERO);
        for (random, seconds) in [(0.0, 450), (1.0, 600)] {
            refresh.begin();
            refresh.note(true, now, random);
            assert_eq!(refresh.wait(now), Duration::from_secs(seconds));
        }
        refresh.want();
        assert_eq!(refresh.wait(now), PACE.at_least);
        refresh.begin(); // what was wanted before it began is served by it
        refresh.note(true, now, 1.0);
        assert_eq!(refresh.wait(now), PACE.usual);
        // A first read that fails is soon tried again, wanted or not.
        refresh.begin();
        refresh.note(false, now, 1.0);
        assert_eq!(refresh.wait(now), PACE.at_least);
    }
}
