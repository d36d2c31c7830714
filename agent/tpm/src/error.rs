//! What a TPM command returned, and what helps against it.

use std::fmt;

use token::TokenError;
use tss_esapi::Error;
use tss_esapi::constants::response_code::Tss2ResponseCode;

/// A TPM command that did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) command: &'static str,
    pub(crate) code: Code,
}

/// Who failed, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    /// The TPM, with a response code of the TPM 2.0 library, part 2; without the number of the
    /// parameter, handle or session that it is about.
    Tpm(u32),
    /// libtss2, with a code of its own: most often the way to the TPM is lost.
    Software(u32),
    /// The TPM answered, but not what the command is to answer.
    Nonsense,
    /// The TPM was given up before.
    Closed,
}

/// Response codes that are treated by name.
pub(crate) mod rc {
    pub(crate) const INITIALIZE: u32 = 0x100;
    pub(crate) const FAILURE: u32 = 0x101;
    pub(crate) const PCR_CHANGED: u32 = 0x128;
    pub(crate) const REBOOT: u32 = 0x130;
    pub(crate) const ASYMMETRIC: u32 = 0x081;
    pub(crate) const VALUE: u32 = 0x084;
    pub(crate) const KEY_SIZE: u32 = 0x087;
    pub(crate) const TYPE: u32 = 0x08a;
    pub(crate) const HANDLE: u32 = 0x08b;
    pub(crate) const AUTH_FAIL: u32 = 0x08e;
    pub(crate) const INTEGRITY: u32 = 0x09f;
    pub(crate) const POLICY_FAIL: u32 = 0x09d;
    pub(crate) const BAD_AUTH: u32 = 0x0a2;
    pub(crate) const CURVE: u32 = 0x0a6;
    pub(crate) const CONTEXT_GAP: u32 = 0x901;
    pub(crate) const OBJECT_MEMORY: u32 = 0x902;
    pub(crate) const SESSION_MEMORY: u32 = 0x903;
    pub(crate) const MEMORY: u32 = 0x904;
    pub(crate) const SESSION_HANDLES: u32 = 0x905;
    pub(crate) const OBJECT_HANDLES: u32 = 0x906;
    pub(crate) const YIELDED: u32 = 0x908;
    pub(crate) const CANCELED: u32 = 0x909;
    pub(crate) const TESTING: u32 = 0x90a;
    pub(crate) const REFERENCE_H0: u32 = 0x910;
    pub(crate) const REFERENCE_S6: u32 = 0x91e;
    pub(crate) const NV_RATE: u32 = 0x920;
    pub(crate) const LOCKOUT: u32 = 0x921;
    pub(crate) const RETRY: u32 = 0x922;
    pub(crate) const NV_UNAVAILABLE: u32 = 0x923;
}

impl Failure {
    pub(crate) fn new(command: &'static str, error: Error) -> Failure {
        let code = match error {
            Error::WrapperError(_) => Code::Nonsense,
            Error::Tss2Error(code) => number(code).map_or(Code::Nonsense, Code::of),
        };
        Failure { command, code }
    }

    pub(crate) fn is(self, code: u32) -> bool {
        self.code == Code::Tpm(code)
    }

    /// Whether the TPM only asks for patience.
    pub(crate) fn is_passing(self) -> bool {
        matches!(
            self.code,
            Code::Tpm(rc::RETRY | rc::YIELDED | rc::TESTING | rc::NV_RATE | rc::CANCELED)
        )
    }

    /// Whether an auth value was refused: no answer to these may be another try.
    pub(crate) fn is_refused_auth(self) -> bool {
        self.is(rc::AUTH_FAIL) || self.is(rc::BAD_AUTH)
    }

    /// Whether there was no room for one more object.
    pub(crate) fn is_lack_of_room(self) -> bool {
        matches!(
            self.code,
            Code::Tpm(rc::OBJECT_MEMORY | rc::MEMORY | rc::OBJECT_HANDLES)
        )
    }

    /// Whether there was no place for one more session.
    pub(crate) fn is_lack_of_sessions(self) -> bool {
        matches!(
            self.code,
            Code::Tpm(rc::SESSION_MEMORY | rc::SESSION_HANDLES)
        )
    }

    /// Whether the TPM does not know such an algorithm, curve or size.
    pub(crate) fn is_unknown_kind(self) -> bool {
        [rc::ASYMMETRIC, rc::VALUE, rc::KEY_SIZE, rc::TYPE, rc::CURVE]
            .into_iter()
            .any(|code| self.is(code))
    }

    /// Whether the TPM, if it got the command at all, has not answered it.
    pub(crate) fn is_without_answer(self) -> bool {
        matches!(self.code, Code::Software(_))
    }

    /// The error for the agent; `what` was being done when it happened.
    pub(crate) fn while_doing(self, what: impl fmt::Display) -> TokenError {
        // These fail only when the TPM is not as we left it: restarted, cleared, or full.
        let ours = ["TPM2_ContextLoad", "TPM2_ContextSave", "TPM2_FlushContext"];
        let code = match self.code {
            Code::Tpm(code) if !ours.contains(&self.command) => code,
            _ => return self.gone(what),
        };
        match code {
            rc::AUTH_FAIL | rc::BAD_AUTH => TokenError::PinRejected(format!("{what}: {self}")),
            rc::INITIALIZE
            | rc::FAILURE
            | rc::REBOOT
            | rc::HANDLE
            | rc::LOCKOUT
            | rc::NV_UNAVAILABLE
            | rc::CONTEXT_GAP..=rc::TESTING
            | rc::REFERENCE_H0..=rc::REFERENCE_S6
            | rc::NV_RATE
            | rc::RETRY => self.gone(what),
            _ => TokenError::Unusable(format!("{what}: {self}")),
        }
    }

    /// The error where only opening the TPM again can help.
    pub(crate) fn gone(self, what: impl fmt::Display) -> TokenError {
        TokenError::Gone(format!("{what}: {self}"))
    }
}

impl Code {
    /// Sorts a TSS2_RC: the layer is in bits 16 to 23.
    fn of(number: u32) -> Code {
        const TPM: u32 = 0;
        // TSS2_RESMGR_RC_LAYER and TSS2_RESMGR_TPM_RC_LAYER of tss2_common.h
        const RESOURCE_MANAGER: u32 = 11;
        const RESOURCE_MANAGER_AS_TPM: u32 = 12;
        match number >> 16 {
            TPM | RESOURCE_MANAGER | RESOURCE_MANAGER_AS_TPM => {
                let format_one = number & 0x80 != 0;
                Code::Tpm(number & if format_one { 0xbf } else { 0xfff })
            }
            _ => Code::Software(number),
        }
    }
}

/// The number in tss-esapi's error. The crate keeps it private, and its own sorting ignores the layer, so
/// that a lost connection looks like a response of the TPM; only the text of the number shows all of it.
fn number(code: Tss2ResponseCode) -> Option<u32> {
    let text = match code {
        Tss2ResponseCode::Success => return None,
        Tss2ResponseCode::FormatZero(code) => code.to_string(),
        Tss2ResponseCode::FormatOne(code) => code.to_string(),
    };
    let (_, digits) = text.rsplit_once("0x")?;
    u32::from_str_radix(digits, 16).ok()
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let command = self.command;
        match self.code {
            Code::Tpm(code) => match NAMES.iter().find(|(named, ..)| *named == code) {
                Some((_, name, "")) => write!(f, "{command} returned {name}"),
                Some((_, name, meaning)) => write!(f, "{command} returned {name}: {meaning}"),
                None => write!(f, "{command} returned {code:#05x}"),
            },
            Code::Software(code) => {
                write!(
                    f,
                    "the TPM cannot be reached ({command}, libtss2 {code:#x})"
                )
            }
            Code::Nonsense => write!(f, "{command} made no sense"),
            Code::Closed => write!(f, "the TPM was closed after an earlier failure"),
        }
    }
}

const NAMES: &[(u32, &str, &str)] = &[
    (rc::INITIALIZE, "TPM_RC_INITIALIZE", "the TPM was restarted"),
    (
        rc::FAILURE,
        "TPM_RC_FAILURE",
        "the TPM failed its self-test and stays so until the machine restarts",
    ),
    (rc::REBOOT, "TPM_RC_REBOOT", "restart the machine"),
    (0x120, "TPM_RC_DISABLED", ""),
    (0x124, "TPM_RC_AUTH_TYPE", ""),
    (0x126, "TPM_RC_POLICY", ""),
    (0x127, "TPM_RC_PCR", ""),
    (rc::PCR_CHANGED, "TPM_RC_PCR_CHANGED", ""),
    (
        0x12f,
        "TPM_RC_AUTH_UNAVAILABLE",
        "it is used by a policy, not by an auth value",
    ),
    (0x143, "TPM_RC_COMMAND_CODE", "this TPM does not have it"),
    (rc::ASYMMETRIC, "TPM_RC_ASYMMETRIC", ""),
    (0x082, "TPM_RC_ATTRIBUTES", ""),
    (0x083, "TPM_RC_HASH", ""),
    (rc::VALUE, "TPM_RC_VALUE", ""),
    (
        0x085,
        "TPM_RC_HIERARCHY",
        "the firmware or an administrator has switched it off",
    ),
    (rc::KEY_SIZE, "TPM_RC_KEY_SIZE", ""),
    (rc::TYPE, "TPM_RC_TYPE", ""),
    (rc::HANDLE, "TPM_RC_HANDLE", ""),
    (rc::AUTH_FAIL, "TPM_RC_AUTH_FAIL", ""),
    (0x092, "TPM_RC_SCHEME", ""),
    (0x095, "TPM_RC_SIZE", ""),
    (0x09b, "TPM_RC_TICKET", ""),
    (0x09c, "TPM_RC_KEY", ""),
    (rc::POLICY_FAIL, "TPM_RC_POLICY_FAIL", ""),
    (
        rc::INTEGRITY,
        "TPM_RC_INTEGRITY",
        "the key belongs to another TPM, or to another parent: make it again",
    ),
    (
        0x08d,
        "TPM_RC_RANGE",
        "the hierarchy has no such persistent handle",
    ),
    (
        0x14b,
        "TPM_RC_NV_SPACE",
        "the TPM has no room for another persistent key: delete one, or use a key file",
    ),
    (0x14c, "TPM_RC_NV_DEFINED", "something is there already"),
    (0x0a0, "TPM_RC_SIGNATURE", ""),
    (rc::BAD_AUTH, "TPM_RC_BAD_AUTH", ""),
    (0x0a4, "TPM_RC_POLICY_CC", ""),
    (0x0a5, "TPM_RC_BINDING", ""),
    (rc::CURVE, "TPM_RC_CURVE", ""),
    (rc::CONTEXT_GAP, "TPM_RC_CONTEXT_GAP", ""),
    (
        rc::OBJECT_MEMORY,
        "TPM_RC_OBJECT_MEMORY",
        "other programs fill the TPM; let them use /dev/tpmrm0, or `tpm2_flushcontext -t`",
    ),
    (
        rc::SESSION_MEMORY,
        "TPM_RC_SESSION_MEMORY",
        "other programs hold its sessions; let them use /dev/tpmrm0, or `tpm2_flushcontext -l`",
    ),
    (rc::MEMORY, "TPM_RC_MEMORY", "other programs fill the TPM"),
    (
        rc::SESSION_HANDLES,
        "TPM_RC_SESSION_HANDLES",
        "other programs hold all of its sessions; `tpm2_flushcontext -s` frees the saved ones",
    ),
    (rc::OBJECT_HANDLES, "TPM_RC_OBJECT_HANDLES", ""),
    (rc::YIELDED, "TPM_RC_YIELDED", ""),
    (rc::CANCELED, "TPM_RC_CANCELED", ""),
    (rc::TESTING, "TPM_RC_TESTING", "the TPM tests itself"),
    (
        rc::REFERENCE_H0,
        "TPM_RC_REFERENCE_H0",
        "the loaded key is not there any more",
    ),
    (
        0x918,
        "TPM_RC_REFERENCE_S0",
        "the session is not there any more",
    ),
    (rc::NV_RATE, "TPM_RC_NV_RATE", ""),
    (rc::LOCKOUT, "TPM_RC_LOCKOUT", ""),
    (rc::RETRY, "TPM_RC_RETRY", "the TPM is busy"),
    (rc::NV_UNAVAILABLE, "TPM_RC_NV_UNAVAILABLE", ""),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(number: u32) -> Failure {
        let error = Error::Tss2Error(Tss2ResponseCode::from(number));
        Failure::new("TPM2_Sign", error)
    }

    fn error(number: u32) -> TokenError {
        failure(number).while_doing("cannot sign with web")
    }

    #[test]
    fn codes_lose_their_position_and_keep_their_layer() {
        for (number, code) in [
            (0x98e, Code::Tpm(rc::AUTH_FAIL)),
            (0x9a2, Code::Tpm(rc::BAD_AUTH)),
            (0x1c4, Code::Tpm(rc::VALUE)),
            (0x18b, Code::Tpm(rc::HANDLE)),
            (0x921, Code::Tpm(rc::LOCKOUT)),
            (0x000b_0902, Code::Tpm(rc::OBJECT_MEMORY)),
            (0x000a_000a, Code::Software(0x000a_000a)),
            (0x000a_0001, Code::Software(0x000a_0001)),
            (0x0007_0001, Code::Software(0x0007_0001)),
        ] {
            assert_eq!(failure(number).code, code, "{number:#x}");
        }
        let wrapped = Error::WrapperError(tss_esapi::WrapperErrorKind::WrongValueFromTpm);
        assert_eq!(Failure::new("TPM2_Sign", wrapped).code, Code::Nonsense);
    }

    #[test]
    fn codes_are_sorted_by_what_helps() {
        for number in [
            0x100, 0x101, 0x18b, 0x901, 0x902, 0x903, 0x905, 0x910, 0x918, 0x922, 0x923, 0xa000a,
        ] {
            let error = error(number);
            assert!(matches!(error, TokenError::Gone(_)), "{error:?}");
        }
        for number in [0x98e, 0x9a2] {
            assert!(matches!(error(number), TokenError::PinRejected(_)));
        }
        for number in [0x1c4, 0x99d, 0x12f, 0x1df, 0x282] {
            assert!(matches!(error(number), TokenError::Unusable(_)));
        }
    }

    #[test]
    fn texts_name_the_command_and_the_code() {
        for (number, expected) in [
            (
                0x918,
                "cannot sign with web: TPM2_Sign returned TPM_RC_REFERENCE_S0: the session",
            ),
            (
                0x99d,
                "cannot sign with web: TPM2_Sign returned TPM_RC_POLICY_FAIL",
            ),
            (0x155, "cannot sign with web: TPM2_Sign returned 0x155"),
            (
                0xa000a,
                "cannot sign with web: the TPM cannot be reached (TPM2_Sign, libtss2 0xa000a)",
            ),
        ] {
            let text = error(number).to_string();
            assert!(text.starts_with(expected), "{text}");
        }
    }
}
