//! What a private key is, and whether it can do our work.

use std::sync::Arc;

use cryptoki_sys::*;
use token::{Pkcs11Uri, TokenError};

use crate::error::Failure;
use crate::login::ContextLogin;
use crate::raw::Session;

/// The attributes of a private key that matter to us.
pub(crate) struct Properties {
    pub(crate) key_type: KeyType,
    /// `CKA_ID`, which its certificate shares.
    pub(crate) id: Option<Vec<u8>>,
    /// `CKA_ALWAYS_AUTHENTICATE`: each signature needs a login of its own.
    pub(crate) always_authenticate: bool,
    /// `CKA_ALLOWED_MECHANISMS`; empty for a key that is not limited to some.
    pub(crate) allowed_mechanisms: Vec<CK_MECHANISM_TYPE>,
    pub(crate) warnings: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyType {
    Rsa,
    Ec,
}

impl Properties {
    /// Reads them; a key that Roles Anywhere would not take is an error. `key` is its name for people.
    pub(crate) fn read(
        session: &Session,
        handle: CK_OBJECT_HANDLE,
        key: &Pkcs11Uri,
    ) -> Result<Properties, TokenError> {
        let failed = |failure: Failure| failure.while_doing(format_args!("cannot read {key}"));
        let bytes = |attribute| session.attribute(handle, attribute).map_err(failed);
        let flag = |attribute| flag(session, handle, attribute).map_err(failed);
        let unusable = |fault: String| TokenError::Unusable(format!("{key} {fault}"));

        let number = session.number(handle, CKA_KEY_TYPE).map_err(failed)?;
        let key_type = key_type(number).map_err(unusable)?;
        match key_type {
            KeyType::Rsa => check_modulus(bytes(CKA_MODULUS)?),
            KeyType::Ec => check_curve(bytes(CKA_EC_PARAMS)?),
        }
        .map_err(unusable)?;
        if flag(CKA_SIGN)? == Some(false) {
            return Err(unusable(
                "may not sign (CKA_SIGN is false): make a key for signing".to_owned(),
            ));
        }
        Ok(Properties {
            key_type,
            id: bytes(CKA_ID)?.filter(|id| !id.is_empty()),
            always_authenticate: flag(CKA_ALWAYS_AUTHENTICATE)? == Some(true),
            allowed_mechanisms: numbers(bytes(CKA_ALLOWED_MECHANISMS)?),
            warnings: exposure(flag(CKA_SENSITIVE)?, flag(CKA_EXTRACTABLE)?),
        })
    }

    /// The token's login, where each signature of this key needs one.
    pub(crate) fn context_login(
        &self,
        key: &Pkcs11Uri,
        login: Option<&Arc<ContextLogin>>,
    ) -> Result<Option<Arc<ContextLogin>>, TokenError> {
        match (self.always_authenticate, login) {
            (false, _) => Ok(None),
            (true, Some(login)) => Ok(Some(Arc::clone(login))),
            (true, None) => Err(TokenError::Unusable(format!(
                "{key} needs the PIN for each signature (CKA_ALWAYS_AUTHENTICATE): \
                 set pin = {{ file = \"/path\" }}"
            ))),
        }
    }
}

/// What kind of key it is, for people: such as `EC-P-256` or `RSA-2048`.
pub(crate) fn algorithm(session: &Session, key: CK_OBJECT_HANDLE) -> Result<String, Failure> {
    let known = |value: Option<Vec<u8>>| value.filter(|value| !value.is_empty());
    Ok(match session.number(key, CKA_KEY_TYPE)? {
        Some(CKK_RSA) => match known(session.attribute(key, CKA_MODULUS)?) {
            Some(modulus) => format!("RSA-{}", bits(&modulus)),
            None => "RSA".to_owned(),
        },
        Some(CKK_EC) => match known(session.attribute(key, CKA_EC_PARAMS)?) {
            Some(parameters) => match CURVES.iter().find(|(_, curve)| *curve == parameters) {
                Some((name, _)) => format!("EC-{name}"),
                None => format!("EC (CKA_EC_PARAMS {})", hex::encode(parameters)),
            },
            None => "EC".to_owned(),
        },
        Some(other) => format!("CKA_KEY_TYPE {other:#x}"),
        None => "unknown".to_owned(),
    })
}

/// One attribute that is a `CK_BBOOL`.
pub(crate) fn flag(
    session: &Session,
    object: CK_OBJECT_HANDLE,
    attribute: CK_ATTRIBUTE_TYPE,
) -> Result<Option<bool>, Failure> {
    Ok(boolean(session.attribute(object, attribute)?))
}

/// An array of `CK_ULONG`; empty where it is none.
fn numbers(value: Option<Vec<u8>>) -> Vec<CK_ULONG> {
    let value = value.unwrap_or_default();
    let (numbers, rest) = value.as_chunks();
    match rest {
        [] => numbers
            .iter()
            .copied()
            .map(CK_ULONG::from_ne_bytes)
            .collect(),
        _ => Vec::new(),
    }
}

fn boolean(value: Option<Vec<u8>>) -> Option<bool> {
    match value?.as_slice() {
        [byte] => Some(*byte != 0),
        _ => None,
    }
}

fn key_type(number: Option<CK_KEY_TYPE>) -> Result<KeyType, String> {
    match number {
        Some(CKK_RSA) => Ok(KeyType::Rsa),
        Some(CKK_EC) => Ok(KeyType::Ec),
        Some(other) => Err(format!(
            "is of CKA_KEY_TYPE {other:#x}: Roles Anywhere takes RSA ({CKK_RSA:#x}) and EC ({CKK_EC:#x})"
        )),
        None => Err("does not tell its CKA_KEY_TYPE: use RSA or EC".to_owned()),
    }
}

/// A modulus that cannot be read is judged by the length of its signatures.
fn check_modulus(modulus: Option<Vec<u8>>) -> Result<(), String> {
    let Some(modulus) = modulus.filter(|modulus| !modulus.is_empty()) else {
        return Ok(());
    };
    let bits = bits(&modulus);
    match token::is_rsa_length(bits) {
        true => Ok(()),
        false => Err(format!(
            "is an RSA key of {bits} bits: Roles Anywhere accepts {}",
            token::RSA_LENGTHS
        )),
    }
}

fn bits(modulus: &[u8]) -> usize {
    let mut digits = modulus.iter().skip_while(|byte| **byte == 0);
    match digits.next() {
        Some(first) => 8 - first.leading_zeros() as usize + 8 * digits.count(),
        None => 0,
    }
}

/// `namedCurve` OIDs in DER (RFC 5480).
pub(crate) const P256: &[u8] = &[0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
pub(crate) const P384: &[u8] = &[0x06, 5, 0x2b, 0x81, 0x04, 0x00, 0x22];
pub(crate) const P521: &[u8] = &[0x06, 5, 0x2b, 0x81, 0x04, 0x00, 0x23];

const CURVES: [(&str, &[u8]); 3] = [("P-256", P256), ("P-384", P384), ("P-521", P521)];

/// Parameters that cannot be read are judged by the length of the signatures.
fn check_curve(parameters: Option<Vec<u8>>) -> Result<(), String> {
    match parameters.filter(|parameters| !parameters.is_empty()) {
        Some(other) if !CURVES.iter().any(|(_, curve)| *curve == other) => Err(format!(
            "is an EC key on a curve that Roles Anywhere does not take (CKA_EC_PARAMS {}): \
             use P-256, P-384 or P-521",
            hex::encode(other)
        )),
        _ => Ok(()),
    }
}

fn exposure(sensitive: Option<bool>, extractable: Option<bool>) -> Vec<String> {
    let cause = match (sensitive, extractable) {
        (Some(false), Some(true)) => "CKA_SENSITIVE is false and CKA_EXTRACTABLE true",
        (Some(false), _) => "CKA_SENSITIVE is false",
        (_, Some(true)) => "CKA_EXTRACTABLE is true",
        _ => return Vec::new(),
    };
    vec![format!(
        "the private key can be read out of the token ({cause}): make a new one on the token, \
         sensitive and not extractable (roleseal-admin key generate), and have that certified"
    )]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_types_of_roles_anywhere() {
        assert_eq!(key_type(Some(CKK_RSA)), Ok(KeyType::Rsa));
        assert_eq!(key_type(Some(CKK_EC)), Ok(KeyType::Ec));
        let error = key_type(Some(CKK_EC_EDWARDS)).unwrap_err();
        assert!(error.contains("0x40"), "{error}");
        assert!(key_type(None).is_err());
    }

    #[test]
    fn moduli_have_the_lengths_that_aws_accepts() {
        let modulus = |first: u8, bytes: usize| {
            let mut modulus = vec![0xff; bytes];
            modulus[0] = first;
            check_modulus(Some(modulus))
        };
        for bytes in [256, 320, 384, 511, 512] {
            assert_eq!(modulus(0x80, bytes), Ok(()));
            assert_eq!(modulus(0, bytes + 1), Ok(()));
        }
        assert!(modulus(0x7f, 256).unwrap_err().contains("2047 bits"));
        assert!(modulus(0x80, 128).unwrap_err().contains("1024 bits"));
        assert!(modulus(0x0f, 257).unwrap_err().contains("2052 bits"));
        assert!(modulus(1, 257).unwrap_err().contains("2049 bits"));
        assert!(check_modulus(Some(vec![0])).is_err());
        assert_eq!(check_modulus(None), Ok(()));
        assert_eq!(check_modulus(Some(vec![])), Ok(()));
    }

    #[test]
    fn curves_are_three() {
        for (_, curve) in CURVES {
            assert_eq!(check_curve(Some(curve.to_vec())), Ok(()));
        }
        assert_eq!(check_curve(None), Ok(()));
        let secp256k1 = vec![0x06, 5, 0x2b, 0x81, 0x04, 0x00, 0x0a];
        assert!(check_curve(Some(secp256k1)).is_err());
    }

    #[test]
    fn a_key_that_can_leave_is_warned_of() {
        assert!(exposure(Some(true), Some(false)).is_empty());
        assert!(exposure(None, None).is_empty());
        for (sensitive, extractable) in [
            (Some(false), Some(false)),
            (Some(true), Some(true)),
            (Some(false), Some(true)),
            (None, Some(true)),
        ] {
            assert_eq!(exposure(sensitive, extractable).len(), 1);
        }
    }

    #[test]
    fn arrays_of_numbers_are_whole_or_none() {
        let mechanisms = [CKM_RSA_PKCS, CKM_SHA256_RSA_PKCS_PSS];
        let bytes: Vec<u8> = mechanisms
            .iter()
            .flat_map(|one| one.to_ne_bytes())
            .collect();
        assert_eq!(numbers(Some(bytes.clone())), mechanisms);
        assert!(numbers(Some(bytes[1..].to_vec())).is_empty());
        assert!(numbers(None).is_empty());
    }

    #[test]
    fn booleans_are_one_byte() {
        assert_eq!(boolean(Some(vec![1])), Some(true));
        assert_eq!(boolean(Some(vec![0xff])), Some(true));
        assert_eq!(boolean(Some(vec![0])), Some(false));
        assert_eq!(boolean(Some(vec![])), None);
        assert_eq!(boolean(None), None);
    }
}
