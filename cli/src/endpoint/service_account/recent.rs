//! A bounded set of things that are made when they are first needed and dropped when they are not needed any more.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Things by their names, each with its latest use.
#[derive(Debug)]
pub(super) struct Recent<T>(HashMap<String, (T, Instant)>);

/// How many there may be: each has a thread, and as many sessions are refreshed.
pub(super) const ENTRIES: usize = 100;

/// One that was used within this time makes no room for another: a crowd of names costs no more than [`ENTRIES`]
/// sessions a minute.
const IN_USE: Duration = Duration::from_secs(60);

impl<T> Default for Recent<T> {
    fn default() -> Recent<T> {
        Recent(HashMap::new())
    }
}

impl<T: Clone> Recent<T> {
    /// The one of this name, if it is there.
    pub(super) fn get(&mut self, name: &str, now: Instant) -> Option<T> {
        let (one, used) = self.0.get_mut(name)?;
        *used = now;
        Some(one.clone())
    }

    /// Makes room for another: takes out the least recently used one where there are [`ENTRIES`]. An error where all are
    /// in use.
    pub(super) fn make_room(&mut self, now: Instant) -> Result<Option<T>, ()> {
        if self.0.len() < ENTRIES {
            return Ok(None);
        }
        let oldest = self.0.iter().min_by_key(|(_, (_, used))| *used);
        let idle = oldest.filter(|(_, (_, used))| now.saturating_duration_since(*used) >= IN_USE);
        let name = idle.map(|(name, _)| name.clone()).ok_or(())?;
        Ok(self.0.remove(&name).map(|(one, _)| one))
    }

    /// Puts one in.
    pub(super) fn insert(&mut self, name: String, one: T, now: Instant) {
        self.0.insert(name, (one, now));
    }

    /// Takes out those that nobody has used for so long.
    pub(super) fn idle(&mut self, now: Instant, time: Duration) -> Vec<T> {
        let is_idle = |used: Instant| now.saturating_duration_since(used) >= time;
        let idle = self.0.extract_if(|_, (_, used)| is_idle(*used));
        idle.map(|(_, (one, _))| one).collect()
    }

    pub(super) fn all(&self) -> Vec<T> {
        self.0.values().map(|(one, _)| one.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_makes_room_unless_it_is_in_use() {
        let (mut recent, begin) = (Recent::default(), Instant::now());
        let at = |second| begin + Duration::from_secs(second);
        for number in 0..ENTRIES {
            assert_eq!(recent.make_room(begin), Ok(None));
            recent.insert(number.to_string(), number, begin);
        }
        assert_eq!(recent.make_room(at(59)), Err(()));
        for number in (0..ENTRIES).filter(|number| *number != 7) {
            assert_eq!(recent.get(&number.to_string(), at(59)), Some(number));
        }
        assert_eq!(recent.make_room(at(60)), Ok(Some(7)));
        recent.insert("new".to_owned(), 1000, at(60));
        assert_eq!(recent.make_room(at(60)), Err(()));
        assert_eq!(recent.get("7", at(60)), None);
        assert_eq!(
            recent.idle(at(119), Duration::from_secs(60)).len(),
            ENTRIES - 1
        );
        assert_eq!(recent.all(), [1000]);
    }
}
