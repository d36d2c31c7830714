//! How many lines refusals take: the first ones of a caller are written in full, the others are counted, by reason,
//! and their counts are written once a second. However many callers there are, the lines in a second are bounded.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::line::Fields;
use crate::rate::Bucket;

/// A caller that is refused.
#[derive(Debug, Clone, Copy)]
pub struct Refused {
    /// Its user.
    pub uid: u32,
    /// A rule names it.
    pub named: bool,
    /// The kind of refusal.
    pub reason: &'static str,
}

/// What is counted and not yet written.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    named: Group,
    unnamed: Group,
    /// Nothing waits for its second any more.
    ending: bool,
}

/// Callers that have few lines together.
#[derive(Debug, Default)]
struct Group {
    callers: HashMap<u32, Caller>,
    /// All callers beyond the limit of the group.
    others: Option<Caller>,
}

#[derive(Debug)]
struct Caller {
    in_full: Bucket,
    counts: BTreeMap<&'static str, u64>,
    /// When the first of these was counted.
    since: Option<Instant>,
}

/// Refusals of one caller that were counted together.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Repeated {
    /// `None` for several users.
    uid: Option<u32>,
    counts: BTreeMap<&'static str, u64>,
}

/// Lines in full that a caller gets at once, and in a second: enough for a person who tries something.
const AT_ONCE: u32 = 8;
const A_SECOND: u32 = 1;

/// How long refusals are counted before their number is written.
const SECOND: Duration = Duration::from_secs(1);

/// Users that have lines of their own: a user with subordinate uids has 65,536. Together with the others of each group
/// they write some 80 lines a second at most.
const NAMED: usize = 32;
const UNNAMED: usize = 8;

impl Refusals {
    /// Says whether this one is written in full; counts it if not.
    pub(super) fn admit(&mut self, refused: Refused, now: Instant) -> bool {
        let (group, limit) = match refused.named {
            true => (&mut self.named, NAMED),
            false => (&mut self.unnamed, UNNAMED),
        };
        let caller = group.caller(refused.uid, limit, now);
        let in_full = caller.in_full.take(A_SECOND, AT_ONCE, now);
        if !in_full {
            caller.since.get_or_insert(now);
            *caller.counts.entry(refused.reason).or_default() += 1;
        }
        in_full
    }

    /// When the next counts are to be written.
    pub(super) fn due(&self) -> Option<Instant> {
        let since = self.groups().into_iter().flat_map(Group::since).min()?;
        Some(if self.ending { since } else { since + SECOND })
    }

    /// Counts whose second is over.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Repeated> {
        let due = self.due().filter(|due| *due <= now)?;
        let since = if self.ending { due } else { due - SECOND };
        let groups = [&mut self.named, &mut self.unnamed];
        groups.into_iter().find_map(|group| group.take(since))
    }

    /// From now on counts are due at once.
    pub(super) fn end(&mut self) {
        self.ending = true;
    }

    fn groups(&self) -> [&Group; 2] {
        [&self.named, &self.unnamed]
    }
}

impl Group {
    fn caller(&mut self, uid: u32, limit: usize, now: Instant) -> &mut Caller {
        if !self.callers.contains_key(&uid) && self.callers.len() >= limit {
            self.callers.retain(|_, caller| !caller.is_quiet(now));
            if self.callers.len() >= limit {
                return self.others.get_or_insert_with(|| Caller::new(now));
            }
        }
        self.callers.entry(uid).or_insert_with(|| Caller::new(now))
    }

    fn since(&self) -> impl Iterator<Item = Instant> {
        let callers = self.callers.values().chain(&self.others);
        callers.filter_map(|caller| caller.since)
    }

    fn take(&mut self, since: Instant) -> Option<Repeated> {
        let callers = self.callers.iter_mut();
        let mut all = callers
            .map(|(uid, caller)| (Some(*uid), caller))
            .chain(self.others.as_mut().map(|others| (None, others)));
        let (uid, caller) = all.find(|(_, caller)| caller.since == Some(since))?;
        caller.since = None;
        Some(Repeated {
            uid,
            counts: std::mem::take(&mut caller.counts),
        })
    }
}

impl Caller {
    fn new(now: Instant) -> Caller {
        Caller {
            in_full: Bucket::full(AT_ONCE, now),
            counts: BTreeMap::new(),
            since: None,
        }
    }

    /// Nothing is lost by forgetting it.
    fn is_quiet(&mut self, now: Instant) -> bool {
        self.since.is_none() && self.in_full.is_full(A_SECOND, AT_ONCE, now)
    }
}

impl Repeated {
    /// As the log has it.
    pub(super) fn fields(&self) -> Fields {
        let reasons = self.counts.iter();
        let reasons = reasons.map(|(reason, count)| ((*reason).to_owned(), Value::from(*count)));
        vec![
            ("uid", self.uid.into()),
            ("refused", self.counts.values().sum::<u64>().into()),
            ("reasons", Value::Object(reasons.collect())),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(uid: u32, named: bool, reason: &'static str) -> Refused {
        Refused { uid, named, reason }
    }

    fn all_due(refusals: &mut Refusals, now: Instant) -> Vec<Repeated> {
        std::iter::from_fn(|| refusals.take_due(now)).collect()
    }

    fn total(repeated: &[Repeated]) -> u64 {
        repeated.iter().flat_map(|one| one.counts.values()).sum()
    }

    #[test]
    fn the_first_are_in_full_and_the_others_a_line_a_second() {
        let (mut refusals, start) = (Refusals::default(), Instant::now());
        let (mut in_full, mut repeated) = (0, Vec::new());
        for step in 0..10_000_u32 {
            let now = start + Duration::from_millis(step.into());
            let reason = if step % 4 == 0 {
                "Busy"
            } else {
                "NotPermitted"
            };
            in_full += u64::from(refusals.admit(refused(7, true, reason), now));
            repeated.extend(refusals.take_due(now));
        }
        assert!((8..=18).contains(&in_full), "{in_full}");
        assert!((8..=10).contains(&repeated.len()), "{repeated:?}");
        refusals.end();
        repeated.extend(all_due(&mut refusals, start + SECOND * 10));
        assert_eq!(in_full + total(&repeated), 10_000); // each is in one of them
        assert!(repeated.iter().all(|one| one.uid == Some(7)));
        assert!(repeated[0].counts["NotPermitted"] > repeated[0].counts["Busy"]);
        assert_eq!(refusals.due(), None);
    }

    #[test]
    fn the_last_ones_are_due_when_their_second_is_over() {
        let (mut refusals, start) = (Refusals::default(), Instant::now());
        let in_full = (0..9).filter(|_| refusals.admit(refused(7, false, "Busy"), start));
        assert_eq!(in_full.count(), 8);
        assert_eq!(refusals.due(), Some(start + SECOND));
        assert_eq!(refusals.take_due(start), None);
        let repeated = refusals.take_due(start + SECOND).unwrap();
        assert_eq!((repeated.uid, repeated.counts["Busy"]), (Some(7), 1));
        assert_eq!(refusals.due(), None);
    }

    #[test]
    fn however_many_users_there_are_they_write_few_lines_and_no_other_users_are_lost() {
        let (mut refusals, start) = (Refusals::default(), Instant::now());
        let mut in_full = 0;
        for uid in 1..=65_536 {
            in_full += usize::from(refusals.admit(refused(uid, false, "Busy"), start));
        }
        assert_eq!(in_full, UNNAMED + 8); // each that is known, and eight of the others
        assert!(refusals.unnamed.callers.len() <= UNNAMED);
        assert!(refusals.admit(refused(1000, true, "Busy"), start)); // a user whom a rule names
        let repeated = all_due(&mut refusals, start + SECOND);
        assert_eq!(repeated.len(), 1);
        assert_eq!(total(&repeated), 65_536 - in_full as u64);
        assert_eq!(repeated[0].uid, None);
        // Later, the place of who was quiet is another's.
        let later = start + SECOND * 20;
        assert!(refusals.admit(refused(70_000, false, "Busy"), later));
        assert!(refusals.unnamed.callers.contains_key(&70_000));
    }
}
