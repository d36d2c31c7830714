//! The groups of users, as the user database told them within the last minute.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::sync::lock;

/// Groups by user. A user's groups are asked by one request at a time; those of other users go on meanwhile.
#[derive(Debug, Default)]
pub(super) struct Groups {
    slots: Mutex<HashMap<u32, Slot>>,
    /// First questions in progress: about users of whom nothing is known.
    first: AtomicUsize,
}

type Slot = Arc<Mutex<User>>;

#[derive(Debug, Default)]
struct User {
    asked: Option<Asked>,
    /// The last groups contained one that was asked for: a rule names it.
    member: bool,
}

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

/// More users than a host has at a time. Beyond it the answers about strangers are dropped first: a user with
/// subordinate uids is 65,536 of them.
const USER_LIMIT: usize = 1024;

/// First questions at a time, of the 64 lookups of a launcher: the rest is for users who were members.
const FIRST_LIMIT: usize = 48;

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
        let mut user = lock(&slot);
        if !user.is_known(now) {
            let answer = match user.member {
                true => ask(),
                false => self.ask_first(ask),
            };
            // Groups are those of when they were asked for; a failure has just happened.
            let at = if answer.is_ok() { now } else { Instant::now() };
            user.member &= answer.is_err();
            user.asked = Some(Asked { at, answer });
        }
        let contained = match user.asked.as_ref().map(|asked| &asked.answer) {
            Some(Ok(groups)) => groups.contains(&gid),
            Some(Err(error)) => return Err(error.clone()),
            None => false,
        };
        user.member |= contained;
        Ok(contained)
    }

    fn ask_first(
        &self,
        ask: impl FnOnce() -> Result<Vec<u32>, String>,
    ) -> Result<Vec<u32>, String> {
        let others = self.first.fetch_add(1, Ordering::Relaxed);
        let _first = First(&self.first);
        if others >= FIRST_LIMIT {
            return Err("too many new users at a time".to_owned());
        }
        ask()
    }

    /// Returns whether the user is in the group, if a good answer is there.
    pub(super) fn recall(&self, uid: u32, gid: u32) -> Option<bool> {
        let slot = lock(&self.slots).get(&uid).map(Arc::clone)?;
        let user = slot.try_lock().ok()?; // otherwise it is being asked
        let now = Instant::now();
        let asked = user.asked.as_ref().filter(|asked| asked.is_good(now))?;
        let contained = asked
            .answer
            .as_ref()
            .is_ok_and(|groups| groups.contains(&gid));
        Some(contained)
    }

    /// Returns whether the user database did not tell the user's groups a moment ago.
    pub(super) fn are_unknown(&self, uid: u32) -> bool {
        let slot = lock(&self.slots).get(&uid).map(Arc::clone);
        let failed = |asked: &Asked| asked.answer.is_err() && asked.is_good(Instant::now());
        slot.is_some_and(|slot| lock(&slot).asked.as_ref().is_some_and(failed))
    }

    /// Has the groups of all users asked anew.
    pub(super) fn forget(&self) {
        lock(&self.slots).retain(|_, slot| {
            // One that is locked is being asked: nobody will see that answer.
            let member = slot.try_lock().is_ok_and(|user| user.member);
            *slot = Arc::new(Mutex::new(User {
                asked: None,
                member,
            }));
            member
        });
    }

    fn slot(&self, uid: u32, now: Instant) -> Slot {
        let mut slots = lock(&self.slots);
        if !slots.contains_key(&uid) {
            let kept: [fn(&User, Instant) -> bool; 4] = [
                |user, now| user.member || user.is_known(now),
                |user, _| user.member,
                |user, now| user.member && user.is_known(now),
                |_, _| false,
            ];
            for keep in kept {
                if slots.len() >= USER_LIMIT {
                    // One that is locked is being asked.
                    let keep = |slot: &Slot| slot.try_lock().map_or(true, |user| keep(&user, now));
                    slots.retain(|_, slot| keep(slot));
                }
            }
        }
        Arc::clone(slots.entry(uid).or_default())
    }
}

impl User {
    fn is_known(&self, now: Instant) -> bool {
        self.asked.as_ref().is_some_and(|asked| asked.is_good(now))
    }
}

/// A first question in progress, until it is dropped.
struct First<'a>(&'a AtomicUsize);

impl Drop for First<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Asked {
    fn is_good(&self, now: Instant) -> bool {
        let limit = if self.answer.is_ok() { GOOD_FOR } else { PAUSE };
        now.saturating_duration_since(self.at) < limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
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
        assert!(lock(&groups.slots).len() <= USER_LIMIT);
    }

    #[test]
    fn strangers_push_no_member_out() {
        let (groups, now) = (Groups::default(), Instant::now());
        let asked = groups.contain_at(now, USER, STAFF, || Ok(vec![7, STAFF]));
        assert_eq!(asked, Ok(true));
        for uid in 10_000..15_000 {
            let asked = groups.contain_at(now, uid, STAFF, || Ok(vec![uid]));
            assert_eq!(asked, Ok(false));
        }
        assert!(lock(&groups.slots).len() <= USER_LIMIT);
        assert_eq!(groups.contain_at(now, USER, STAFF, unasked), Ok(true));
    }

    #[test]
    fn first_questions_leave_lookups_for_members() {
        let (groups, now) = (Groups::default(), Instant::now());
        let old = now.checked_sub(GOOD_FOR).unwrap();
        let asked = groups.contain_at(old, USER, STAFF, || Ok(vec![STAFF]));
        assert_eq!(asked, Ok(true));
        let (all, over) = (FIRST_LIMIT + 1, Barrier::new(FIRST_LIMIT + 1));
        let asking = Barrier::new(all);
        std::thread::scope(|scope| {
            for uid in 0..u32::try_from(FIRST_LIMIT).unwrap() {
                let (groups, asking, over) = (&groups, &asking, &over);
                scope.spawn(move || {
                    let ask = || {
                        asking.wait();
                        over.wait();
                        Ok(vec![])
                    };
                    assert_eq!(groups.contain_at(now, 2000 + uid, STAFF, ask), Ok(false));
                });
            }
            asking.wait();
            groups.forget(); // after a reload, too
            let stranger = groups.contain_at(now, 5000, STAFF, || Ok(vec![STAFF]));
            let member = groups.contain_at(now, USER, STAFF, || Ok(vec![STAFF]));
            over.wait();
            assert!(stranger.is_err());
            assert_eq!(member, Ok(true));
        });
        let asked = groups.contain_at(now, 6000, STAFF, || Ok(vec![STAFF]));
        assert_eq!(asked, Ok(true)); // they have their places again
    }

    #[test]
    fn what_is_recalled_was_told_and_nobody_is_asked() {
        let groups = Groups::default();
        assert_eq!(groups.recall(USER, STAFF), None);
        let asked = groups.contain(USER, STAFF, || Ok(vec![STAFF]));
        assert_eq!(asked, Ok(true));
        assert_eq!(groups.recall(USER, STAFF), Some(true));
        assert_eq!(groups.recall(USER, 7), Some(false));
        let slot = groups.slot(USER, Instant::now());
        let asking = lock(&slot);
        assert_eq!(groups.recall(USER, STAFF), None); // it waits for nobody
        drop(asking);
        groups.forget();
        assert_eq!(groups.recall(USER, STAFF), None);
    }
}
