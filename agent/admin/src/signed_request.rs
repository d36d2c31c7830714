//! A CSR that a key has signed.

use rolesanywhere::certificate::CertificationRequest;

use crate::failure::Failure;
use crate::new_request::{self, Wanted};
use crate::token_key::TokenKey;

/// Has the key sign a CSR.
pub(crate) fn request(
    key: &mut TokenKey,
    wanted: &Wanted,
) -> Result<CertificationRequest, Failure> {
    let info = wanted.info(key.public_key()?)?;
    let signature = key.sign_request(info.clone())?;
    new_request::assemble(&info, &signature).map_err(|failure| match key.public_key_from() {
        Some(other) => Failure::failed(format!(
            "{other} is not the public key of {}, although it has the same CKA_ID or label: delete it, or change its \
             CKA_ID, and store the right public key ({failure})",
            key.place()
        )),
        None => failure,
    })
}

/// Returns the CSR in PEM.
pub(crate) fn to_pem(request: &CertificationRequest) -> Result<String, Failure> {
    let pem = request.to_pem();
    pem.map_err(|error| Failure::failed(format!("cannot encode the CSR: {error}")))
}
