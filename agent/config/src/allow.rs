//! `allow` rules of an identity.

use std::fmt;
use std::str::FromStr;

use jiff::SignedDuration;
use rolesanywhere::SessionDuration;
use serde::Deserialize;
use serde::de::{Deserializer, Error, Unexpected, Visitor};

use crate::fault::Fault;
use crate::rule::{ArnPattern, Rule};
use crate::user_database::UserDatabase;
use crate::value::Text;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct RuleTable {
    #[serde(default)]
    users: Vec<Account>,
    #[serde(default)]
    groups: Vec<Account>,
    #[serde(default)]
    roles: Vec<Text<ArnPattern>>,
    #[serde(default)]
    profiles: Vec<Text<ArnPattern>>,
    #[serde(default)]
    trust_anchors: Vec<Text<ArnPattern>>,
    max_duration: Option<Text<MaxDuration>>,
}

impl RuleTable {
    pub(crate) fn validate(self, users: &dyn UserDatabase) -> Result<Rule, Fault> {
        if self.users.is_empty() && self.groups.is_empty() {
            let nobody = "an [[identity.allow]] rule names no users or groups: add some; \
                          users = [\"*\"] means every local user";
            return Err(nobody.to_owned().into());
        }
        let everyone = Account::Name("*".to_owned());
        let unwrap =
            |patterns: Vec<Text<ArnPattern>>| patterns.into_iter().map(|text| text.0).collect();
        Ok(Rule {
            everyone: self.users.contains(&everyone),
            users: self
                .users
                .iter()
                .filter(|user| **user != everyone)
                .map(|user| user.number("user", |name| users.user(name)))
                .collect::<Result<_, Fault>>()?,
            groups: self
                .groups
                .iter()
                .map(|group| group.number("group", |name| users.group(name)))
                .collect::<Result<_, Fault>>()?,
            roles: unwrap(self.roles),
            profiles: unwrap(self.profiles),
            trust_anchors: unwrap(self.trust_anchors),
            max_duration: self.max_duration.map(|text| text.0.0),
        })
    }
}

/// A user or group, by name or number.
#[derive(PartialEq)]
enum Account {
    Name(String),
    Number(u32),
}

impl Account {
    fn number(
        &self,
        kind: &str,
        find: impl Fn(&str) -> Result<Option<u32>, String>,
    ) -> Result<u32, Fault> {
        match self {
            Account::Number(number) => Ok(*number),
            Account::Name(name) => match find(name) {
                Ok(Some(number)) => Ok(number),
                Ok(None) => Err(Fault::Invalid(format!(
                    "there is no {kind} {name:?} on this machine: create it, or write a number"
                ))),
                Err(error) => Err(Fault::Lookup(format!(
                    "cannot look up {kind} {name:?}: {error}"
                ))),
            },
        }
    }
}

impl<'de> Deserialize<'de> for Account {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Account, D::Error> {
        struct NameOrNumber;
        impl Visitor<'_> for NameOrNumber {
            type Value = Account;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a name or a number from 0 to 4294967294")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Account, E> {
                Ok(Account::Name(name.to_owned()))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Account, E> {
                match u32::try_from(number) {
                    Ok(id) if id != u32::MAX => Ok(Account::Number(id)),
                    _ => Err(E::invalid_value(Unexpected::Signed(number), &self)),
                }
            }
        }
        deserializer.deserialize_any(NameOrNumber)
    }
}

impl FromStr for ArnPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<ArnPattern, String> {
        if text == "*" || text.starts_with("arn:") {
            Ok(ArnPattern(text.to_owned()))
        } else {
            Err(format!(
                "{text:?} matches no ARN: write one, with * for any characters"
            ))
        }
    }
}

/// A time such as `1h` or `90m`, within what AWS grants.
struct MaxDuration(SessionDuration);

impl FromStr for MaxDuration {
    type Err = String;

    fn from_str(text: &str) -> Result<MaxDuration, String> {
        let duration: SignedDuration = text
            .parse()
            .map_err(|_| format!("{text:?} is not a time: write one like 1h or 90m"))?;
        let seconds = u64::try_from(duration.as_secs()).unwrap_or(0);
        seconds.try_into().map(MaxDuration)
    }
}

#[cfg(test)]
mod tests {
    use crate::tests::{WEB, assert_refused};

    #[test]
    fn faults_of_a_rule_are_named() {
        for (rule, expected) in [
            ("", "users or groups"),
            ("users = [\"no-such-user-here\"]", "no-such-user-here"),
            ("groups = [\"no-such-group\"]", "no-such-group"),
            ("users = [-1]", "FILE:5: "),
            ("users = [0]\nroles = [\"web-*\"]", "FILE:6: "),
            ("users = [0]\nmax-duration = \"1m\"", "FILE:6: "),
            ("users = [0]\nmax-duration = 900", "FILE:6: "),
        ] {
            assert_refused(&format!("{WEB}[[identity.allow]]\n{rule}\n"), expected);
        }
    }
}
