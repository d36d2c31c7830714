//! Auth values: read once, and never tried again after the TPM refused them.

use token::{PinSource, TakeOver, TokenError};
use tss_esapi::handles::TpmHandle;
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::structures::Auth;

/// The proof that we may use something in the TPM.
#[derive(Clone)]
pub(crate) struct Proof {
    pub(crate) auth: Auth,
    /// Its TPM name, or whatever else is its own; which the auth value was refused by.
    pub(crate) entity: Vec<u8>,
    /// For people: `its auth value (pin)`.
    pub(crate) what: String,
    /// How a corrected one gets here.
    pub(crate) take_over: TakeOver,
}

/// Auth values that were refused, and with which error.
#[derive(Default)]
pub(crate) struct Refused(Vec<(Vec<u8>, Auth, TokenError)>);

/// The auth value from a PIN source; empty without one.
pub(crate) fn read(source: Option<&PinSource>) -> Result<Auth, TokenError> {
    let Some(source) = source else {
        return Ok(Auth::default());
    };
    let pin = source
        .read()
        .map_err(|error| TokenError::Unusable(error.to_string()))?;
    Auth::try_from(pin.secret()).map_err(|_| {
        TokenError::Unusable("the PIN is longer than an auth value can be, 64 bytes".to_owned())
    })
}

impl Proof {
    /// Of the auth value of a hierarchy; `setting` is what it is called where it is given.
    pub(crate) fn of_hierarchy(
        hierarchy: Hierarchy,
        pin: Option<&PinSource>,
        setting: &str,
    ) -> Result<Proof, TokenError> {
        Ok(Proof {
            auth: read(pin)?,
            entity: u32::from(TpmHandle::from(hierarchy)).to_be_bytes().to_vec(),
            what: format!("the auth value of hierarchy {hierarchy:?} ({setting})"),
            take_over: TakeOver::of(pin),
        })
    }
}

impl Refused {
    pub(crate) fn find(&self, proof: &Proof) -> Option<TokenError> {
        let same = |(entity, auth, _): &&(Vec<u8>, Auth, _)| {
            *entity == proof.entity && *auth == proof.auth
        };
        self.0.iter().find(same).map(|(.., error)| error.clone())
    }

    pub(crate) fn remember(&mut self, proof: &Proof, error: TokenError) {
        self.0
            .push((proof.entity.clone(), proof.auth.clone(), error));
    }
}
