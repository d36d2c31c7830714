//! A certificate request as a key signs it.

use rolesanywhere::certificate::CertificationRequest;

use crate::failure::Failure;
use crate::new_request::{self, Wanted};
use crate::token_key::TokenKey;

/// A request that is signed by the key.
pub(crate) fn request(
    key: &mut TokenKey,
    wanted: &Wanted,
) -> Result<CertificationRequest, Failure> {
    let info = wanted.info(key.public_key()?)?;
    let signature = key.sign_request(info.clone())?;
    new_request::assemble(&info, &signature).map_err(|failure| match key.public_key_from() {
        Some(other) => Failure::failed(format!(
            "{other} is not of the private key {}, although it has the same CKA_ID or label: delete it or give it another \
             one, and store the key's own public key ({failure})",
            key.place()
        )),
        None => failure,
    })
}

/// The text of its file.
pub(crate) fn to_pem(request: &CertificationRequest) -> Result<String, Failure> {
    let pem = request.to_pem();
    pem.map_err(|error| Failure::failed(format!("the request: {error}")))
}
