//! Keeps one bug from ending the agent: each piece of work that a long-lived thread does is contained, so that a
//! panic in it is logged (by the hook that [`log::start`](crate::log::start) sets) and the thread goes on.
//!
//! Where a thread serves one client and ends with it, the standard library does the same.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `work`. Returns `None` if it panicked: what it had half done is the caller's to put right.
pub fn contain<T>(work: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work)).ok()
}

/// The error of a request in whose work something panicked.
pub const INTERNAL_ERROR: &str =
    "internal error of roleseal-agent; its log has it, please report it";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_none_and_nothing_else_is() {
        assert_eq!(contain(|| 7), Some(7));
        assert_eq!(contain(|| -> u8 { panic!("in a test") }), None);
    }
}
