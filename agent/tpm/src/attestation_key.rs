//! The key that certifies other keys: restricted, so that it signs only what the TPM itself says, and derived
//! in the endorsement hierarchy, so that it is the same key each time, whoever owns the TPM.

use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::ecc::EccCurve;
use tss_esapi::structures::{
    EccScheme, HashScheme, KeyDerivationFunctionScheme, Public, PublicEccParameters,
    SymmetricDefinitionObject,
};

use crate::primary_template;

/// Its template, which docs/tpm.md has for CAs: they know the key that it gives, and no other.
pub(crate) fn template() -> tss_esapi::Result<Public> {
    let parameters = PublicEccParameters::new(
        SymmetricDefinitionObject::Null,
        EccScheme::EcDsa(HashScheme::new(HashingAlgorithm::Sha256)),
        EccCurve::NistP256,
        KeyDerivationFunctionScheme::Null,
    );
    primary_template::restricted(|key| key.with_sign_encrypt(true), parameters)
}
