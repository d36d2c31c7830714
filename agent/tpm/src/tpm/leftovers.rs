//! What a token program that was killed has left in a TPM without a resource manager: three such keys fill it, and so
//! do three sessions.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tss_esapi::Context;
use tss_esapi::handles::TpmHandle;
use tss_esapi::structures::Public;

use super::Tpm;
use crate::error::{Code, Failure};

/// The first transient handle (TPM 2.0 Library, part 2, section 7.5).
const FIRST_TRANSIENT: u32 = 0x8000_0000;

/// The first handle of a loaded session; the list of those has the policy sessions, too.
const FIRST_SESSION: u32 = 0x0200_0000;

/// The place of a session is in these bits of its handle, its kind in the others.
const PLACE: u32 = 0x00ff_ffff;

/// Sessions of this process that could not be ended, since the TPM was lost.
static LEFT: Mutex<Vec<u32>> = Mutex::new(Vec::new());

/// More than any TPM has room for.
const HANDLES: u32 = 64;

/// Returns the sessions of this process that could not be ended.
pub(crate) fn left_sessions() -> Vec<u32> {
    left().clone()
}

fn left() -> MutexGuard<'static, Vec<u32>> {
    LEFT.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tpm {
    /// The handles of our sessions, in a TPM without a resource manager.
    pub(crate) fn own_sessions(&self) -> Vec<u32> {
        self.sessions.iter().filter_map(|own| own.handle).collect()
    }

    /// All sessions in the TPM, whosesoever. None where a resource manager looks after them.
    pub(super) fn loaded_sessions(&mut self) -> Result<Vec<u32>, Failure> {
        if self.tcti.has_resource_manager() {
            return Ok(Vec::new());
        }
        let (handles, _) = self.handles_from(FIRST_SESSION, HANDLES)?;
        Ok(handles.into_iter().map(u32::from).collect())
    }

    /// Ends our sessions, and remembers those that a later opening has to end.
    pub(super) fn end_sessions(&mut self) {
        for session in std::mem::take(&mut self.sessions) {
            if self.end_session(session).is_err() {
                left().extend(session.handle);
            }
        }
    }

    /// Flushes the sessions that an earlier program, or this one, has left in these places. For before anything of
    /// ours is started.
    pub(crate) fn flush_left_sessions(&mut self, told: &[u32]) -> Result<(), Failure> {
        let told = [told, &left()].concat();
        if told.is_empty() {
            return Ok(());
        }
        for handle in self.loaded_sessions()? {
            if told.iter().any(|told| told & PLACE == handle & PLACE) {
                let flushed = self.run("TPM2_FlushContext", |context| {
                    let session = TpmHandle::try_from(handle)?;
                    let session = context.tr_from_tpm_public(session)?;
                    context.flush_context(session)
                });
                match flushed {
                    // tss-esapi does not expect a policy session here, once the TPM has flushed it.
                    Ok(())
                    | Err(Failure {
                        code: Code::Nonsense,
                        ..
                    }) => {}
                    Err(failure) => return Err(failure),
                }
            }
        }
        left().clear();
        Ok(())
    }

    /// Flushes the transient objects that are one of `ours`; others belong to other programs. For before
    /// anything of ours is loaded. With a resource manager nobody else's objects are seen here.
    pub(crate) fn flush_leftovers(&mut self, ours: &[Public]) -> Result<(), Failure> {
        if ours.is_empty() {
            return Ok(());
        }
        let (handles, _) = self.handles_from(FIRST_TRANSIENT, HANDLES)?;
        for handle in handles {
            self.run("TPM2_ReadPublic", |context| {
                flush_if_ours(context, handle, ours)
            })?;
        }
        Ok(())
    }
}

fn flush_if_ours(
    context: &mut Context,
    handle: TpmHandle,
    ours: &[Public],
) -> tss_esapi::Result<()> {
    let Ok(mut object) = context.tr_from_tpm_public(handle) else {
        return Ok(()); // its owner has flushed it meanwhile
    };
    let public = context.read_public(object.into());
    if public.is_ok_and(|(public, ..)| ours.contains(&public)) {
        return context.flush_context(object);
    }
    // Else the context would flush somebody else's object at its end. Closing says that it should, and
    // forgets the object all the same (tss-esapi's handle manager).
    let _ = context.tr_close(&mut object);
    Ok(())
}
