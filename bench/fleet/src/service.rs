//! AWS: a token bucket that holds a second of the quota, then a decision.

use client::refresh_policy::SetbackKind;

/// One account in one region.
pub(crate) struct Service {
    quota: f64,
    left: f64,
    at: f64,
}

/// An answer to CreateSession.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Session,
    Unavailable,
    Throttled,
    Refused,
}

impl Service {
    pub(crate) fn new(quota: f64) -> Service {
        Service {
            quota,
            left: quota,
            at: 0.0,
        }
    }

    /// Refusals use up the quota, too; throttled requests do not.
    pub(crate) fn answer(&mut self, now: f64, refused: bool) -> Answer {
        self.left = (self.left + (now - self.at) * self.quota).min(self.quota);
        self.at = now;
        if self.left < 1.0 {
            return Answer::Throttled;
        }
        self.left -= 1.0;
        match refused {
            true => Answer::Refused,
            false => Answer::Session,
        }
    }
}

impl Answer {
    /// `None` for a session.
    pub(crate) fn setback(self) -> Option<SetbackKind> {
        match self {
            Answer::Session => None,
            Answer::Unavailable => Some(SetbackKind::Unavailable),
            Answer::Throttled => Some(SetbackKind::Throttled),
            Answer::Refused => Some(SetbackKind::Refused),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_gives_the_quota() {
        let mut service = Service::new(10.0);
        let mut sessions = |second: f64| {
            let tries = (0..100).map(|part| second + f64::from(part) / 100.0);
            let answers = tries.map(|at| service.answer(at, false));
            answers.filter(|answer| *answer == Answer::Session).count()
        };
        assert_eq!(sessions(0.0), 19); // the burst, too
        for second in 1..5 {
            assert_eq!(sessions(f64::from(second)), 10);
        }
        assert_eq!(service.answer(100.0, true), Answer::Refused);
    }
}
