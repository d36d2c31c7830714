//! What a targets file calls a target.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use serde::de::{Deserializer, Error};

/// 1 to 64 letters, digits or `._-`, beginning with a letter or digit: safe in a path, a URL, an
/// option and a shell.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetName(String);

impl FromStr for TargetName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<TargetName, &'static str> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.len() <= 64
            && text.chars().all(plain)
        {
            Ok(TargetName(text.to_owned()))
        } else {
            Err(
                "a target's name has 1 to 64 letters, digits or any of ._-, and begins with a letter or digit",
            )
        }
    }
}

impl<'de> Deserialize<'de> for TargetName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<TargetName, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

impl AsRef<str> for TargetName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TargetName {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TargetName {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_its_place() {
        for name in ["web", "7", "a.b_c-D", &"a".repeat(64)] {
            assert_eq!(name.parse::<TargetName>().unwrap().as_ref(), name);
        }
        for name in [
            "",
            ".",
            "..",
            "-x",
            "_x",
            "a/b",
            "a b",
            "ä",
            "a\n",
            &"a".repeat(65),
        ] {
            assert!(name.parse::<TargetName>().is_err(), "{name:?}");
        }
    }
}
