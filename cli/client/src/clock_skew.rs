//! The difference between this host's clock and AWS's.

use std::fmt;

use jiff::fmt::rfc2822;
use jiff::{SignedDuration, Timestamp};

/// How far this host's clock is ahead of AWS's, or behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockSkew(SignedDuration);

/// What SigV4 tolerates.
const LIMIT: SignedDuration = SignedDuration::from_mins(5);

/// What to do about a clock that is off.
pub const HINT: &str = "set this host's clock by NTP; timedatectl shows whether it is synchronized";

impl ClockSkew {
    /// Compares `now` with the `Date` of an answer. `None` without a valid one.
    pub fn of(date: Option<&str>, now: Timestamp) -> Option<ClockSkew> {
        let theirs = rfc2822::parse(date?).ok()?.timestamp();
        Some(ClockSkew(now.duration_since(theirs)))
    }

    /// The same, where it is more than AWS tolerates.
    pub(crate) fn intolerable(date: Option<&str>, now: Timestamp) -> Option<ClockSkew> {
        ClockSkew::of(date, now).filter(|skew| !skew.is_tolerated())
    }

    /// Returns whether AWS accepts a signature with this difference.
    pub fn is_tolerated(self) -> bool {
        !self.exceeds(LIMIT)
    }

    /// Returns whether the difference is longer than `limit`, in either direction.
    pub fn exceeds(self, limit: SignedDuration) -> bool {
        self.0.abs() > limit
    }
}

impl fmt::Display for ClockSkew {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let direction = match self.0.is_negative() {
            true => "behind",
            false => "ahead of",
        };
        write!(
            f,
            "this host's clock is {} s {direction} AWS's, which tolerates {} s",
            self.0.as_secs().abs(),
            LIMIT.as_secs()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_minutes_are_tolerated_in_either_direction() {
        let skew = |now: &str| {
            let now = format!("2026-01-01T{now}Z").parse().unwrap();
            ClockSkew::of(Some("Thu, 01 Jan 2026 12:00:00 GMT"), now).unwrap()
        };
        assert!(skew("12:05:00").is_tolerated() && skew("11:55:00").is_tolerated());
        assert!(!skew("12:05:01").is_tolerated() && !skew("11:54:59").is_tolerated());
        assert!(skew("12:10:00").to_string().contains("600 s ahead of"));
        assert!(skew("11:00:00").to_string().contains("3600 s behind"));
        for date in [None, Some("yesterday")] {
            assert_eq!(ClockSkew::of(date, Timestamp::now()), None);
        }
    }
}
