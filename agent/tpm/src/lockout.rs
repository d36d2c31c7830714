//! The TPM's defence against guessing: it counts failed authorizations, of all programs together, and at a
//! limit refuses all keys that are not noDA, until a count is forgotten.

use std::fmt;

use token::TokenError;
use tss_esapi::constants::{CapabilityType, PropertyTag};
use tss_esapi::structures::CapabilityData;
use tss_esapi::{Context, Error, WrapperErrorKind};

/// The state of that defence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lockout {
    /// Failed authorizations that are not forgotten yet.
    pub(crate) counter: u32,
    /// At so many the TPM locks.
    pub(crate) limit: u32,
    /// It forgets one after so many seconds.
    pub(crate) interval: u32,
}

impl Lockout {
    pub(crate) fn read(context: &mut Context) -> tss_esapi::Result<Lockout> {
        const PROPERTIES: u32 = 3; // counter, limit and interval follow each other
        let first = PropertyTag::LockoutCounter.into();
        let (data, _) = context.get_capability(CapabilityType::TpmProperties, first, PROPERTIES)?;
        let CapabilityData::TpmProperties(properties) = data else {
            return Err(Error::WrapperError(WrapperErrorKind::WrongValueFromTpm));
        };
        let value = |tag| {
            properties
                .find(tag)
                .map(|property| property.value())
                .ok_or(Error::WrapperError(WrapperErrorKind::WrongValueFromTpm))
        };
        Ok(Lockout {
            counter: value(PropertyTag::LockoutCounter)?,
            limit: value(PropertyTag::MaxAuthFail)?,
            interval: value(PropertyTag::LockoutInterval)?,
        })
    }

    /// Whether an auth value may be tried that could be wrong: not in lockout, and not where another
    /// failure would lock the TPM for everybody.
    pub(crate) fn check(self, what: &str) -> Result<(), TokenError> {
        if self.counter >= self.limit {
            return Err(self.wait(format_args!("{what} is not tried: the TPM is in lockout")));
        }
        if self.counter > 0 && self.counter + 1 >= self.limit {
            return Err(self.wait(format_args!(
                "{what} is not tried: one more failure would lock the TPM"
            )));
        }
        Ok(())
    }

    /// The error that says how long to wait.
    pub(crate) fn wait(self, what: impl fmt::Display) -> TokenError {
        let seconds = self.seconds();
        TokenError::Wait {
            text: format!(
                "{what} ({self}); wait {seconds} s, or run `tpm2_dictionarylockout --clear-lockout`, which \
                 is noticed within a minute"
            ),
            seconds,
        }
    }

    /// How long until so much is forgotten that a try cannot lock the TPM.
    fn seconds(self) -> u64 {
        let allowed = self.limit.saturating_sub(2);
        let too_many = self.counter.saturating_sub(allowed).max(1);
        u64::from(too_many) * u64::from(self.interval.max(1))
    }

    /// What an operator should know while it works.
    pub(crate) fn warning(self) -> Option<String> {
        (self.counter > 0).then(|| {
            format!(
                "the TPM counts {self}: look for a program with a wrong auth value, or for power cuts, \
                 before it locks"
            )
        })
    }
}

impl fmt::Display for Lockout {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Lockout {
            counter,
            limit,
            interval,
        } = self;
        write!(
            f,
            "{counter} failed authorizations of {limit}, one is forgotten every {interval} s"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_try_is_left_to_others() {
        let check = |counter, limit| {
            let interval = 600;
            let lockout = Lockout {
                counter,
                limit,
                interval,
            };
            lockout.check("web")
        };
        for (counter, limit) in [(0, 32), (30, 32), (0, 1), (1, 3)] {
            assert_eq!(check(counter, limit), Ok(()));
        }
        for (counter, limit, wait) in [
            (31, 32, 600),
            (32, 32, 1200),
            (2, 3, 600),
            (1, 1, 600),
            (5, 3, 2400),
        ] {
            let Err(TokenError::Wait { text, seconds }) = check(counter, limit) else {
                panic!("{counter} of {limit}");
            };
            assert_eq!(seconds, wait, "{counter} of {limit}");
            assert!(text.contains(&format!("wait {wait} s")), "{text}");
        }
    }
}
