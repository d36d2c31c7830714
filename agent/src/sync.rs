//! Locks and waits. A panic ends one request or token alone: what its thread had locked is whole, and the others go on.

use std::os::fd::AsFd;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

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

/// Waits until something can be read there, or the other side is gone, or `deadline`; returns whether it was in time.
pub(crate) fn wait_to_read(there: impl AsFd, deadline: Instant) -> Result<bool, Errno> {
    let mut events = [PollFd::new(&there, PollFlags::IN)];
    loop {
        let timeout = Timespec::try_from(left(deadline)).ok();
        match poll(&mut events, timeout.as_ref()) {
            Err(Errno::INTR) => {}
            polled => return Ok(polled? > 0),
        }
    }
}

/// Returns the time until `deadline`, zero once it has passed.
pub(crate) fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}
