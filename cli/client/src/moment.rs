//! Now, by both clocks of a host.

use std::time::{Duration, Instant};

use jiff::Timestamp;

/// A moment. AWS's times compare with `wall`, which somebody may set; waits go by `steady`, which stands still
/// while the host is suspended.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "each name says it")]
pub struct Moment {
    pub wall: Timestamp,
    pub steady: Instant,
}

impl Moment {
    /// This moment.
    pub fn now() -> Moment {
        Moment {
            wall: Timestamp::now(),
            steady: Instant::now(),
        }
    }

    /// So much later by both clocks.
    pub fn later(self, by: Duration) -> Moment {
        Moment {
            wall: self.wall + by,
            steady: self.steady + by,
        }
    }
}
