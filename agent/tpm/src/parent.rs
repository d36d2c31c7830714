//! The keys that key files are stored under: each one is opened once, for all files that name it.

use token::link::OpenTpmKey;
use token::{PinSource, TakeOver, TokenError};
use tss_esapi::handles::KeyHandle;
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::structures::{Auth, Public};

use crate::auth_value::{self, Proof};
use crate::error::{Failure, rc};
use crate::key_file::OWNER;
use crate::storage_primary;
use crate::tpm::{ObjectId, Tpm};

/// The parents that were opened so far.
#[derive(Default)]
pub(crate) struct Parents(Vec<Opened>);

struct Opened {
    wanted: Wanted,
    parent: Result<Parent, TokenError>,
}

#[derive(Clone, PartialEq)]
struct Wanted {
    handle: u32,
    pin: Option<PinSource>,
    owner_pin: Option<PinSource>,
}

/// A parent, and the proof that we may load keys under it.
#[derive(Clone)]
pub(crate) struct Parent {
    pub(crate) object: ObjectId,
    pub(crate) proof: Proof,
}

impl Parents {
    /// The parent at this handle. A failure is remembered too: an auth value that was refused for one key
    /// is not tried again for the next.
    pub(crate) fn open(
        &mut self,
        tpm: &mut Tpm,
        handle: u32,
        key: &OpenTpmKey,
    ) -> Result<Parent, TokenError> {
        let wanted = Wanted {
            handle,
            pin: key.parent_pin.clone(),
            owner_pin: key.owner_pin.clone(),
        };
        if let Some(opened) = self.0.iter().find(|opened| opened.wanted == wanted) {
            return opened.parent.clone();
        }
        let parent = open(tpm, &wanted);
        self.0.push(Opened {
            wanted,
            parent: parent.clone(),
        });
        parent
    }

    /// Makes room: a parent is needed only to load keys.
    pub(crate) fn forget(self, tpm: &mut Tpm) -> Result<(), Failure> {
        for opened in self.0 {
            if let Ok(parent) = opened.parent {
                tpm.forget(parent.object)?;
            }
        }
        Ok(())
    }
}

fn open(tpm: &mut Tpm, wanted: &Wanted) -> Result<Parent, TokenError> {
    match wanted.handle {
        0x8100_0000..=0x81ff_ffff => persistent(tpm, wanted),
        OWNER => primary(tpm, wanted, Hierarchy::Owner),
        0x4000_000b => primary(tpm, wanted, Hierarchy::Endorsement),
        0x4000_000c => primary(tpm, wanted, Hierarchy::Platform),
        0x4000_0007 => primary(tpm, wanted, Hierarchy::Null),
        other => Err(TokenError::Unusable(format!(
            "its parent {other:#010x} is neither a persistent handle (0x81…) nor a hierarchy: make the \
             parent persistent with tpm2_evictcontrol, and the key file again"
        ))),
    }
}

fn persistent(tpm: &mut Tpm, wanted: &Wanted) -> Result<Parent, TokenError> {
    let handle = wanted.handle;
    let setting = tpm.caller.parent_pin();
    let what = format!("the auth value of its parent {handle:#010x} ({setting})");
    let proof = Proof {
        auth: auth_value::read(wanted.pin.as_ref())?,
        entity: handle.to_be_bytes().to_vec(),
        what,
        take_over: TakeOver::of(&wanted.pin),
    };
    let (key, public) = find_persistent(tpm, handle)?;
    let failed = |failure: Failure| failure.while_doing(format_args!("its parent {handle:#010x}"));
    if !proof.auth.is_empty() && !public.object_attributes().no_da() {
        tpm.lockout().map_err(failed)?.check(&proof.what)?;
    }
    let object = tpm
        .add_persistent(key, proof.auth.clone())
        .map_err(failed)?;
    Ok(Parent { object, proof })
}

/// The object at a persistent handle, and its public area.
pub(crate) fn find_persistent(
    tpm: &mut Tpm,
    handle: u32,
) -> Result<(KeyHandle, Public), TokenError> {
    let failure = match tpm.find_persistent(handle) {
        Ok(found) => return Ok(found),
        Err(failure) => failure,
    };
    if !failure.is(rc::HANDLE) {
        return Err(failure.while_doing(format_args!("handle {handle:#010x}")));
    }
    let (next, _) = tpm
        .handles_from(handle, 1)
        .map_err(|failure| failure.gone(tpm.name()))?;
    // The TPM names its persistent objects, too, while their hierarchy is switched off.
    let is_there = next.first().is_some_and(|next| u32::from(*next) == handle);
    Err(TokenError::Unusable(match is_there {
        true => format!(
            "the key at handle {handle:#010x} cannot be used, because the firmware or an administrator has switched \
             its hierarchy off: switch it on in the firmware, and restart the machine"
        ),
        false => format!(
            "there is no key at handle {handle:#010x}: `tpm2_getcap handles-persistent` shows those \
             that there are, tpm2_evictcontrol puts one there"
        ),
    }))
}

fn primary(tpm: &mut Tpm, wanted: &Wanted, hierarchy: Hierarchy) -> Result<Parent, TokenError> {
    let (parent_pin, owner_pin) = (tpm.caller.parent_pin(), tpm.caller.owner_pin());
    if wanted.pin.is_some() {
        return Err(TokenError::Unusable(format!(
            "{parent_pin} is for a parent at a persistent handle, but this one is derived anew: leave it \
             out, and give {owner_pin} where its hierarchy has an auth value"
        )));
    }
    if hierarchy == Hierarchy::Null && wanted.owner_pin.is_some() {
        return Err(TokenError::Unusable(format!(
            "its parent is derived in the null hierarchy, which has no auth value: leave {owner_pin} out"
        )));
    }
    let owner = Proof::of_hierarchy(hierarchy, wanted.owner_pin.as_ref(), owner_pin)?;
    let doing = format!("cannot derive its parent in hierarchy {hierarchy:?}");
    let failed = |failure: Failure| failure.while_doing(&doing);
    let template =
        storage_primary::template().map_err(|error| failed(Failure::new(CREATE, error)))?;
    let object = derive(tpm, hierarchy, &template, &owner, &doing)?;
    Ok(Parent {
        object,
        proof: Proof {
            auth: Auth::default(),
            entity: wanted.handle.to_be_bytes().to_vec(),
            what: "the empty auth value of its derived parent".to_owned(),
            take_over: TakeOver::Reload,
        },
    })
}

const CREATE: &str = "TPM2_CreatePrimary";

/// Derives a primary key: the same one each time, from the hierarchy's seed and the template.
pub(crate) fn derive(
    tpm: &mut Tpm,
    hierarchy: Hierarchy,
    template: &Public,
    owner: &Proof,
    doing: &str,
) -> Result<ObjectId, TokenError> {
    let session = tpm.session_for(owner)?;
    tpm.run_proving(owner, doing, session, |tpm, session| {
        tpm.run("Esys_TR_SetAuth", |context| {
            context.tr_set_auth(hierarchy.into(), owner.auth.clone())
        })?;
        tpm.add_loaded(session, CREATE, None, Auth::default(), |context, _| {
            context
                .create_primary(hierarchy, template.clone(), None, None, None, None)
                .map(|primary| primary.key_handle)
        })
    })
}
