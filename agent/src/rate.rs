//! How many requests one user may make in a second.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Counts the requests of each user.
#[derive(Debug, Default)]
pub struct Rates(Mutex<HashMap<u32, Bucket>>);

/// What a user has left, in requests; a second gives as many as its rate, and no more than that are kept.
#[derive(Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

/// Beyond so many users, those who have not asked for a second are forgotten: they have all that they may
/// have.
const USER_LIMIT: usize = 256;

impl Rates {
    /// Counts a request, or says no: the user has had `rate` in the last second.
    #[must_use]
    pub fn take(&self, uid: u32, rate: u32, now: Instant) -> bool {
        let rate = f64::from(rate);
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() > USER_LIMIT {
            buckets.retain(|_, bucket| now.saturating_duration_since(bucket.at).as_secs() < 1);
        }
        let bucket = buckets.entry(uid).or_insert(Bucket {
            left: rate,
            at: now,
        });
        let passed = now.saturating_duration_since(bucket.at).as_secs_f64();
        bucket.left = (bucket.left + passed * rate).min(rate);
        bucket.at = now;
        let granted = bucket.left >= 1.0;
        if granted {
            bucket.left -= 1.0;
        }
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_user_has_its_rate_and_no_more() {
        let rates = Rates::default();
        let start = Instant::now();
        let granted = |uid, rate, after| {
            let now = start + Duration::from_millis(after);
            (0..100).filter(|_| rates.take(uid, rate, now)).count()
        };
        assert_eq!(granted(1, 10, 0), 10);
        assert_eq!(granted(2, 10, 0), 10); // each has its own
        assert_eq!(granted(1, 10, 50), 0);
        assert_eq!(granted(1, 10, 550), 5);
        assert_eq!(granted(1, 10, 60_000), 10); // nothing is saved up
        assert_eq!(granted(1, 2, 60_000), 0);
        assert_eq!(granted(1, 2, 61_000), 2); // a reload lowered it
    }

    #[test]
    fn users_are_forgotten() {
        let rates = Rates::default();
        let start = Instant::now();
        for uid in 0..2000 {
            let now = start + Duration::from_millis(10 * u64::from(uid));
            assert!(rates.take(uid, 1, now));
        }
        assert!(rates.0.lock().unwrap().len() <= USER_LIMIT + 1);
    }
}
