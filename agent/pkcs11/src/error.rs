//! What a PKCS#11 function returned, and what helps against it.

use std::fmt;

use cryptoki_sys::*;
use token::TokenError;

/// A PKCS#11 function that did not return `CKR_OK`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// The function's name.
    pub function: &'static str,
    /// What it returned.
    pub code: CK_RV,
}

impl Failure {
    /// The error for the agent; `what` was being done when it happened.
    pub(crate) fn while_doing(self, what: impl fmt::Display) -> TokenError {
        let text = format!("{what}: {self}");
        match self.code {
            code if is_about_the_pin(code) => TokenError::PinRejected(text),
            CKR_KEY_FUNCTION_NOT_PERMITTED
            | CKR_KEY_TYPE_INCONSISTENT
            | CKR_KEY_SIZE_RANGE
            | CKR_MECHANISM_INVALID
            | CKR_MECHANISM_PARAM_INVALID
            | CKR_DATA_INVALID
            | CKR_DATA_LEN_RANGE
            | CKR_CURVE_NOT_SUPPORTED
            | CKR_DOMAIN_PARAMS_INVALID
            | CKR_FUNCTION_NOT_SUPPORTED
            | CKR_ACTION_PROHIBITED
            // YubiHSM: the authentication key lacks a capability, or the algorithm is switched off.
            | CKR_FUNCTION_REJECTED
            | CKR_ATTRIBUTE_READ_ONLY
            | CKR_ATTRIBUTE_SENSITIVE
            | CKR_ATTRIBUTE_TYPE_INVALID
            | CKR_ATTRIBUTE_VALUE_INVALID
            | CKR_SESSION_READ_ONLY
            | CKR_TEMPLATE_INCOMPLETE
            | CKR_TEMPLATE_INCONSISTENT
            | CKR_TOKEN_WRITE_PROTECTED
            | CKR_USER_PIN_NOT_INITIALIZED
            | CKR_USER_TYPE_INVALID => TokenError::Unusable(text),
            CKR_ARGUMENTS_BAD | CKR_BUFFER_TOO_SMALL => TokenError::Broken(text),
            // Lost devices, sessions, handles and logins; CKR_OPERATION_ACTIVE, a C_SignInit that never
            // saw its C_Sign; and what vendors invent: a new process starts from nothing.
            _ => TokenError::Gone(text),
        }
    }
}

/// Whether the token refused the PIN: no answer to these may be another try.
fn is_about_the_pin(code: CK_RV) -> bool {
    matches!(
        code,
        CKR_PIN_INCORRECT
            | CKR_PIN_INVALID
            | CKR_PIN_LEN_RANGE
            | CKR_PIN_EXPIRED
            | CKR_PIN_LOCKED
            | CKR_PIN_TOO_WEAK
    )
}

/// Whether a token may mean the template of a new key: some have only a general code for it (tpm2-pkcs11:
/// `CKR_GENERAL_ERROR`), or one of their own.
pub(crate) fn may_be_the_template(code: CK_RV) -> bool {
    is_about_the_template(code)
        || code >= CKR_VENDOR_DEFINED
        || matches!(
            code,
            CKR_TEMPLATE_INCOMPLETE
                | CKR_GENERAL_ERROR
                | CKR_FUNCTION_FAILED
                | CKR_FUNCTION_NOT_SUPPORTED
                | CKR_FUNCTION_REJECTED
                | CKR_ARGUMENTS_BAD
                | CKR_ACTION_PROHIBITED
                | CKR_ATTRIBUTE_SENSITIVE
                | CKR_KEY_FUNCTION_NOT_PERMITTED
                | CKR_DATA_INVALID
                | CKR_MECHANISM_PARAM_INVALID
        )
}

/// Whether the token does not take an attribute that a new key was to have.
pub(crate) fn is_about_the_template(code: CK_RV) -> bool {
    matches!(
        code,
        CKR_ATTRIBUTE_TYPE_INVALID
            | CKR_ATTRIBUTE_VALUE_INVALID
            | CKR_ATTRIBUTE_READ_ONLY
            | CKR_TEMPLATE_INCONSISTENT
    )
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Failure { function, code } = self;
        match NAMES.iter().find(|(named, _)| named == code) {
            Some((_, name)) => write!(f, "{function} returned {name}"),
            None if *code >= CKR_VENDOR_DEFINED => {
                write!(
                    f,
                    "{function} returned CKR_VENDOR_DEFINED + {:#x}",
                    code - CKR_VENDOR_DEFINED
                )
            }
            None => write!(f, "{function} returned {code:#x}"),
        }
    }
}

macro_rules! names {
    ($($name:ident)*) => { &[$(($name, stringify!($name))),*] };
}

const NAMES: &[(CK_RV, &str)] = names! {
    CKR_CANCEL CKR_HOST_MEMORY CKR_SLOT_ID_INVALID CKR_GENERAL_ERROR CKR_FUNCTION_FAILED
    CKR_ARGUMENTS_BAD CKR_NO_EVENT CKR_NEED_TO_CREATE_THREADS CKR_CANT_LOCK
    CKR_ATTRIBUTE_READ_ONLY CKR_ATTRIBUTE_SENSITIVE CKR_ATTRIBUTE_TYPE_INVALID
    CKR_ATTRIBUTE_VALUE_INVALID CKR_ACTION_PROHIBITED CKR_DATA_INVALID CKR_DATA_LEN_RANGE
    CKR_DEVICE_ERROR CKR_DEVICE_MEMORY CKR_DEVICE_REMOVED CKR_FUNCTION_CANCELED
    CKR_FUNCTION_NOT_PARALLEL CKR_FUNCTION_NOT_SUPPORTED CKR_KEY_HANDLE_INVALID
    CKR_KEY_SIZE_RANGE CKR_KEY_TYPE_INCONSISTENT CKR_KEY_FUNCTION_NOT_PERMITTED
    CKR_MECHANISM_INVALID CKR_MECHANISM_PARAM_INVALID CKR_OBJECT_HANDLE_INVALID
    CKR_OPERATION_ACTIVE CKR_OPERATION_NOT_INITIALIZED CKR_PIN_INCORRECT CKR_PIN_INVALID
    CKR_PIN_LEN_RANGE CKR_PIN_EXPIRED CKR_PIN_LOCKED CKR_SESSION_CLOSED CKR_SESSION_COUNT
    CKR_SESSION_HANDLE_INVALID CKR_SESSION_PARALLEL_NOT_SUPPORTED CKR_SESSION_READ_ONLY
    CKR_SESSION_EXISTS CKR_SESSION_READ_ONLY_EXISTS CKR_SESSION_READ_WRITE_SO_EXISTS
    CKR_TEMPLATE_INCOMPLETE CKR_TEMPLATE_INCONSISTENT CKR_TOKEN_NOT_PRESENT
    CKR_TOKEN_NOT_RECOGNIZED CKR_TOKEN_WRITE_PROTECTED CKR_USER_ALREADY_LOGGED_IN
    CKR_USER_NOT_LOGGED_IN CKR_USER_PIN_NOT_INITIALIZED CKR_USER_TYPE_INVALID
    CKR_USER_ANOTHER_ALREADY_LOGGED_IN CKR_USER_TOO_MANY_TYPES CKR_RANDOM_NO_RNG
    CKR_DOMAIN_PARAMS_INVALID CKR_CURVE_NOT_SUPPORTED CKR_BUFFER_TOO_SMALL
    CKR_INFORMATION_SENSITIVE CKR_CRYPTOKI_NOT_INITIALIZED CKR_CRYPTOKI_ALREADY_INITIALIZED
    CKR_MUTEX_BAD CKR_MUTEX_NOT_LOCKED CKR_NEW_PIN_MODE CKR_NEXT_OTP
    CKR_EXCEEDED_MAX_ITERATIONS CKR_FIPS_SELF_TEST_FAILED CKR_LIBRARY_LOAD_FAILED
    CKR_PIN_TOO_WEAK CKR_PUBLIC_KEY_INVALID CKR_FUNCTION_REJECTED CKR_TOKEN_RESOURCE_EXCEEDED
    CKR_OPERATION_CANCEL_FAILED CKR_KEY_EXHAUSTED CKR_PENDING CKR_SESSION_ASYNC_NOT_SUPPORTED
    CKR_OPERATION_NOT_VALIDATED CKR_TOKEN_NOT_INITIALIZED CKR_PARAMETER_SET_NOT_SUPPORTED
};

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: CK_RV) -> TokenError {
        let function = "C_Sign";
        Failure { function, code }.while_doing("signing with the key web")
    }

    #[test]
    fn codes_are_sorted_by_what_helps() {
        for code in [
            CKR_DEVICE_REMOVED,
            CKR_DEVICE_ERROR,
            CKR_SESSION_HANDLE_INVALID,
            CKR_SESSION_CLOSED,
            CKR_OBJECT_HANDLE_INVALID,
            CKR_KEY_HANDLE_INVALID,
            CKR_USER_NOT_LOGGED_IN,
            CKR_TOKEN_NOT_PRESENT,
            CKR_TOKEN_NOT_RECOGNIZED,
            CKR_CRYPTOKI_NOT_INITIALIZED,
            CKR_GENERAL_ERROR,
            CKR_FUNCTION_FAILED,
            CKR_HOST_MEMORY,
            CKR_DEVICE_MEMORY,
            CKR_OPERATION_ACTIVE,
            CKR_VENDOR_DEFINED,
            CKR_VENDOR_DEFINED + 7,
            0x7fff_0000,
        ] {
            assert!(matches!(error(code), TokenError::Gone(_)), "{code:#x}");
        }
        for code in [CKR_PIN_INCORRECT, CKR_PIN_LOCKED, CKR_PIN_EXPIRED] {
            assert!(
                matches!(error(code), TokenError::PinRejected(_)),
                "{code:#x}"
            );
        }
        for code in [
            CKR_KEY_FUNCTION_NOT_PERMITTED,
            CKR_KEY_TYPE_INCONSISTENT,
            CKR_MECHANISM_INVALID,
            CKR_FUNCTION_REJECTED,
            CKR_ATTRIBUTE_TYPE_INVALID,
            CKR_ATTRIBUTE_VALUE_INVALID,
            CKR_TEMPLATE_INCONSISTENT,
            CKR_SESSION_READ_ONLY,
            CKR_TOKEN_WRITE_PROTECTED,
        ] {
            assert!(matches!(error(code), TokenError::Unusable(_)), "{code:#x}");
        }
        assert!(matches!(error(CKR_ARGUMENTS_BAD), TokenError::Broken(_)));
    }

    #[test]
    fn general_codes_may_mean_a_template_and_lost_devices_do_not() {
        for code in [
            CKR_TEMPLATE_INCONSISTENT,
            CKR_GENERAL_ERROR,
            CKR_FUNCTION_FAILED,
            CKR_ARGUMENTS_BAD,
            CKR_VENDOR_DEFINED + 7,
        ] {
            assert!(may_be_the_template(code), "{code:#x}");
        }
        for code in [
            CKR_DEVICE_REMOVED,
            CKR_DEVICE_ERROR,
            CKR_USER_NOT_LOGGED_IN,
            CKR_MECHANISM_INVALID,
            CKR_TOKEN_WRITE_PROTECTED,
            CKR_SESSION_HANDLE_INVALID,
        ] {
            assert!(!may_be_the_template(code), "{code:#x}");
        }
    }

    #[test]
    fn codes_have_names() {
        let text = |code| error(code).to_string();
        assert_eq!(
            text(CKR_DEVICE_REMOVED),
            "signing with the key web: C_Sign returned CKR_DEVICE_REMOVED"
        );
        assert!(text(CKR_VENDOR_DEFINED + 0x42).ends_with("returned CKR_VENDOR_DEFINED + 0x42"));
        assert!(text(0x7fff_0000).ends_with("returned 0x7fff0000"));
    }
}
