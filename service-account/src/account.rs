//! For whom a token stands.

use std::fmt;

/// A service account of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServiceAccount {
    namespace: String,
    name: String,
}

/// The pod that a token was made for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pod {
    /// Its name, as the token has it.
    pub name: String,
    /// Its UID: no other pod ever has it.
    pub uid: String,
}

/// The holder of a verified token.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Caller {
    /// Its service account.
    pub account: ServiceAccount,
    /// Its pod; none in a token that was made by hand.
    pub pod: Option<Pod>,
}

/// A label of DNS (RFC 1123).
const NAMESPACE_LIMIT: usize = 63;

/// A name of DNS (RFC 1123).
const NAME_LIMIT: usize = 253;

impl ServiceAccount {
    /// Returns the account with these names; none where Kubernetes would not accept them.
    pub fn new(namespace: &str, name: &str) -> Option<ServiceAccount> {
        (is_namespace(namespace) && is_name(name)).then(|| ServiceAccount {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }

    /// Returns its namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Returns its name within the namespace.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for ServiceAccount {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Returns whether a namespace may have this name.
pub(crate) fn is_namespace(text: &str) -> bool {
    text.len() <= NAMESPACE_LIMIT && is_label(text)
}

/// Returns whether a service account may have this name.
pub(crate) fn is_name(text: &str) -> bool {
    text.len() <= NAME_LIMIT && text.split('.').all(is_label)
}

fn is_label(text: &str) -> bool {
    let ends_well = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.starts_with(ends_well)
        && text.ends_with(ends_well)
        && text.chars().all(|c| ends_well(c) || c == '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_kubernetes() {
        let (long, longest) = ("a".repeat(64), "a".repeat(253));
        for (namespace, name, is_good) in [
            ("payments", "api", true),
            ("a", "0.b-c.d", true),
            (&long[1..], &longest, true),
            (&long, "api", false),
            ("payments", &format!("{longest}a"), false),
            ("pay.ments", "api", false),
            ("Payments", "api", false),
            ("", "api", false),
            ("payments", "", false),
            ("payments", "a..b", false),
            ("payments", "-a", false),
            ("payments", "*", false),
            ("payments", "a/b", false),
            ("payments", "a\n", false),
        ] {
            let made = ServiceAccount::new(namespace, name);
            assert_eq!(made.is_some(), is_good, "{namespace}/{name}");
        }
    }
}
