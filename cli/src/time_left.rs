//! How long something still lasts, for people.

use jiff::SignedDuration;

/// In one unit, rounded down.
pub(crate) fn rough(left: SignedDuration) -> String {
    match left.as_hours() {
        ..1 => format!("{} min", left.as_mins()),
        hours @ 1..48 => format!("{hours} h"),
        hours => format!("{} days", hours / 24),
    }
}
