//! Signing a certificate request.

use std::sync::Arc;

use token::operator::Der;
use token::{Pkcs11Uri, Signature, TokenError};

use super::place::{Place, open_session};
use super::public_key;
use crate::checked_request::CheckedRequest;
use crate::error::Failure;
use crate::find;
use crate::key::{Mechanism, Pkcs11Key};
use crate::properties::Properties;

/// Signs it with the key that it is for.
pub(super) fn sign(place: &Place, key: &Pkcs11Uri, info: &Der) -> Result<Signature, TokenError> {
    let handle = find::private_key(&place.session, key)?;
    let properties = Properties::read(&place.session, handle, key)?;
    let session = place.session.as_ref();
    let public = find::name(session, handle)
        .and_then(|own| public_key::of_private_key(session, session, handle, &own))
        .map_err(|failure: Failure| failure.while_doing(format_args!("cannot read {key}")))?
        .ok_or_else(|| untold(key))?
        .key;
    let request =
        CheckedRequest::check(info, &public).map_err(|error| error.about(&key.to_string()))?;
    let signer = Pkcs11Key {
        // Its own: what fails in between may leave a signature open.
        session: Arc::new(open_session(&place.module, &place.token)?),
        handle,
        name: key.to_string().into(),
        mechanism: Mechanism::choose(&properties, key, |mechanism| {
            place.module.signs_with(place.token.slot, mechanism)
        })?,
        context_login: properties.context_login(key, place.context_login.as_ref())?,
        others_login: None,
    };
    signer.sign_request(&request)
}

/// Of a key whose public key cannot be known.
pub(super) fn untold(key: &Pkcs11Uri) -> TokenError {
    TokenError::Unusable(format!(
        "the token does not tell the public key of {key}, nor is there one public key or certificate with \
         its CKA_ID: store one of them (pkcs11-tool --write-object)"
    ))
}
