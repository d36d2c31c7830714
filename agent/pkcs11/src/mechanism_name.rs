//! Names of mechanisms, for people.

use cryptoki_sys::*;

/// The standard's name, or the number.
pub(crate) fn named(mechanism: CK_MECHANISM_TYPE) -> String {
    match NAMES.iter().find(|(number, _)| *number == mechanism) {
        Some((_, name)) => (*name).to_owned(),
        None => format!("{mechanism:#x}"),
    }
}

macro_rules! names {
    ($($name:ident)*) => { &[$(($name, stringify!($name))),*] };
}

/// Those that a key for signatures may be limited to.
const NAMES: &[(CK_MECHANISM_TYPE, &str)] = names! {
    CKM_RSA_PKCS CKM_RSA_X_509 CKM_RSA_PKCS_OAEP CKM_RSA_PKCS_PSS CKM_SHA1_RSA_PKCS CKM_SHA224_RSA_PKCS
    CKM_SHA256_RSA_PKCS CKM_SHA384_RSA_PKCS CKM_SHA512_RSA_PKCS CKM_SHA1_RSA_PKCS_PSS
    CKM_SHA224_RSA_PKCS_PSS CKM_SHA256_RSA_PKCS_PSS CKM_SHA384_RSA_PKCS_PSS CKM_SHA512_RSA_PKCS_PSS
    CKM_ECDSA CKM_ECDSA_SHA1 CKM_ECDSA_SHA224 CKM_ECDSA_SHA256 CKM_ECDSA_SHA384 CKM_ECDSA_SHA512
    CKM_ECDH1_DERIVE
};
