//! Persistent handles: what is at one, and TPM2_EvictControl, which puts a key there and removes it.

use token::operator::Outcome;
use token::operator::tpm::KeyReport;
use token::{PinSource, TokenError};
use tss_esapi::handles::{KeyHandle, PersistentTpmHandle};
use tss_esapi::interface_types::dynamic_handles::Persistent;
use tss_esapi::interface_types::resource_handles::{Hierarchy, Provision};

use super::report::{self, algorithm};
use crate::auth_value::Proof;
use crate::error::{Failure, rc};
use crate::parent::find_persistent;
use crate::tpm::{ObjectId, Tpm};

/// The owner's; those behind them are the platform's (TCG Registry of Reserved TPM 2.0 Handles).
const OWNERS: std::ops::RangeInclusive<u32> = 0x8100_0000..=0x817f_ffff;

/// Whether a key can be kept there at all.
pub(super) fn check(handle: u32) -> Outcome<()> {
    if OWNERS.contains(&handle) {
        return Ok(());
    }
    Err(TokenError::Unusable(format!(
        "{handle:#010x} is no persistent handle of the owner's: take one from {:#010x} to {:#010x}",
        OWNERS.start(),
        OWNERS.end()
    )))
}

/// Says what is there, where something is.
pub(super) fn check_free(tpm: &mut Tpm, handle: u32) -> Outcome<()> {
    match tpm.find_persistent(handle) {
        Err(failure) if failure.is(rc::HANDLE) => Ok(()),
        Err(failure) => Err(failure.while_doing(format_args!("handle {handle:#010x}"))),
        Ok((_, public)) => Err(TokenError::Unusable(format!(
            "handle {handle:#010x} is taken: a key is there ({}); take another handle, or delete that key",
            algorithm(&public)
        ))),
    }
}

/// Keeps a loaded key there.
pub(super) fn store(
    tpm: &mut Tpm,
    object: ObjectId,
    handle: u32,
    owner_pin: Option<&PinSource>,
) -> Outcome<()> {
    let doing = format!("cannot keep the key at handle {handle:#010x}");
    evict(tpm, handle, owner_pin, &doing, |tpm| tpm.handle(object))
}

/// Removes the key that is there, if it is the one that was shown.
pub(super) fn remove(
    tpm: &mut Tpm,
    handle: u32,
    shown: &KeyReport,
    owner_pin: Option<&PinSource>,
) -> Outcome<()> {
    check(handle)?;
    let (key, public) = find_persistent(tpm, handle)?;
    if report::of(Some(handle), &public) != *shown {
        return Err(TokenError::Unusable(format!(
            "handle {handle:#010x}: the key is not the one that was shown any more: nothing was deleted; run \
             the command again, and look at what is there now"
        )));
    }
    let doing = format!("cannot delete the key at handle {handle:#010x}");
    evict(tpm, handle, owner_pin, &doing, |_| Ok(key))
}

/// From a transient object it makes a persistent one; a persistent one it removes.
fn evict(
    tpm: &mut Tpm,
    handle: u32,
    owner_pin: Option<&PinSource>,
    doing: &str,
    key: impl FnOnce(&mut Tpm) -> Result<KeyHandle, Failure>,
) -> Outcome<()> {
    let command = "TPM2_EvictControl";
    let owner = Proof::of_hierarchy(Hierarchy::Owner, owner_pin, tpm.caller.owner_pin())?;
    let place = PersistentTpmHandle::new(handle)
        .map_err(|error| Failure::new(command, error).while_doing(doing))?;
    let session = tpm.session_for(&owner)?;
    tpm.run_proving(&owner, doing, session, |tpm, session| {
        let key = key(tpm)?; // now, since the session may have taken its place
        tpm.run("Esys_TR_SetAuth", |context| {
            context.tr_set_auth(Hierarchy::Owner.into(), owner.auth.clone())
        })?;
        tpm.run_with(session, command, |context| {
            context
                .evict_control(Provision::Owner, key.into(), Persistent::Persistent(place))
                .map(drop)
        })
    })
}
