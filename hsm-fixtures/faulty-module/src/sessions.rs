//! The open sessions, by handles of our own: the target's may come again.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cryptoki_sys::{CK_SESSION_HANDLE, CK_SLOT_ID};

/// All sessions of this process, and what it knows of the tokens.
pub(crate) struct Sessions(Mutex<State>);

struct State {
    open: Option<HashMap<CK_SESSION_HANDLE, Arc<Session>>>,
    last: CK_SESSION_HANDLE,
    /// The cue about the tokens when the module was initialised.
    initialized_under: u64,
}

/// An open session.
pub(crate) struct Session {
    /// The target's handle; locked while in use, so that it is not closed then: SoftHSM would crash.
    pub(crate) target: Mutex<CK_SESSION_HANDLE>,
    /// The target's number of its slot.
    pub(crate) slot: CK_SLOT_ID,
    /// The cue about the tokens when it was opened.
    pub(crate) under: u64,
    /// The cues when it was opened.
    pub(crate) known: Vec<u64>,
    /// The number of the call that has verified the PIN for a signature; 0 where none has.
    pub(crate) verified: AtomicU64,
}

impl Session {
    /// Does `work` with the target's handle, when nobody else does.
    pub(crate) fn in_target<T>(&self, work: impl FnOnce(CK_SESSION_HANDLE) -> T) -> T {
        work(*self.target.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Sessions {
    pub(crate) const fn new() -> Sessions {
        Sessions(Mutex::new(State {
            open: None,
            last: 0,
            initialized_under: 0,
        }))
    }

    /// After `C_Initialize` and `C_Finalize`: none is open.
    pub(crate) fn reset(&self, under: u64) {
        let mut state = self.lock();
        state.open = None;
        state.initialized_under = under;
    }

    /// The cue about the tokens when the module was initialised.
    pub(crate) fn initialized_under(&self) -> u64 {
        self.lock().initialized_under
    }

    /// The handle of one more session.
    pub(crate) fn add(&self, session: Session) -> CK_SESSION_HANDLE {
        let mut state = self.lock();
        state.last += 1;
        let handle = state.last;
        let open = state.open.get_or_insert_default();
        open.insert(handle, Arc::new(session));
        handle
    }

    pub(crate) fn find(&self, handle: CK_SESSION_HANDLE) -> Option<Arc<Session>> {
        self.lock().open.as_ref()?.get(&handle).cloned()
    }

    pub(crate) fn count(&self) -> usize {
        self.lock().open.as_ref().map_or(0, HashMap::len)
    }

    /// Takes away those of which that is true.
    pub(crate) fn take(
        &self,
        which: impl Fn(CK_SESSION_HANDLE, &Session) -> bool,
    ) -> Vec<Arc<Session>> {
        let mut state = self.lock();
        let Some(open) = state.open.as_mut() else {
            return Vec::new();
        };
        let taken = open.extract_if(|handle, session| which(*handle, session));
        taken.map(|(_, session)| session).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(under: u64) -> Session {
        Session {
            target: Mutex::new(100 + under),
            slot: 1,
            under,
            known: vec![under],
            verified: AtomicU64::new(0),
        }
    }

    #[test]
    fn handles_do_not_come_again() {
        let sessions = Sessions::new();
        let first = sessions.add(session(0));
        let second = sessions.add(session(3));
        assert_ne!(first, second);
        assert_eq!(
            sessions.find(second).unwrap().in_target(|handle| handle),
            103
        );
        assert_eq!(sessions.take(|_, session| session.under != 3).len(), 1);
        assert!(sessions.find(first).is_none());
        assert_eq!(sessions.count(), 1);
        sessions.reset(7);
        assert_eq!((sessions.count(), sessions.initialized_under()), (0, 7));
        let third = sessions.add(session(7));
        assert!(third != first && third != second);
    }
}
