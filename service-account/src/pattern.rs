//! Which service accounts may have a target.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use serde::de::{Deserializer, Error};

use crate::account::{ServiceAccount, is_name, is_namespace};

/// `NAMESPACE/NAME`, or `NAMESPACE/*` for all of a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountPattern {
    namespace: String,
    /// `None` for any.
    name: Option<String>,
}

impl AccountPattern {
    /// Returns whether this account is meant.
    pub fn matches(&self, account: &ServiceAccount) -> bool {
        let name = self.name.as_deref();
        self.namespace == account.namespace() && name.is_none_or(|name| name == account.name())
    }
}

impl AccountPattern {
    /// Returns an account that is meant: `example` for any name.
    pub fn example(&self) -> Option<ServiceAccount> {
        ServiceAccount::new(&self.namespace, self.name.as_deref().unwrap_or("example"))
    }
}

impl FromStr for AccountPattern {
    type Err = &'static str;

    /// The namespace has no wildcard: whoever may make namespaces would choose among the targets.
    fn from_str(text: &str) -> Result<AccountPattern, &'static str> {
        let (namespace, name) = text.split_once('/').unwrap_or_default();
        let name = (name != "*").then_some(name);
        if is_namespace(namespace) && name.is_none_or(is_name) {
            Ok(AccountPattern {
                namespace: namespace.to_owned(),
                name: name.map(str::to_owned),
            })
        } else {
            Err("write a service account as NAMESPACE/NAME, or NAMESPACE/* for all of a namespace")
        }
    }
}

impl<'de> Deserialize<'de> for AccountPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<AccountPattern, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

impl fmt::Display for AccountPattern {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let name = self.name.as_deref().unwrap_or("*");
        write!(f, "{}/{name}", self.namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_names_one_account_or_a_namespace() {
        let api = ServiceAccount::new("payments", "api").unwrap();
        for (text, matches) in [
            ("payments/api", true),
            ("payments/*", true),
            ("payments/ap", false),
            ("payments/api.v2", false),
            ("payment/*", false),
            ("payments2/api", false),
        ] {
            let pattern: AccountPattern = text.parse().unwrap();
            assert_eq!(pattern.matches(&api), matches, "{text}");
            assert_eq!(pattern.to_string(), text);
            assert!(pattern.matches(&pattern.example().unwrap()), "{text}");
        }
        for text in [
            "",
            "/",
            "payments",
            "payments/",
            "*/*",
            "*/api",
            "payments/a*",
            "a/b/c",
            "A/b",
        ] {
            assert!(text.parse::<AccountPattern>().is_err(), "{text}");
        }
    }
}
