//! The draft's storage primary: TCG's ECC P-256 template, the same key each time it is derived.

use tss_esapi::interface_types::ecc::EccCurve;
use tss_esapi::structures::{Public, PublicEccParametersBuilder, SymmetricDefinitionObject};

use crate::primary_template;

/// Its template: under another key, none of the files written for it would load.
pub(crate) fn template() -> tss_esapi::Result<Public> {
    let parameters = PublicEccParametersBuilder::new_restricted_decryption_key(
        SymmetricDefinitionObject::AES_128_CFB,
        EccCurve::NistP256,
    );
    primary_template::restricted(|key| key.with_decrypt(true), parameters.build()?)
}
