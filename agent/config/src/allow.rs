//! `allow` rules of an identity.

use std::fmt;
use std::str::FromStr;

use jiff::SignedDuration;
use rolesanywhere::{SessionDuration, SessionName};
use serde::Deserialize;
use serde::de::{Deserializer, Error, Unexpected, Visitor};

use crate::fault::Fault;
use crate::rule::{Pattern, Rule};
use crate::unit_name::UnitName;
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
    units: Vec<Text<UnitName>>,
    #[serde(default)]
    roles: Vec<Text<ArnPattern>>,
    #[serde(default)]
    profiles: Vec<Text<ArnPattern>>,
    #[serde(default)]
    trust_anchors: Vec<Text<ArnPattern>>,
    #[serde(default)]
    role_session_names: Vec<Text<NamePattern>>,
    max_duration: Option<Text<MaxDuration>>,
}

impl RuleTable {
    pub(crate) fn validate(self, users: &dyn UserDatabase) -> Result<Rule, Fault> {
        if self.users.is_empty() && self.groups.is_empty() && self.units.is_empty() {
            let nobody = "an [[identity.allow]] rule names no users, groups or units: add some; \
                          users = [\"*\"] means every local user";
            return Err(nobody.to_owned().into());
        }
        let everyone = Account::Name("*".to_owned());
        let unmapped = users.unmapped();
        let (mut user_ids, mut group_ids, mut unmatched) = (Vec::new(), Vec::new(), Vec::new());
        for user in self.users.iter().filter(|user| **user != everyone) {
            let id = user.number("user", |name| users.user(name))?;
            match user {
                Account::Name(name) if id == unmapped.uid => unmatched.push(name.clone()),
                _ => user_ids.push(id),
            }
        }
        for group in &self.groups {
            let id = group.number("group", |name| users.group(name))?;
            match group {
                Account::Name(name) if id == unmapped.gid => unmatched.push(name.clone()),
                _ => group_ids.push(id),
            }
        }
        let arns = |patterns: Vec<Text<ArnPattern>>| patterns.into_iter().map(|text| text.0.0);
        Ok(Rule {
            everyone: self.users.contains(&everyone),
            users: user_ids,
            groups: group_ids,
            units: self.units.into_iter().map(|text| text.0).collect(),
            unmatched,
            roles: arns(self.roles).collect(),
            profiles: arns(self.profiles).collect(),
            trust_anchors: arns(self.trust_anchors).collect(),
            role_session_names: self
                .role_session_names
                .into_iter()
                .map(|text| text.0.0)
                .collect(),
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

/// A pattern of ARNs.
struct ArnPattern(Pattern);

impl FromStr for ArnPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<ArnPattern, String> {
        if text == "*" || text.starts_with("arn:") {
            Ok(ArnPattern(Pattern(text.to_owned())))
        } else {
            Err(format!(
                "{text:?} matches no ARN: write one, with * for any characters"
            ))
        }
    }
}

/// A pattern of role session names; the empty one stands for a request without a name.
struct NamePattern(Pattern);

impl FromStr for NamePattern {
    type Err = String;

    fn from_str(text: &str) -> Result<NamePattern, String> {
        // In a name's place each wildcard may be any character of one.
        let name = text.replace(['*', '?'], "x");
        let fits = text.contains('*') || text.is_empty() || name.parse::<SessionName>().is_ok();
        if fits && name.len() <= NAME_LIMIT && name.chars().all(SessionName::may_contain) {
            Ok(NamePattern(Pattern(text.to_owned())))
        } else {
            Err(format!(
                "{text:?} matches no role session name: they have 2 to 64 letters, digits or any of _+=,.@-; write * for \
                 any characters, ? for one, and \"\" for a request without a name"
            ))
        }
    }
}

/// Of a pattern: a name's, and some wildcards.
const NAME_LIMIT: usize = 128;

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
            ("", "users, groups or units"),
            ("units = []", "users, groups or units"),
            ("units = [\"payments\"]", "FILE:5: "),
            ("users = [0]\nunits = [\"pay*.service\"]", "FILE:6: "),
            ("units = [\"foo@.service\"]", "FILE:5: "),
            ("units = [\"system.slice\"]", "FILE:5: "),
            ("units = [7]", "FILE:5: "),
            ("users = [\"no-such-user-here\"]", "no-such-user-here"),
            ("groups = [\"no-such-group\"]", "no-such-group"),
            ("users = [-1]", "FILE:5: "),
            ("users = [0]\nroles = [\"web-*\"]", "FILE:6: "),
            ("users = [0]\nmax-duration = \"1m\"", "FILE:6: "),
            ("users = [0]\nrole-session-names = [\"a b\"]", "FILE:6: "),
            ("users = [0]\nrole-session-names = [\"a\"]", "FILE:6: "),
            ("users = [0]\nmax-duration = 900", "FILE:6: "),
        ] {
            assert_refused(&format!("{WEB}[[identity.allow]]\n{rule}\n"), expected);
        }
    }
}
