//! Who has how many connections, and whose idle one makes room for whom.
//!
//! Callers whom no rule names have a small part of the table. Those who are named share the rest: when it is full, the
//! user with the most connections gives one up. Nobody loses a connection on which a request is under way.

use std::collections::HashMap;
use std::time::Instant;

use config::Limits;

/// How many connections each user has.
#[derive(Debug, Default)]
pub(super) struct Places {
    named: Part,
    unnamed: Part,
    /// Clients without a place, whose groups and units are being asked about.
    door: Part,
}

#[derive(Debug, Default)]
struct Part {
    users: HashMap<u32, u32>,
    all: u32,
}

/// Whose connection it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) uid: u32,
    /// A rule names it, or it is root or the agent's own user.
    pub(super) named: bool,
}

/// A connection on which no request is under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Idle {
    pub(super) id: u64,
    pub(super) holder: Holder,
    pub(super) since: Instant,
}

/// What becomes of a client that connects.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// There is room.
    Admit,
    /// Once this idle connection is closed.
    InPlaceOf(u64),
    Refuse,
}

/// Of the table, the part that users with few connections have for themselves, and beyond how many connections a user
/// has no more of that: one part in so many. Even requests under way do not fill it.
const SPARE: u32 = 16;

/// Beyond the table, connections of root and of the agent's own user.
const OWN: u32 = 16;

/// Clients at the door. Each has a thread while the user database or the launcher is asked.
const DOOR: u32 = 256;

/// Of them, those of one user: a few strangers do not fill it.
const DOOR_EACH: u32 = DOOR / 4;

impl Places {
    /// Says what becomes of a client. `own`: it is root or the agent's own user. `idle` is asked only where there is no room.
    pub(super) fn judge(
        &self,
        client: Holder,
        own: bool,
        limits: &Limits,
        idle: impl FnOnce() -> Vec<Idle>,
    ) -> Verdict {
        let has = self.part(client.named).of(client.uid);
        if client.named && has >= limits.connections_per_user {
            return Verdict::Refuse;
        }
        let spare = limits.connections / SPARE;
        let room = match client.named {
            true if own => limits.connections + OWN,
            true if has >= spare.max(1) => limits.connections - spare,
            _ => limits.connections,
        };
        let full = self.named.all + self.unnamed.all >= room;
        if !full && (client.named || self.unnamed.all < limits.connections_unnamed) {
            return Verdict::Admit;
        }
        let idle = idle();
        let unnamed = (!client.named).then_some((client.uid, has));
        let found = self.unnamed.gives(&idle, false, unnamed).or_else(|| {
            let named = client.named.then_some((client.uid, has))?;
            self.named.gives(&idle, true, Some(named))
        });
        found.map_or(Verdict::Refuse, Verdict::InPlaceOf)
    }

    /// Counts a connection.
    pub(super) fn enter(&mut self, holder: Holder) {
        self.part_mut(holder.named).enter(holder.uid);
    }

    /// Counts it no more.
    pub(super) fn leave(&mut self, holder: Holder) {
        self.part_mut(holder.named).leave(holder.uid);
    }

    /// Lets a client wait at the door until its user's groups are known, if there are not too many.
    pub(super) fn enter_door(&mut self, uid: u32) -> bool {
        let fits = self.door.all < DOOR && self.door.of(uid) < DOOR_EACH;
        if fits {
            self.door.enter(uid);
        }
        fits
    }

    /// Counts it no more.
    pub(super) fn leave_door(&mut self, uid: u32) {
        self.door.leave(uid);
    }

    fn part(&self, named: bool) -> &Part {
        if named { &self.named } else { &self.unnamed }
    }

    fn part_mut(&mut self, named: bool) -> &mut Part {
        if named {
            &mut self.named
        } else {
            &mut self.unnamed
        }
    }
}

impl Part {
    fn enter(&mut self, uid: u32) {
        *self.users.entry(uid).or_default() += 1;
        self.all += 1;
    }

    fn leave(&mut self, uid: u32) {
        if let Some(count) = self.users.get_mut(&uid) {
            *count -= 1;
            self.all -= 1;
            if *count == 0 {
                self.users.remove(&uid);
            }
        }
    }

    fn of(&self, uid: u32) -> u32 {
        self.users.get(&uid).copied().unwrap_or_default()
    }

    /// The idlest connection of the user with the most, of those with an idle one. For a client of the same part, only
    /// its own user or one with more gives anything.
    fn gives(&self, idle: &[Idle], named: bool, client: Option<(u32, u32)>) -> Option<u64> {
        let own = |one: &Idle| client.is_some_and(|(uid, _)| one.holder.uid == uid);
        idle.iter()
            .filter(|one| one.holder.named == named)
            .filter(|one| {
                let more = |(_, has)| self.of(one.holder.uid) > has;
                own(one) || client.is_none_or(more)
            })
            .max_by_key(|one| {
                let idlest = std::cmp::Reverse(one.since);
                (self.of(one.holder.uid), own(one), idlest)
            })
            .map(|one| one.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const LIMITS: Limits = Limits {
        connections: 64,
        connections_per_user: 32,
        connections_unnamed: 8,
        requests_per_second_per_user: None,
        requests_per_second_unnamed: 1,
    };

    /// A table, and all of its connections in the order of their last use.
    struct Table {
        places: Places,
        idle: Vec<Idle>,
        busy: Vec<Holder>,
        next: u64,
        start: Instant,
    }

    impl Table {
        fn new() -> Table {
            Table {
                places: Places::default(),
                idle: Vec::new(),
                busy: Vec::new(),
                next: 0,
                start: Instant::now(),
            }
        }

        /// Connects; says whether it was admitted.
        fn connect(&mut self, uid: u32, named: bool) -> bool {
            let client = Holder { uid, named };
            match self
                .places
                .judge(client, uid == 0, &LIMITS, || self.idle.clone())
            {
                Verdict::Refuse => return false,
                Verdict::Admit => {}
                Verdict::InPlaceOf(id) => {
                    let at = self.idle.iter().position(|one| one.id == id).unwrap();
                    self.places.leave(self.idle.remove(at).holder);
                }
            }
            self.places.enter(client);
            self.next += 1;
            self.idle.push(Idle {
                id: self.next,
                holder: client,
                since: self.start + Duration::from_millis(self.next),
            });
            true
        }

        /// Has a request under way on all connections.
        fn work(&mut self) {
            let idle = self.idle.drain(..);
            self.busy.extend(idle.map(|one| one.holder));
        }

        fn has(&self, uid: u32) -> usize {
            let idle = self.idle.iter().map(|one| &one.holder);
            let all = idle.chain(&self.busy);
            all.filter(|holder| holder.uid == uid).count()
        }
    }

    #[test]
    fn the_unnamed_have_their_part_and_the_idlest_goes_first() {
        let mut table = Table::new();
        for uid in 100..1100 {
            assert!(table.connect(uid, false));
        }
        assert_eq!(table.idle.len(), 8);
        assert!(table.idle.iter().all(|one| one.holder.uid >= 1092));
        table.work();
        assert!(!table.connect(2000, false)); // none of them is idle
        assert!(table.connect(1, true) && table.connect(0, true));
    }

    #[test]
    fn one_of_the_unnamed_does_not_take_what_others_of_them_have() {
        let mut table = Table::new();
        assert!(table.connect(100, false));
        for _ in 0..1000 {
            assert!(table.connect(200, false));
        }
        assert_eq!((table.has(100), table.has(200)), (1, 7));
        assert!(table.connect(300, false));
        assert_eq!((table.has(100), table.has(200), table.has(300)), (1, 6, 1));
        // Not even while it works on all that it has.
        let (theirs, others) = table.idle.drain(..).partition(|one| one.holder.uid == 200);
        table.idle = theirs;
        table.work();
        table.idle = others;
        assert!(!table.connect(200, false));
        assert!(table.connect(400, false)); // who has none is let in
    }

    #[test]
    fn a_named_user_has_its_limit_and_the_idle_unnamed_go_first() {
        let mut table = Table::new();
        for uid in 100..108 {
            assert!(table.connect(uid, false));
        }
        let admitted = (0..100).filter(|_| table.connect(1, true)).count();
        assert_eq!(admitted, 32);
        for _ in 0..100 {
            assert!(table.connect(2, true)); // in place of others, then of its own
        }
        assert_eq!((table.has(1), table.has(2), table.idle.len()), (30, 30, 60));
    }

    #[test]
    fn two_users_leave_room_for_all_others_and_share_what_they_have() {
        for working in [false, true] {
            let mut table = Table::new();
            for _ in 0..32 {
                table.connect(1, true);
            }
            if working {
                table.work();
            }
            for _ in 0..32 {
                table.connect(2, true);
            }
            if working {
                table.work();
            }
            assert_eq!(table.idle.len() + table.busy.len(), 60);
            for uid in 3..7 {
                assert!(table.connect(uid, true), "{working} {uid}");
            }
            assert!(table.connect(7, true)); // in place of an idle one
            assert_eq!(table.has(3) == 0, working);
            table.work();
            assert!(!table.connect(8, true));
            assert!(table.connect(0, true));
        }
    }

    #[test]
    fn when_everybody_has_one_the_idlest_makes_room() {
        let mut table = Table::new();
        for uid in 1..1000 {
            assert!(table.connect(uid, true));
        }
        assert_eq!(table.idle.len(), 64);
        table.work();
        assert!(!table.connect(1000, true));
        for _ in 0..100 {
            assert!(table.connect(0, true)); // beyond the table, then in place of its own
        }
        assert_eq!((table.has(0), table.busy.len()), (16, 64));
    }

    #[test]
    fn few_users_do_not_fill_the_door() {
        let mut places = Places::default();
        let entered = (0..1000).filter(|_| places.enter_door(1)).count();
        assert_eq!(entered, DOOR_EACH as usize);
        assert!(places.enter_door(2));
        let entered = (3..1000).filter(|uid| places.enter_door(*uid)).count();
        assert_eq!(entered, (DOOR - DOOR_EACH) as usize - 1);
        places.leave_door(1);
        assert!(!places.enter_door(2) || places.door.of(2) == 2);
        assert!(!places.enter_door(3000));
        places.leave_door(1);
        assert!(places.enter_door(3000));
    }
}
