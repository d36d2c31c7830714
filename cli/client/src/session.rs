//! A session: credentials, and how long they are good for.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::credentials::Credentials;
use crate::moment::Moment;
use crate::refresh_policy::{self, AtHand};

/// A session that AWS vended. `Debug` shows no secret.
#[derive(Debug)]
pub struct Session {
    /// Secret key and token are among them.
    pub credentials: Credentials,
    /// When it was asked for.
    pub issued: Timestamp,
    /// The certificate that it was asked for with: its serial, decimal.
    pub serial: Option<String>,
    /// From its begin to its end.
    life: Duration,
    /// Its end by the clock of waits: a wall clock that is set back makes no session longer.
    end: Instant,
    /// When the agent last had a say in whether this user may have it.
    checked: Mutex<Moment>,
}

/// How long a session is used without asking the agent whether its policy still permits it.
const UNCHECKED: Duration = Duration::from_secs(60);

impl Session {
    /// One that was `asked` for just now. `begin` is AWS's time then: this host's clock may be wrong.
    pub fn new(
        credentials: Credentials,
        asked: Moment,
        begin: Option<Timestamp>,
        serial: Option<String>,
    ) -> Session {
        let life = between(begin.unwrap_or(asked.wall), credentials.expiration);
        Session {
            end: end(asked, life),
            credentials,
            issued: asked.wall,
            serial,
            life,
            checked: Mutex::new(asked),
        }
    }

    /// One that another process asked for, and somebody `checked` by the wall clock.
    pub(crate) fn kept(
        credentials: Credentials,
        issued: Timestamp,
        serial: Option<String>,
        checked: Timestamp,
        now: Moment,
    ) -> Session {
        let life = between(issued, credentials.expiration);
        let left = between(now.wall, credentials.expiration);
        Session {
            end: end(now, left.min(life)),
            credentials,
            issued,
            serial,
            life,
            checked: Mutex::new(Moment {
                wall: checked,
                ..now
            }),
        }
    }

    /// How long it may still be used: the less, where the clocks differ.
    pub fn left(&self, now: Moment) -> Duration {
        let steady = self.end.saturating_duration_since(now.steady);
        between(now.wall, self.credentials.expiration).min(steady)
    }

    /// Whether it may still be used.
    pub fn valid(&self, now: Moment) -> bool {
        !self.left(now).is_zero()
    }

    /// Whether it may still be handed to somebody who will use it for a while: until 15 minutes, or a quarter
    /// of its life, before its end.
    pub fn fresh(&self, now: Moment) -> bool {
        self.left(now) > refresh_policy::margin(self.life)
    }

    /// Returns whether the agent has to be asked before this is used again: it has a say once a minute.
    pub(crate) fn unchecked(&self, now: Moment) -> bool {
        let checked = *self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        let wall = now.wall.duration_since(checked.wall);
        // What is from after now was noted by a clock that has been set back since.
        let recent = Duration::try_from(wall).is_ok_and(|wall| wall < UNCHECKED);
        !recent || now.steady.saturating_duration_since(checked.steady) >= UNCHECKED
    }

    /// Notes that the agent was asked then, whether or not it answered.
    pub(crate) fn check(&self, now: Moment) {
        *self.checked.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    /// This session as the refresh policy has it, while it is valid.
    pub(crate) fn at_hand(&self, now: Moment) -> Option<AtHand> {
        let (life, left) = (self.life, self.left(now));
        (!left.is_zero()).then_some(AtHand { life, left })
    }
}

/// Zero where the end is over.
fn between(begin: Timestamp, end: Timestamp) -> Duration {
    Duration::try_from(end.duration_since(begin)).unwrap_or_default()
}

/// An end that the clock cannot tell has come.
fn end(begin: Moment, left: Duration) -> Instant {
    begin.steady.checked_add(left).unwrap_or(begin.steady)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::LazyLock;

    use super::*;

    /// The steady clock's time at [`BEGIN`].
    static STEADY: LazyLock<Instant> = LazyLock::new(Instant::now);
    const BEGIN: &str = "2026-01-01T12:00:00Z";

    /// A moment at which both clocks agree.
    pub(crate) fn moment(time: &str) -> Moment {
        let wall: Timestamp = time.parse().unwrap();
        let after = wall.duration_since(BEGIN.parse().unwrap());
        let begin = *STEADY + Duration::from_hours(1);
        Moment {
            wall,
            steady: match after.is_negative() {
                true => begin - after.unsigned_abs(),
                false => begin + after.unsigned_abs(),
            },
        }
    }

    pub(crate) fn credentials(key: &str, expiration: &str) -> Credentials {
        Credentials {
            access_key_id: key.into(),
            secret_access_key: "s3cret".into(),
            session_token: "t0ken".into(),
            expiration: expiration.parse().unwrap(),
        }
    }

    /// A session named by its access key.
    pub(crate) fn session(key: &str, issued: &str, expiration: &str) -> Session {
        let credentials = credentials(key, expiration);
        Session::new(credentials, moment(issued), None, Some("42".into()))
    }

    #[test]
    fn a_session_is_fresh_until_a_margin_before_its_end() {
        let cases = [
            ("13:00:00", "12:44:59", "12:45:00"), // an hour: a quarter of an hour
            ("12:15:00", "12:11:14", "12:11:15"), // a quarter of an hour: a quarter of that
            ("12:00:08", "12:00:05", "12:00:06"),
        ];
        for (end, fresh, stale) in cases {
            let at = |time: &str| moment(&format!("2026-01-01T{time}Z"));
            let end_time = at(end);
            let one = session("A", BEGIN, &end_time.wall.to_string());
            assert!(one.fresh(at(fresh)), "{end}");
            assert!(!one.fresh(at(stale)) && one.valid(at(stale)), "{end}");
            assert!(!one.valid(end_time), "{end}");
        }
    }

    #[test]
    fn a_clock_that_is_set_back_makes_no_session_longer() {
        let one = session("A", BEGIN, "2026-01-01T13:00:00Z");
        let back = |minutes| {
            let now = moment(BEGIN).later(Duration::from_mins(minutes));
            let wall = now.wall - Duration::from_hours(2);
            Moment { wall, ..now }
        };
        assert!(one.fresh(back(44)) && !one.fresh(back(45)));
        assert!(one.valid(back(59)) && !one.valid(back(60)));
    }

    #[test]
    fn a_clock_that_is_set_forward_ends_a_session_until_it_is_right_again() {
        let one = session("A", BEGIN, "2026-01-01T13:00:00Z");
        let now = moment(BEGIN).later(Duration::from_mins(1));
        let wall = now.wall + Duration::from_hours(2);
        assert!(!one.valid(Moment { wall, ..now }));
        assert!(one.fresh(now));
    }

    #[test]
    fn a_session_is_as_long_as_aws_says_it_is() {
        let asked = moment("2026-01-01T10:00:00Z"); // a clock that is two hours behind
        let end = credentials("A", "2026-01-01T13:00:00Z");
        let one = Session::new(end, asked, Some(BEGIN.parse().unwrap()), None);
        assert_eq!(one.left(asked), Duration::from_hours(1));
    }

    #[test]
    fn the_agent_has_a_say_once_a_minute_by_either_clock() {
        let one = session("A", BEGIN, "2026-01-01T13:00:00Z");
        let begin = moment(BEGIN);
        let later = |seconds| begin.later(Duration::from_secs(seconds));
        assert!(!one.unchecked(later(59)) && one.unchecked(later(60)));
        // After a suspension, and for a clock that was set back.
        let wall = later(60).wall;
        assert!(one.unchecked(Moment { wall, ..begin }));
        let wall = begin.wall - Duration::from_secs(1);
        assert!(one.unchecked(Moment { wall, ..later(30) }));
        one.check(later(60));
        assert!(!one.unchecked(later(119)) && one.unchecked(later(120)));
    }

    #[test]
    fn a_session_that_was_kept_has_what_is_left_of_it() {
        let kept = |issued: &str, now: &str| {
            let end = credentials("A", "2026-01-01T13:00:00Z");
            let now = moment(now);
            Session::kept(end, issued.parse().unwrap(), None, now.wall, now).left(now)
        };
        assert_eq!(kept(BEGIN, "2026-01-01T12:50:00Z"), Duration::from_mins(10));
        assert_eq!(kept(BEGIN, "2026-01-01T11:30:00Z"), Duration::from_hours(1));
        assert_eq!(kept(BEGIN, "2026-01-01T13:30:00Z"), Duration::ZERO);
        assert_eq!(kept("2026-01-01T13:30:00Z", BEGIN), Duration::ZERO);
    }
}
