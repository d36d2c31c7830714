//! How many requests one user may make in a second.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::sync::lock;

/// What somebody has left of something that a second gives back: `burst` at most.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    pub(crate) fn full(burst: u32, now: Instant) -> Bucket {
        Bucket {
            left: burst.into(),
            at: now,
        }
    }

    /// Takes one, if there is one.
    pub(crate) fn take(&mut self, rate: u32, burst: u32, now: Instant) -> bool {
        self.fill(rate, burst, now);
        let granted = self.left >= 1.0;
        if granted {
            self.left -= 1.0;
        }
        granted
    }

    /// Says whether nothing is missing.
    pub(crate) fn is_full(&mut self, rate: u32, burst: u32, now: Instant) -> bool {
        self.fill(rate, burst, now);
        self.left >= f64::from(burst)
    }

    fn fill(&mut self, rate: u32, burst: u32, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + passed * f64::from(rate)).min(burst.into());
        self.at = now;
    }
}

/// Counts the requests of each user.
#[derive(Debug, Default)]
pub struct Rates(Mutex<Users>);

#[derive(Debug, Default)]
struct Users {
    buckets: HashMap<u32, Bucket>,
    /// Of all users beyond the limit.
    others: Option<Bucket>,
    swept: Option<Instant>,
}

/// Users that have a rate each; a user with subordinate uids has 65,536. Those who have not asked for a second
/// are forgotten: they have all that they may have.
const USER_LIMIT: usize = 1024;

const SECOND: Duration = Duration::from_secs(1);

impl Rates {
    /// Counts a request, or says no: the user has had `rate` in the last second.
    #[must_use]
    pub fn take(&self, uid: u32, rate: u32, now: Instant) -> bool {
        let mut users = lock(&self.0);
        users.bucket(uid, rate, now).take(rate, rate, now)
    }
}

impl Users {
    fn bucket(&mut self, uid: u32, rate: u32, now: Instant) -> &mut Bucket {
        let full = || Bucket::full(rate, now);
        if !self.buckets.contains_key(&uid) && !self.has_room(now) {
            return self.others.get_or_insert_with(full);
        }
        self.buckets.entry(uid).or_insert_with(full)
    }

    /// Looks for users to forget once a second: it looks at all of them.
    fn has_room(&mut self, now: Instant) -> bool {
        let age = |at| now.saturating_duration_since(at);
        if self.buckets.len() >= USER_LIMIT && self.swept.is_none_or(|at| age(at) >= SECOND) {
            self.swept = Some(now);
            self.buckets.retain(|_, bucket| age(bucket.at) < SECOND);
        }
        self.buckets.len() < USER_LIMIT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        for uid in 0..5000 {
            let now = start + Duration::from_millis(10 * u64::from(uid));
            assert!(rates.take(uid, 1, now));
        }
        assert!(rates.0.lock().unwrap().buckets.len() <= USER_LIMIT);
    }

    #[test]
    fn too_many_users_share_one_rate() {
        let rates = Rates::default();
        let start = Instant::now();
        let known: u32 = USER_LIMIT.try_into().unwrap();
        let granted = (0..10 * known).filter(|uid| rates.take(*uid, 1, start));
        assert_eq!(granted.count(), USER_LIMIT + 1);
        assert!(!rates.take(0, 1, start)); // still known
        let later = start + SECOND;
        assert!(rates.take(20 * known, 1, later) && rates.take(20 * known + 1, 1, later));
    }
}
