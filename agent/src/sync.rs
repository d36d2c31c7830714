//! Locks and waits. A panic ends one request or token alone: what its thread had locked is whole, and the others go on.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for as long as `condition` holds, or until `deadline` if there is one.
pub(crate) fn wait_while<'l, T>(
    told: &Condvar,
    locked: MutexGuard<'l, T>,
    deadline: Option<Instant>,
    condition: impl FnMut(&mut T) -> bool,
) -> MutexGuard<'l, T> {
    let Some(deadline) = deadline else {
        let waited = told.wait_while(locked, condition);
        return waited.unwrap_or_else(PoisonError::into_inner);
    };
    let waited = told.wait_timeout_while(locked, left(deadline), condition);
    waited.unwrap_or_else(PoisonError::into_inner).0
}

/// Returns the time until `deadline`, zero once it has passed.
pub(crate) fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}
