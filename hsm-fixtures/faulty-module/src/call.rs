//! One call: counted, hung, ended or refused as the cues have it, before it reaches the target.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cryptoki_sys::*;
use rustix::process::{Signal, getpid, kill_process};

use crate::calls;
use crate::control::Control;
use crate::fault::{Action, DESTRUCTOR, Presence};
use crate::sessions::Sessions;
use crate::settings::{give_up, settings};

/// How often a function that hangs looks whether its cue is gone.
const POLL: Duration = Duration::from_millis(10);

pub(crate) static SESSIONS: Sessions = Sessions::new();

/// How many calls there were.
static CALLS: AtomicU64 = AtomicU64::new(0);

/// The number of the last call, by whatever thread.
pub(crate) fn last() -> u64 {
    CALLS.load(Ordering::SeqCst)
}

/// A call that goes on to the target.
pub(crate) struct Call {
    /// What is left to do when the target has done its work.
    pub(crate) effects: Vec<Action>,
    /// By how much our slots' numbers are higher than the target's; `None` while the tokens are away.
    pub(crate) shift: Option<CK_SLOT_ID>,
    /// Its number.
    pub(crate) number: u64,
    /// The cue about the tokens.
    pub(crate) under: u64,
    /// All cues.
    pub(crate) known: Vec<u64>,
    /// What the use of a session returns that is not open.
    no_session: CK_RV,
}

impl Call {
    /// Counts it and does what the cues say; an error is what to return at once. `close` closes a session
    /// of the target.
    pub(crate) fn begin(
        function: &str,
        session: Option<CK_SESSION_HANDLE>,
        close: fn(CK_SESSION_HANDLE),
    ) -> Result<Call, CK_RV> {
        let number = CALLS.fetch_add(1, Ordering::SeqCst) + 1;
        calls::record(function);
        let session = session.and_then(|handle| SESSIONS.find(handle));
        let known = session.map(|session| session.known.clone());
        let actions = read_control()
            .actions(function, &known.unwrap_or_default())
            .unwrap_or_else(|error| give_up(&format!("cannot count the call: {error}")));
        let effects = act(actions)?;
        let control = read_control(); // time may have passed
        let (under, presence) = control.presence();
        let lost = SESSIONS.take(|_, session| session.under != under);
        for session in lost {
            session.in_target(close);
        }
        let (shift, no_session) = match presence {
            Presence::Absent { code } => (None, code),
            Presence::Back {
                shift,
                reinitialized,
            } => {
                let here = !reinitialized || SESSIONS.initialized_under() == under;
                (here.then_some(shift), CKR_SESSION_HANDLE_INVALID)
            }
        };
        Ok(Call {
            effects,
            shift,
            number,
            under,
            known: control.numbers(),
            no_session,
        })
    }

    /// The target's number for a slot of ours.
    pub(crate) fn slot(&self, ours: CK_SLOT_ID) -> Result<CK_SLOT_ID, CK_RV> {
        let shift = self.shift.ok_or(CKR_TOKEN_NOT_PRESENT)?;
        ours.checked_sub(shift).ok_or(CKR_SLOT_ID_INVALID)
    }

    /// Does `work` with the target's handle for a session of ours.
    pub(crate) fn in_session(
        &self,
        ours: CK_SESSION_HANDLE,
        work: impl FnOnce(CK_SESSION_HANDLE) -> CK_RV,
    ) -> CK_RV {
        match SESSIONS.find(ours) {
            Some(session) => session.in_target(work),
            None => self.no_session,
        }
    }
}

/// Ends this process at once.
pub(crate) fn end() -> ! {
    loop {
        let _ = kill_process(getpid(), Signal::KILL);
    }
}

/// Does what the cues have the destructor do.
pub(crate) fn destroy() {
    if let Ok(actions) = read_control().actions(DESTRUCTOR, &[]) {
        let _ = act(actions); // it returns nothing
    }
}

fn read_control() -> Control {
    let read = settings().control.as_deref().map(Control::read);
    match read {
        Some(control) => control.unwrap_or_else(|error| give_up(&error)),
        None => Control::none(),
    }
}

/// Does what comes before the target's work; what comes after it is handed back.
fn act(actions: Vec<(u64, Action)>) -> Result<Vec<Action>, CK_RV> {
    let mut effects = Vec::new();
    for (number, action) in actions {
        match action {
            Action::Hang { forever } => {
                while forever || read_control().has(number) {
                    std::thread::sleep(POLL);
                }
            }
            Action::Segfault => loop {
                // More than once: the first is caught by Rust's handler, which looks for an overflow of
                // the stack and takes itself away.
                let _ = kill_process(getpid(), Signal::SEGV);
            },
            Action::Abort => std::process::abort(),
            Action::Exit(status) => std::process::exit(status),
            Action::Sleep(time) => std::thread::sleep(time),
            Action::Return(code) => return Err(code),
            effect => effects.push(effect),
        }
    }
    Ok(effects)
}
