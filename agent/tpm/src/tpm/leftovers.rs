//! What a token program that was killed has left in a TPM without a resource manager: three such keys fill it.

use tss_esapi::Context;
use tss_esapi::handles::TpmHandle;
use tss_esapi::structures::Public;

use super::Tpm;
use crate::error::Failure;

/// The first transient handle (TPM 2.0 Library, part 2, section 7.5).
const FIRST_TRANSIENT: u32 = 0x8000_0000;

/// More than any TPM has room for.
const HANDLES: u32 = 64;

impl Tpm {
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
