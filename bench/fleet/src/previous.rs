//! The constants before the policy (commit 51ad70e), for comparison: five tries in each attempt, backoff to a minute,
//! 15 s after a refusal, renewal within five minutes before a session is no longer fresh.

use fastrand::Rng;

/// A host by the previous constants.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Previous {
    failures: i32,
    /// Tries of the present attempt that failed.
    tries: i32,
}

impl Previous {
    /// Returns the pause before a renewal, in seconds.
    pub(crate) fn succeeded(&mut self, life: f64, left: f64, random: f64) -> f64 {
        *self = Previous::default();
        let margin = 900_f64.min(life / 4.0);
        (left - margin * (1.0 + random / 3.0)).max(1.0)
    }

    /// Returns the pause after a try that failed, in seconds.
    pub(crate) fn failed(&mut self, refused: bool, random: &mut Rng) -> f64 {
        self.tries += 1;
        if !refused && self.tries < 5 {
            let longest = 0.4 * 2_f64.powi(self.tries - 1);
            return longest.min(4.0) * random.f64();
        }
        self.tries = 0;
        self.failures = (self.failures + 1).min(30);
        let longest = (2.0 * 2_f64.powi(self.failures - 1)).min(60.0);
        match refused {
            true => 15.0,
            false => (longest * (0.5 + random.f64() / 2.0)).max(1.0),
        }
    }
}
