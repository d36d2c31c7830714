//! What is told of a key.

use token::link::{OpenTpmKey, TpmKeySource};
use token::operator::tpm::KeyReport;
use tss_esapi::attributes::ObjectAttributes;
use tss_esapi::interface_types::ecc::EccCurve;
use tss_esapi::structures::Public;

use crate::key::FoundKey;
use crate::scheme::{self, Scheme};
use crate::spki::public_key_info;

/// Of a key that was loaded.
pub(super) fn of_found(key: &OpenTpmKey, found: FoundKey) -> KeyReport {
    let handle = match key.source {
        TpmKeySource::Handle(handle) => Some(handle),
        TpmKeySource::File(_) => None,
    };
    KeyReport {
        warnings: found.warnings,
        ..of(handle, &found.public)
    }
}

/// Of whatever is in the TPM.
pub(super) fn of(handle: Option<u32>, key: &Public) -> KeyReport {
    let attributes = key.object_attributes();
    let scheme = Scheme::of(key);
    let algorithm = algorithm(key);
    let for_others = attributes.restricted();
    KeyReport {
        handle,
        algorithm: match (attributes.decrypt(), attributes.sign_encrypt()) {
            (true, false) if for_others => format!("{algorithm} storage key"),
            (false, true) if for_others => format!("{algorithm} attestation key"),
            _ => algorithm,
        },
        attributes: names(attributes),
        public_key: scheme.as_ref().ok().and_then(|_| public_key_info(key)),
        key_file: None,
        warnings: match scheme {
            Ok(_) => own_warnings(key),
            Err(_) if for_others => Vec::new(), // it is meant to be no key for signing
            Err(fault) => vec![format!("the agent cannot sign with it: {fault}")],
        },
    }
}

fn own_warnings(key: &Public) -> Vec<String> {
    let mut warnings = scheme::warnings(key);
    if !key.object_attributes().user_with_auth() {
        warnings.push(
            "it is used by a policy (userWithAuth is not set), which the TPM does not tell: the agent \
             cannot sign with it at a handle"
                .to_owned(),
        );
    }
    warnings
}

/// Such as `EC-P-256`.
pub(super) fn algorithm(key: &Public) -> String {
    match key {
        Public::Rsa { parameters, .. } => format!("RSA-{}", u16::from(parameters.key_bits())),
        Public::Ecc { parameters, .. } => match parameters.ecc_curve() {
            EccCurve::NistP256 => "EC-P-256".to_owned(),
            EccCurve::NistP384 => "EC-P-384".to_owned(),
            EccCurve::NistP521 => "EC-P-521".to_owned(),
            other => format!("EC on {other:?}"),
        },
        Public::KeyedHash { .. } => "HMAC key or sealed data".to_owned(),
        Public::SymCipher { .. } => "symmetric key".to_owned(),
    }
}

/// TPM 2.0 library, part 2, 8.3: TPMA_OBJECT.
fn names(attributes: ObjectAttributes) -> Vec<String> {
    let all = [
        (attributes.fixed_tpm(), "fixedTPM"),
        (attributes.st_clear(), "stClear"),
        (attributes.fixed_parent(), "fixedParent"),
        (attributes.sensitive_data_origin(), "sensitiveDataOrigin"),
        (attributes.user_with_auth(), "userWithAuth"),
        (attributes.admin_with_policy(), "adminWithPolicy"),
        (attributes.no_da(), "noDA"),
        (attributes.encrypted_duplication(), "encryptedDuplication"),
        (attributes.restricted(), "restricted"),
        (attributes.decrypt(), "decrypt"),
        (attributes.sign_encrypt(), "sign"),
        (attributes.x509_sign(), "x509sign"),
    ];
    let set = all.into_iter().filter(|(set, _)| *set);
    set.map(|(_, name)| name.to_owned()).collect()
}
