//! Log lines that others cause: a few a second of each kind, and how many there were beyond.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// The kinds of lines of the last second.
#[derive(Debug)]
pub(super) struct Lines<K>(HashMap<Option<K>, Window>);

#[derive(Debug)]
struct Window {
    begin: Instant,
    said: u32,
    more: u64,
    last: String,
}

const WINDOW: Duration = Duration::from_secs(1);

/// Of one kind, within a window.
const LINES: u32 = 5;

/// At once; all others count as one.
const KINDS: usize = 256;

impl<K> Default for Lines<K> {
    fn default() -> Lines<K> {
        Lines(HashMap::new())
    }
}

impl<K: Hash + Eq> Lines<K> {
    /// Counts a line. Says whether it may be written, and whether it is the first, so that somebody has to come for
    /// [`Lines::ended`].
    pub(super) fn note(&mut self, kind: K, line: &str, now: Instant) -> (bool, bool) {
        let is_first = self.0.is_empty();
        let kind = Some(kind);
        let kind = match self.0.len() < KINDS || self.0.contains_key(&kind) {
            true => kind,
            false => None,
        };
        let window = self.0.entry(kind).or_insert_with(|| Window {
            begin: now,
            said: 0,
            more: 0,
            last: String::new(),
        });
        let may_say = window.said < LINES;
        if may_say {
            window.said += 1;
        } else {
            window.more += 1;
            line.clone_into(&mut window.last);
        }
        (may_say, is_first)
    }

    /// Takes out what has ended: the last line that was left out, and how many were. Says whether nothing is left.
    pub(super) fn ended(&mut self, now: Instant) -> (Vec<(String, u64)>, bool) {
        let has_ended = |window: &Window| now.saturating_duration_since(window.begin) >= WINDOW;
        let ended = self.0.extract_if(|_, window| has_ended(window));
        let left_out = ended.filter(|(_, window)| window.more > 0);
        let left_out = left_out.map(|(_, window)| (window.last, window.more));
        (left_out.collect(), self.0.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_takes_a_few_lines_a_second_and_leaves_room_for_others() {
        let (mut lines, begin) = (Lines::default(), Instant::now());
        let mut said = 0;
        for number in 0..10_000 {
            let (may_say, is_first) = lines.note("flood", &number.to_string(), begin);
            said += u32::from(may_say);
            assert_eq!(is_first, number == 0);
        }
        assert_eq!(said, LINES);
        assert_eq!(lines.note("other", "x", begin), (true, false));
        assert_eq!(lines.ended(begin), (vec![], false));
        let (ended, is_empty) = lines.ended(begin + WINDOW);
        assert_eq!(ended, [("9999".to_owned(), 10_000 - u64::from(LINES))]);
        assert!(is_empty);
        assert_eq!(lines.note("flood", "y", begin + WINDOW), (true, true));
    }

    #[test]
    fn any_number_of_kinds_takes_little_room() {
        let (mut lines, begin) = (Lines::default(), Instant::now());
        let notes = (0..10_000).map(|kind| lines.note(kind, "x", begin).0);
        let said = notes.filter(|may_say| *may_say).count();
        assert_eq!(said, KINDS + LINES as usize);
        assert_eq!(lines.0.len(), KINDS + 1);
        assert!(lines.note(7, "x", begin).0);
    }
}
