//! The groups of users, as the user database told them within the last minute.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Groups by user. A user's groups are asked by one request at a time; those of other users go on meanwhile.
#[derive(Debug, Default)]
pub(super) struct Groups(Mutex<HashMap<u32, Slot>>);

type Slot = Arc<Mutex<Option<Asked>>>;

#[derive(Debug)]
struct Asked {
    at: Instant,
    answer: Result<Vec<u32>, String>,
}

/// A member who was removed stops within this time. To ask takes a launcher's round trip, which no signature
/// should wait for.
const GOOD_FOR: Duration = Duration::from_secs(60);

/// A user database in trouble is asked no more often for one user: each answer may take ten seconds.
const PAUSE: Duration = Duration::from_secs(1);

/// More users than a host has at a time. Beyond it the oldest answers go, and then all.
const USER_LIMIT: usize = 1024;

impl Groups {
    /// Returns whether the user is in the group; an error of `ask`, which is called where no answer is good.
    pub(super) fn contain(
        &self,
        uid: u32,
        gid: u32,
        ask: impl FnOnce() -> Result<Vec<u32>, String>,
    ) -> Result<bool, String> {
        self.contain_at(Instant::now(), uid, gid, ask)
    }

    fn contain_at(
        &self,
        now: Instant,
        uid: u32,
        gid: u32,
        ask: impl FnOnce() -> Result<Vec<u32>, String>,
    ) -> Result<bool, String> {
        let slot = self.slot(uid, now);
        let mut asked = lock(&slot);
        if !asked.as_ref().is_some_and(|asked| asked.is_good(now)) {
            let answer = ask();
            // Groups are those of when they were asked for; a failure has just happened.
            let at = if answer.is_ok() { now } else { Instant::now() };
            *asked = Some(Asked { at, answer });
        }
        match asked.as_ref().map(|asked| &asked.answer) {
            Some(Ok(groups)) => Ok(groups.contains(&gid)),
            Some(Err(error)) => Err(error.clone()),
            None => Ok(false),
        }
    }

    /// Returns whether the user database did not tell the user's groups a moment ago.
    pub(super) fn are_unknown(&self, uid: u32) -> bool {
        let slot = lock(&self.0).get(&uid).map(Arc::clone);
        let failed = |asked: &Asked| asked.answer.is_err() && asked.is_good(Instant::now());
        slot.is_some_and(|slot| lock(&slot).as_ref().is_some_and(failed))
    }

    /// Has the groups of all users asked anew.
    pub(super) fn forget(&self) {
        lock(&self.0).clear();
    }

    fn slot(&self, uid: u32, now: Instant) -> Slot {
        let mut slots = lock(&self.0);
        if slots.len() >= USER_LIMIT && !slots.contains_key(&uid) {
            // One that is locked is being asked.
            slots.retain(|_, slot| match slot.try_lock() {
                Ok(asked) => asked.as_ref().is_some_and(|asked| asked.is_good(now)),
                Err(_) => true,
            });
            if slots.len() >= USER_LIMIT {
                slots.clear();
            }
        }
        Arc::clone(slots.entry(uid).or_default())
    }
}

impl Asked {
    fn is_good(&self, now: Instant) -> bool {
        let limit = if self.answer.is_ok() { GOOD_FOR } else { PAUSE };
        now.saturating_duration_since(self.at) < limit
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    const USER: u32 = 1000;
    const STAFF: u32 = 50;

    fn unasked() -> Result<Vec<u32>, String> {
        panic!("it is asked")
    }

    #[test]
    fn a_removed_member_stops_after_a_minute_and_after_a_reload() {
        let (groups, start) = (Groups::default(), Instant::now());
        let at = |seconds, ask: fn() -> Result<Vec<u32>, String>| {
            groups.contain_at(start + Duration::from_secs(seconds), USER, STAFF, ask)
        };
        assert_eq!(at(0, || Ok(vec![STAFF])), Ok(true));
        assert_eq!(at(59, unasked), Ok(true));
        assert_eq!(at(60, || Ok(vec![])), Ok(false));
        assert_eq!(at(61, unasked), Ok(false));
        groups.forget();
        assert_eq!(at(61, || Ok(vec![STAFF])), Ok(true));
    }

    #[test]
    fn an_answer_that_does_not_come_leaves_none_of_before() {
        let (groups, now) = (Groups::default(), Instant::now());
        let old = now.checked_sub(GOOD_FOR).unwrap();
        let asked = groups.contain_at(old, USER, STAFF, || Ok(vec![STAFF]));
        assert_eq!(asked, Ok(true));
        assert!(!groups.are_unknown(USER));
        let asked = groups.contain_at(now, USER, STAFF, || Err("gone".into()));
        assert_eq!(asked, Err("gone".into()));
        assert!(groups.are_unknown(USER));
        // Not for each request of a crowd, and again in a moment.
        assert!(groups.contain_at(now, USER, STAFF, unasked).is_err());
        let later = Instant::now() + PAUSE;
        let asked = groups.contain_at(later, USER, STAFF, || Ok(vec![STAFF]));
        assert_eq!(asked, Ok(true));
        assert!(!groups.are_unknown(USER));
    }

    #[test]
    fn a_crowd_asks_once() {
        let (groups, asked) = (Groups::default(), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    let ask = || {
                        asked.fetch_add(1, Ordering::Relaxed);
                        Ok(vec![STAFF])
                    };
                    assert_eq!(groups.contain(USER, STAFF, ask), Ok(true));
                });
            }
        });
        assert_eq!(asked.into_inner(), 1);
    }

    #[test]
    fn any_number_of_users_takes_a_bounded_room() {
        let (groups, now) = (Groups::default(), Instant::now());
        for uid in 0..5000 {
            let asked = groups.contain_at(now, uid, STAFF, || Ok(vec![STAFF]));
            assert_eq!(asked, Ok(true));
        }
        assert!(lock(&groups.0).len() <= USER_LIMIT);
    }
}
