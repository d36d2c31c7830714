//! The faults, as the control file writes them.

use std::fmt;
use std::str::{FromStr, SplitAsciiWhitespace};
use std::time::Duration;

use cryptoki_sys::{CK_ATTRIBUTE_TYPE, CK_FLAGS, CK_RV, CK_SLOT_ID, CKR_SESSION_HANDLE_INVALID};

use crate::codes;

/// A fault; `FromStr` reads it as a line of the control file has it after its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A function misbehaves.
    Call {
        /// Its name.
        function: String,
        /// What it does.
        action: Action,
        /// In which of its calls.
        when: When,
    },
    /// Where the tokens are.
    Token(Presence),
}

/// What a function does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Does not return; or only when the cue is gone.
    Hang {
        /// Not even then.
        forever: bool,
    },
    /// Ends the process by SIGSEGV.
    Segfault,
    /// Ends the process by SIGABRT.
    Abort,
    /// Ends the process with that status.
    Exit(i32),
    /// Takes so much longer.
    Sleep(Duration),
    /// Returns that and does nothing else.
    Return(CK_RV),
    /// A bit of the signature is wrong.
    Flip,
    /// The signature's length is more than the caller has room for.
    Overlong,
    /// The private key of that label signs.
    Key(String),
    /// These flags of the token are set.
    Flags(CK_FLAGS),
    /// These flags of the token are not set.
    NoFlags(CK_FLAGS),
    /// No more sessions than that.
    Limit(usize),
    /// Returns that where no session to write is asked for.
    ReadOnly(CK_RV),
    /// The certificate of that label is copied into the session, with this id.
    Copy(String, Vec<u8>),
    /// An attribute that cannot be looked for.
    Unknown(CK_ATTRIBUTE_TYPE),
    /// Good for a signature that follows at once.
    Verify,
    /// Does its work, and ends the process before it returns.
    Lost,
    /// Does its work and returns that all the same.
    Made(CK_RV),
    /// That attribute has this value, of every object.
    Attribute(CK_ATTRIBUTE_TYPE, Vec<u8>),
}

/// In which calls a cue acts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct When {
    /// Not in that many at first.
    pub after: u64,
    /// And then in that many.
    pub times: Option<u64>,
    /// Only in sessions that were opened while the cue was there.
    pub reopened: bool,
}

/// Where the tokens are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Away.
    Absent {
        /// What the use of a session returns.
        code: CK_RV,
    },
    /// Back again.
    Back {
        /// By how much the numbers of their slots are higher.
        shift: CK_SLOT_ID,
        /// Only for those who have called `C_Initialize` since.
        reinitialized: bool,
    },
}

/// Why a text is no fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotAFault {
    text: String,
}

impl FromStr for Fault {
    type Err = NotAFault;

    fn from_str(text: &str) -> Result<Fault, NotAFault> {
        let mut words = text.split_ascii_whitespace();
        fault(&mut words)
            .filter(|_| words.next().is_none())
            .ok_or_else(|| NotAFault {
                text: text.to_owned(),
            })
    }
}

/// Stands in place of a function: what the module does when the process exits.
pub(crate) const DESTRUCTOR: &str = "destructor";

fn fault(words: &mut SplitAsciiWhitespace) -> Option<Fault> {
    match words.next()? {
        "token" => presence(words).map(Fault::Token),
        function if function.starts_with("C_") || function == DESTRUCTOR => {
            let action = action(function, words)?;
            let when = when(words)?;
            let function = function.to_owned();
            Some(Fault::Call {
                function,
                action,
                when,
            })
        }
        _ => None,
    }
}

fn action(function: &str, words: &mut SplitAsciiWhitespace) -> Option<Action> {
    let action = match (function, words.next()?) {
        (_, "hang") => Action::Hang {
            forever: words.clone().next() == Some("forever") && words.next().is_some(),
        },
        (_, "segfault") => Action::Segfault,
        (_, "abort") => Action::Abort,
        (_, "exit") => Action::Exit(words.next()?.parse().ok()?),
        (_, "sleep") => Action::Sleep(Duration::from_millis(words.next()?.parse().ok()?)),
        (_, "return") => Action::Return(codes::return_value(words.next()?)?),
        ("C_Sign", "flip") => Action::Flip,
        ("C_Sign", "overlong") => Action::Overlong,
        ("C_SignInit", "key") => Action::Key(words.next()?.to_owned()),
        ("C_GetTokenInfo", "flags") => Action::Flags(flags(words)?),
        ("C_GetTokenInfo", "no-flags") => Action::NoFlags(flags(words)?),
        ("C_OpenSession", "limit") => Action::Limit(words.next()?.parse().ok()?),
        ("C_OpenSession", "read-only") => Action::ReadOnly(codes::return_value(words.next()?)?),
        ("C_OpenSession", "copy") => {
            let label = words.next()?.to_owned();
            Action::Copy(label, bytes(words.next()?)?)
        }
        ("C_FindObjectsInit", "unknown") => Action::Unknown(codes::attribute(words.next()?)?),
        ("C_Login", "verify") => Action::Verify,
        ("C_Login", "lost") => Action::Lost,
        ("C_GenerateKeyPair", "made") => Action::Made(codes::return_value(words.next()?)?),
        ("C_GetAttributeValue", "attribute") => {
            let attribute = codes::attribute(words.next()?)?;
            Action::Attribute(attribute, bytes(words.next()?)?)
        }
        _ => return None,
    };
    Some(action)
}

/// Two hexadecimal digits a byte.
fn bytes(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2);
    let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let whole = digits.len().is_multiple_of(2);
    pairs.map(byte).collect::<Option<_>>().filter(|_| whole)
}

fn flags(words: &mut SplitAsciiWhitespace) -> Option<CK_FLAGS> {
    let mut flags = codes::token_flag(words.next()?)?;
    while let Some(flag) = words.clone().next().and_then(codes::token_flag) {
        flags |= flag;
        words.next();
    }
    Some(flags)
}

fn when(words: &mut SplitAsciiWhitespace) -> Option<When> {
    let mut when = When::default();
    while let Some(word) = words.next() {
        match word {
            "after" => when.after = words.next()?.parse().ok()?,
            "times" => when.times = Some(words.next()?.parse().ok()?),
            "reopened" => when.reopened = true,
            _ => return None,
        }
    }
    Some(when)
}

fn presence(words: &mut SplitAsciiWhitespace) -> Option<Presence> {
    match words.next()? {
        "absent" => {
            let code = match words.next() {
                Some(code) => codes::return_value(code)?,
                None => CKR_SESSION_HANDLE_INVALID,
            };
            Some(Presence::Absent { code })
        }
        "back" => {
            let (mut shift, mut reinitialized) = (0, false);
            while let Some(word) = words.next() {
                match word {
                    "shift" => shift = words.next()?.parse().ok()?,
                    "reinitialized" => reinitialized = true,
                    _ => return None,
                }
            }
            Some(Presence::Back {
                shift,
                reinitialized,
            })
        }
        _ => None,
    }
}

impl fmt::Display for NotAFault {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(
            f,
            "{:?} is no fault: the documentation of roleseal-faulty-module has the grammar",
            self.text
        )
    }
}

impl std::error::Error for NotAFault {}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(function: &str, action: Action, when: When) -> Fault {
        let function = function.to_owned();
        Fault::Call {
            function,
            action,
            when,
        }
    }

    #[test]
    fn every_action_can_be_written() {
        let removed = Action::Return(cryptoki_sys::CKR_DEVICE_REMOVED);
        for (text, function, action) in [
            ("C_Sign hang", "C_Sign", Action::Hang { forever: false }),
            (
                "C_Finalize hang forever",
                "C_Finalize",
                Action::Hang { forever: true },
            ),
            ("C_Sign segfault", "C_Sign", Action::Segfault),
            ("C_Sign abort", "C_Sign", Action::Abort),
            ("C_Login exit 3", "C_Login", Action::Exit(3)),
            (
                "C_Sign sleep 250",
                "C_Sign",
                Action::Sleep(Duration::from_millis(250)),
            ),
            ("C_Sign return CKR_DEVICE_REMOVED", "C_Sign", removed),
            (
                "C_Sign return 0x80000042",
                "C_Sign",
                Action::Return(0x8000_0042),
            ),
            ("C_Sign return 5", "C_Sign", Action::Return(5)),
            ("C_Sign flip", "C_Sign", Action::Flip),
            ("C_Sign overlong", "C_Sign", Action::Overlong),
            (
                "C_SignInit key other",
                "C_SignInit",
                Action::Key("other".to_owned()),
            ),
            (
                "C_GetTokenInfo flags CKF_USER_PIN_COUNT_LOW CKF_USER_PIN_LOCKED",
                "C_GetTokenInfo",
                Action::Flags(0x5_0000),
            ),
            (
                "C_GetTokenInfo no-flags CKF_LOGIN_REQUIRED",
                "C_GetTokenInfo",
                Action::NoFlags(4),
            ),
            ("C_OpenSession limit 3", "C_OpenSession", Action::Limit(3)),
            (
                "C_OpenSession read-only CKR_FUNCTION_FAILED",
                "C_OpenSession",
                Action::ReadOnly(6),
            ),
            (
                "C_OpenSession copy web 01",
                "C_OpenSession",
                Action::Copy("web".to_owned(), vec![1]),
            ),
            (
                "C_FindObjectsInit unknown CKA_TOKEN",
                "C_FindObjectsInit",
                Action::Unknown(cryptoki_sys::CKA_TOKEN),
            ),
            ("C_Login verify", "C_Login", Action::Verify),
            ("C_Login lost", "C_Login", Action::Lost),
            (
                "C_GenerateKeyPair made CKR_DEVICE_ERROR",
                "C_GenerateKeyPair",
                Action::Made(0x30),
            ),
            (
                "C_GetAttributeValue attribute CKA_SIGN 00ff",
                "C_GetAttributeValue",
                Action::Attribute(cryptoki_sys::CKA_SIGN, vec![0, 255]),
            ),
        ] {
            let when = When::default();
            assert_eq!(text.parse(), Ok(call(function, action.clone(), when)));
            let when = When {
                after: 2,
                times: Some(7),
                reopened: true,
            };
            let text = format!("{text}  after 2 times 7 reopened");
            assert_eq!(text.parse(), Ok(call(function, action, when)), "{text}");
        }
    }

    #[test]
    fn tokens_go_and_come() {
        let absent = |code| Fault::Token(Presence::Absent { code });
        let back = |shift, reinitialized| {
            Fault::Token(Presence::Back {
                shift,
                reinitialized,
            })
        };
        for (text, fault) in [
            ("token absent", absent(CKR_SESSION_HANDLE_INVALID)),
            (
                "token absent CKR_TOKEN_NOT_PRESENT",
                absent(cryptoki_sys::CKR_TOKEN_NOT_PRESENT),
            ),
            ("token back", back(0, false)),
            ("token back reinitialized", back(0, true)),
            ("token back shift 100 reinitialized", back(100, true)),
        ] {
            assert_eq!(text.parse(), Ok(fault), "{text}");
        }
    }

    #[test]
    fn what_is_no_fault_is_refused() {
        for text in [
            "",
            "C_Sign",
            "C_Sign explode",
            "C_Login flip",
            "C_Sign return CKR_NONSENSE",
            "C_Sign return",
            "C_Sign sleep long",
            "C_Sign flip twice",
            "C_Sign flip after",
            "C_GetTokenInfo flags",
            "C_GetAttributeValue attribute CKA_SIGN 0",
            "token",
            "token lost",
            "token absent CKR_DEVICE_REMOVED now",
            "token back shift",
            "C_Sign flip forever",
        ] {
            let refused = text.parse::<Fault>().unwrap_err().to_string();
            assert!(refused.contains(&format!("{text:?}")), "{refused}");
        }
    }
}
