//! What the templates of our primary keys have in common. A primary key is derived from its template: a difference in a
//! single bit would give another key.

use tss_esapi::attributes::ObjectAttributesBuilder;
use tss_esapi::interface_types::algorithm::{HashingAlgorithm, PublicAlgorithm};
use tss_esapi::structures::{EccPoint, Public, PublicBuilder, PublicEccParameters};

/// Returns the template of a restricted key on a curve, which `purpose` lets sign or decrypt.
pub(crate) fn restricted(
    purpose: impl FnOnce(ObjectAttributesBuilder) -> ObjectAttributesBuilder,
    parameters: PublicEccParameters,
) -> tss_esapi::Result<Public> {
    let attributes = ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_sensitive_data_origin(true)
        .with_user_with_auth(true)
        .with_no_da(true)
        .with_restricted(true);
    PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::Ecc)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(purpose(attributes).build()?)
        .with_ecc_parameters(parameters)
        .with_ecc_unique_identifier(EccPoint::default())
        .build()
}
