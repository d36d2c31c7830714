//! Names of systemd's units, by the rules of systemd.unit(5).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The name of a unit that has processes, such as `payments.service` or `worker@2.service`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UnitName(String);

/// The longest name, in bytes (`UNIT_NAME_MAX`, without its NUL).
const LENGTH_LIMIT: usize = 255;

/// The types of units with processes. A slice has units.
const TYPES: [&str; 5] = ["service", "scope", "socket", "mount", "swap"];

impl UnitName {
    /// Returns the name as systemd has it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Returns whether it is the name of a slice, which may not be a template or an instance.
pub(crate) fn is_slice(name: &str) -> bool {
    let Some((prefix, "slice")) = split(name) else {
        return false;
    };
    let root = prefix == "-";
    let edges = prefix.starts_with('-') || prefix.ends_with('-');
    !prefix.contains('@') && (root || !edges && !prefix.contains("--"))
}

/// Splits a name into what stands before its type, and its type.
fn split(name: &str) -> Option<(&str, &str)> {
    let (prefix, kind) = name.rsplit_once('.')?;
    let may_contain = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    let fits = name.len() <= LENGTH_LIMIT && !prefix.is_empty() && !prefix.starts_with('@');
    (fits && prefix.chars().all(may_contain)).then_some((prefix, kind))
}

impl TryFrom<String> for UnitName {
    type Error = String;

    fn try_from(name: String) -> Result<UnitName, String> {
        match split(&name) {
            Some((prefix, kind)) if TYPES.contains(&kind) => match prefix.find('@') {
                Some(at) if at + 1 == prefix.len() => Err(format!(
                    "{name:?} is a template, and no process is in it: name an instance, such as {prefix}1.{kind}"
                )),
                _ => Ok(UnitName(name)),
            },
            Some((_, "slice")) => Err(format!(
                "{name:?} is a slice: name the units in it, such as payments.service"
            )),
            _ => Err(format!(
                "{name:?} is not the name of a unit with processes: write its whole name, such as payments.service"
            )),
        }
    }
}

impl FromStr for UnitName {
    type Err = String;

    fn from_str(name: &str) -> Result<UnitName, String> {
        name.to_owned().try_into()
    }
}

impl From<UnitName> for String {
    fn from(name: UnitName) -> String {
        name.0
    }
}

impl fmt::Display for UnitName {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_systemd() {
        for good in [
            "payments.service",
            "foo@1.service",
            "foo@bar@baz.service",
            "getty@tty1.service",
            "run-u7.scope",
            "a.b.service",
            "dev-disk-by\\x2dlabel-swap.swap",
            &format!("{}.service", "x".repeat(247)),
        ] {
            assert!(good.parse::<UnitName>().is_ok(), "{good}");
        }
        for bad in [
            "",
            ".service",
            "payments",
            "payments.service ",
            "payments.timer",
            "payments.Service",
            "foo@.service",
            "@1.service",
            "system.slice",
            "*.service",
            "a/b.service",
            "..service/..",
            "zahlungen-ü.service",
            "pay\nments.service",
            &format!("{}.service", "x".repeat(248)),
        ] {
            assert!(bad.parse::<UnitName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn slices_are_those_of_systemd() {
        for good in ["-.slice", "system.slice", "system-foo.slice", "a.b.slice"] {
            assert!(is_slice(good), "{good}");
        }
        for bad in [
            ".slice",
            "--.slice",
            "-a.slice",
            "a-.slice",
            "a--b.slice",
            "a@1.slice",
            "a.service",
        ] {
            assert!(!is_slice(bad), "{bad}");
        }
    }
}
