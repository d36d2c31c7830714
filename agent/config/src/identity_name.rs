//! An identity's name: plain enough for a command line, a file's name, a label of a metric and a log line.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// 1 to 64 letters, digits or any of `._-`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IdentityName(String);

/// The longest name, in bytes.
pub(crate) const NAME_LIMIT: usize = 64;

impl TryFrom<String> for IdentityName {
    type Error = String;

    fn try_from(name: String) -> Result<IdentityName, String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if (1..=NAME_LIMIT).contains(&name.len()) && name.chars().all(plain) {
            Ok(IdentityName(name))
        } else {
            Err(format!(
                "an identity's name has 1 to {NAME_LIMIT} letters, digits or any of ._-"
            ))
        }
    }
}

impl FromStr for IdentityName {
    type Err = String;

    fn from_str(name: &str) -> Result<IdentityName, String> {
        name.to_owned().try_into()
    }
}

impl From<IdentityName> for String {
    fn from(name: IdentityName) -> String {
        name.0
    }
}

impl fmt::Display for IdentityName {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}
