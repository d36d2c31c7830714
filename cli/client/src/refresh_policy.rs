//! When a session is refreshed, and when a failed try is repeated: the policy of docs/fleet.md, without clocks.
//!
//! Every `random` is from 0 to 1.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What the next try waits for. The caller has the clocks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// The longest pause that the latest failure could have led to; zero without a failure.
    longest: Duration,
    /// The latest failure was this host's own.
    local: bool,
    /// AWS has refused since: a failure that hides the next refusal changes nothing.
    refused: bool,
}

/// The valid session at hand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each name says it")]
pub struct AtHand {
    pub life: Duration,
    /// Of its life.
    pub left: Duration,
}

/// How a try failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setback {
    /// Who has to do something about it.
    pub kind: SetbackKind,
    /// The pause that AWS asks for.
    pub retry_after: Option<Duration>,
}

/// Who has to do something about a failed try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SetbackKind {
    /// The agent, or this host: AWS got no request.
    Local,
    /// The network or AWS: no usable answer.
    Unavailable,
    /// The quota of the account is used up.
    Throttled,
    /// Somebody has to change the request, the certificate or the configuration of AWS.
    Refused,
}

/// The window of a renewal, in parts of the session's life. Its width spreads hosts that started together, its end
/// leaves time for an outage.
const RENEWAL: [f64; 2] = [0.5, 0.75];

/// AWS's tools refresh once less than this is left (botocore does so 15 minutes ahead, others later).
const MARGIN: Duration = Duration::from_mins(15);

/// An outage that ends should be noticed within a minute at first. A fleet in an outage makes a request for each host
/// in half of the second pause.
const WITH_SESSION: Growth = Growth::new(60, 15 * 60);

/// Somebody lacks credentials: at first every few seconds. 100,000 hosts make 444 requests a second at the end of the
/// growth; a longer one would hold up the last hosts when the quota has served the others.
const WITHOUT_SESSION: Growth = Growth::new(2, 450);

/// More requests would only take the quota from others. AWS is there: the last host should not be late.
const THROTTLED: Growth = Growth::new(30, 390);

/// A refusal that is mended on AWS's side within minutes, as at setup, is noticed within minutes.
const REFUSED: Growth = Growth::new(15, 60 * 60);
const REFUSED_WITH_SESSION: Growth = Growth::new(15 * 60, 60 * 60);

/// An agent or a token that is back should be noticed within a minute, and AWS is not asked meanwhile.
const LOCAL: Growth = Growth::new(2, 60);

/// The most of `Retry-After`.
const LONGEST_RETRY_AFTER: Duration = Duration::from_mins(15);

/// However short a session is, AWS is not asked more often.
const AT_LEAST: Duration = Duration::from_secs(1);

impl Schedule {
    /// Returns the pause before the first try of a daemon without a session.
    pub fn start(splay: Duration, random: f64) -> Duration {
        splay.mul_f64(part(random))
    }

    /// Returns the pause before a session is renewed: until a random moment between 0.5 and 0.75 of its life.
    pub fn succeeded(&mut self, session: AtHand, random: f64) -> Duration {
        *self = Schedule::default();
        let age = session.life.saturating_sub(session.left);
        let [begin, end] = RENEWAL.map(|at| session.life.mul_f64(at).saturating_sub(age));
        let pause = begin + end.saturating_sub(begin).mul_f64(part(random));
        pause.max(AT_LEAST)
    }

    /// Returns the pause after a try that failed: before the session at hand ends, there is another try.
    pub fn failed(&mut self, setback: Setback, at_hand: Option<AtHand>, random: f64) -> Duration {
        let local = setback.kind == SetbackKind::Local;
        if local != self.local {
            *self = Schedule::default(); // another matter
        }
        self.local = local;
        self.refused |= setback.kind == SetbackKind::Refused;
        let growth = match self.refused {
            true => growth(SetbackKind::Refused, at_hand),
            false => growth(setback.kind, at_hand),
        };
        self.longest = (2 * self.longest).clamp(growth.base, growth.cap);
        let jitter = match local {
            true => 0.5 + part(random) / 2.0, // nobody else has the same agent
            false => part(random),
        };
        let left = at_hand.map_or(Duration::MAX, |session| session.left);
        let longest = self.longest.min(left.max(growth.cap / 3));
        let asked = setback.retry_after.unwrap_or_default();
        let asked = asked
            .min(LONGEST_RETRY_AFTER)
            .min(left.saturating_sub(longest));
        (asked + longest.mul_f64(jitter)).max(AT_LEAST)
    }
}

/// Returns how long before its end a session of that life is no longer handed out as a fresh one.
pub fn margin(life: Duration) -> Duration {
    MARGIN.min(life / 4)
}

/// Pauses that double.
#[derive(Clone, Copy)]
struct Growth {
    /// The longest first pause.
    base: Duration,
    /// No pause is longer.
    cap: Duration,
}

impl Growth {
    const fn new(base: u64, cap: u64) -> Growth {
        Growth {
            base: Duration::from_secs(base),
            cap: Duration::from_secs(cap),
        }
    }

    /// The same for a session of that life: the margin of a session shorter than an hour is shorter, too.
    fn scaled(self, life: Duration) -> Growth {
        let scale = margin(life).as_secs_f64() / MARGIN.as_secs_f64();
        Growth {
            base: self.base.mul_f64(scale),
            cap: self.cap.mul_f64(scale),
        }
    }
}

fn growth(kind: SetbackKind, at_hand: Option<AtHand>) -> Growth {
    match (kind, at_hand.map(|session| session.life)) {
        (SetbackKind::Local, _) => LOCAL,
        (SetbackKind::Unavailable | SetbackKind::Throttled, Some(life)) => {
            WITH_SESSION.scaled(life)
        }
        (SetbackKind::Unavailable, None) => WITHOUT_SESSION,
        (SetbackKind::Throttled, None) => THROTTLED,
        (SetbackKind::Refused, Some(life)) => REFUSED_WITH_SESSION.scaled(life),
        (SetbackKind::Refused, None) => REFUSED,
    }
}

fn part(random: f64) -> f64 {
    random.clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    fn setback(kind: SetbackKind) -> Setback {
        Setback {
            kind,
            retry_after: None,
        }
    }

    fn new(life: Duration) -> AtHand {
        AtHand { life, left: life }
    }

    /// The longest pauses of failures one after the other, in seconds.
    fn longest(kind: SetbackKind, life: Option<Duration>) -> Vec<u64> {
        let mut schedule = Schedule::default();
        let pause = |_| {
            let pause = schedule.failed(setback(kind), life.map(new), 1.0);
            pause.as_secs()
        };
        (0..10).map(pause).collect()
    }

    #[test]
    fn a_session_is_renewed_between_half_and_three_quarters_of_its_life() {
        let mut schedule = Schedule::default();
        for (hours, left, random, minutes) in [
            (1, HOUR, 0.0, 30),
            (1, HOUR, 1.0, 45),
            (12, 12 * HOUR, 0.5, 450),
            // Of the cache: in what is left of the window.
            (1, HOUR / 3, 0.0, 0),
            (1, HOUR / 3, 1.0, 5),
            (1, HOUR / 5, 1.0, 0),
        ] {
            let life = hours * HOUR;
            let pause = schedule.succeeded(AtHand { life, left }, random);
            assert_eq!(pause, Duration::from_mins(minutes).max(AT_LEAST));
        }
        // Never later than it stops being fresh.
        for life in [
            Duration::from_mins(15),
            Duration::from_mins(40),
            HOUR,
            12 * HOUR,
        ] {
            assert!(life - schedule.succeeded(new(life), 1.0) >= margin(life));
        }
    }

    #[test]
    fn pauses_double_to_their_cap() {
        use SetbackKind::{Local, Refused, Throttled, Unavailable};
        assert_eq!(
            longest(Unavailable, Some(HOUR))[..6],
            [60, 120, 240, 480, 900, 900]
        );
        assert_eq!(longest(Unavailable, None)[..3], [2, 4, 8]);
        assert_eq!(longest(Unavailable, None)[7..], [256, 450, 450]);
        assert_eq!(
            longest(Throttled, Some(HOUR)),
            longest(Unavailable, Some(HOUR))
        );
        assert_eq!(longest(Throttled, None)[..6], [30, 60, 120, 240, 390, 390]);
        assert_eq!(longest(Refused, Some(HOUR))[..4], [900, 1800, 3600, 3600]);
        assert_eq!(longest(Refused, None)[..2], [15, 30]);
        assert_eq!(longest(Refused, None)[8..], [3600, 3600]);
        assert_eq!(longest(Local, Some(HOUR))[..6], [2, 4, 8, 16, 32, 60]);
        // A session of four minutes has a margin of one.
        let minutes = Some(Duration::from_mins(4));
        assert_eq!(longest(Unavailable, minutes)[..6], [4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn pauses_have_full_jitter_but_for_those_of_this_host() {
        let pause = |kind, random| Schedule::default().failed(setback(kind), None, random);
        assert_eq!(pause(SetbackKind::Throttled, 0.5).as_secs(), 15);
        assert_eq!(pause(SetbackKind::Throttled, 0.0), AT_LEAST);
        assert_eq!(pause(SetbackKind::Local, 0.0), AT_LEAST);
        assert_eq!(Schedule::start(Duration::from_secs(30), 0.5).as_secs(), 15);
    }

    #[test]
    fn pauses_do_not_begin_anew_when_the_session_ends() {
        let mut schedule = Schedule::default();
        let away = setback(SetbackKind::Unavailable);
        for _ in 0..5 {
            schedule.failed(away, Some(new(HOUR)), 0.0);
        }
        assert_eq!(schedule.failed(away, None, 1.0).as_secs(), 450);
        // But after a failure of this host, and after a success.
        schedule.failed(setback(SetbackKind::Local), None, 1.0);
        assert_eq!(schedule.failed(away, None, 1.0), Duration::from_secs(2));
        schedule.succeeded(new(HOUR), 0.0);
        assert_eq!(schedule.failed(away, None, 1.0), Duration::from_secs(2));
    }

    #[test]
    fn a_session_does_not_end_without_another_try() {
        let mut schedule = Schedule::default();
        let mut pause = |minutes| {
            let left = Duration::from_mins(minutes);
            let session = AtHand { life: HOUR, left };
            let away = setback(SetbackKind::Unavailable);
            schedule.failed(away, Some(session), 1.0).as_secs() / 60
        };
        let pauses = [14, 13, 11, 7, 3, 0].map(&mut pause);
        assert_eq!(pauses, [1, 2, 4, 7, 5, 5]);
        // Whatever AWS asks for.
        let retry_after = Some(LONGEST_RETRY_AFTER);
        let away = Setback {
            retry_after,
            ..setback(SetbackKind::Unavailable)
        };
        for left in [14, 10, 6].map(Duration::from_mins) {
            let session = AtHand { life: HOUR, left };
            let pause = Schedule::default().failed(away, Some(session), 1.0);
            assert!(pause <= left && pause >= left / 2, "{pause:?}");
        }
    }

    #[test]
    fn a_refused_host_that_is_throttled_is_still_refused() {
        let mut schedule = Schedule::default();
        for _ in 0..20 {
            schedule.failed(setback(SetbackKind::Refused), None, 0.0);
        }
        for kind in [SetbackKind::Throttled, SetbackKind::Unavailable] {
            assert_eq!(schedule.failed(setback(kind), None, 1.0), HOUR);
        }
    }

    #[test]
    fn retry_after_comes_first_and_has_a_limit() {
        let pause = |seconds, random| {
            let setback = Setback {
                kind: SetbackKind::Throttled,
                retry_after: Some(Duration::from_secs(seconds)),
            };
            Schedule::default().failed(setback, None, random).as_secs()
        };
        assert_eq!([pause(20, 0.0), pause(20, 1.0)], [20, 50]);
        assert_eq!(pause(100_000, 0.0), 900);
    }
}
