//! The parameters of a session, within the limits of the CreateSession API.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// What the API accepts for `durationSeconds`: 15 minutes to 12 hours, in seconds.
pub const DURATION: RangeInclusive<u32> = 900..=43_200;

/// What the API takes where the request says nothing, in seconds.
pub const DEFAULT_DURATION: SessionDuration = SessionDuration(3600);

/// A session's duration within [`DURATION`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionDuration(u32);

impl SessionDuration {
    /// In seconds.
    pub fn seconds(self) -> u32 {
        self.0
    }
}

impl TryFrom<u64> for SessionDuration {
    type Error = String;

    fn try_from(seconds: u64) -> Result<SessionDuration, String> {
        match u32::try_from(seconds) {
            Ok(seconds) if DURATION.contains(&seconds) => Ok(SessionDuration(seconds)),
            _ => Err(format!(
                "a session lasts {} to {} seconds, not {seconds}",
                DURATION.start(),
                DURATION.end()
            )),
        }
    }
}

impl FromStr for SessionDuration {
    type Err = String;

    fn from_str(text: &str) -> Result<SessionDuration, String> {
        let seconds: u64 = text
            .parse()
            .map_err(|_| format!("{text:?} is not a number of seconds"))?;
        seconds.try_into()
    }
}

/// A role session's name: 2 to 64 of `[A-Za-z0-9_+=,.@-]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionName(String);

impl FromStr for SessionName {
    type Err = String;

    fn from_str(text: &str) -> Result<SessionName, String> {
        if (2..=64).contains(&text.len()) && text.chars().all(SessionName::may_contain) {
            Ok(SessionName(text.to_owned()))
        } else {
            Err("a role session's name has 2 to 64 letters, digits or any of _+=,.@-".into())
        }
    }
}

impl SessionName {
    /// Returns whether a name may have this character.
    pub fn may_contain(c: char) -> bool {
        c.is_ascii_alphanumeric() || "_+=,.@-".contains(c)
    }
}

impl fmt::Display for SessionName {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_inclusive() {
        for (seconds, fits) in [
            (899, false),
            (900, true),
            (43_200, true),
            (43_201, false),
            (u64::MAX, false),
        ] {
            assert_eq!(
                SessionDuration::try_from(seconds).is_ok(),
                fits,
                "{seconds}"
            );
        }
        for (name, fits) in [
            ("a", false),
            ("ab", true),
            ("a b", false),
            ("ä-", false),
            ("x_+=,.@-", true),
        ] {
            assert_eq!(name.parse::<SessionName>().is_ok(), fits, "{name}");
        }
        assert!("a".repeat(64).parse::<SessionName>().is_ok());
        assert!("a".repeat(65).parse::<SessionName>().is_err());
    }
}
