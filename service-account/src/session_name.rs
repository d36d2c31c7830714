//! The name of a role session, by its service account: CloudTrail shows it.

use std::fmt;
use std::str::FromStr;

use rolesanywhere::SessionName;
use sha2::{Digest, Sha256};

use crate::account::ServiceAccount;

/// A role session's name with `{namespace}` and `{service-account}` in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionNameTemplate {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Namespace,
    Account,
}

const NAMESPACE: &str = "namespace";
const ACCOUNT: &str = "service-account";

/// As AWS limits a name (`CreateSession`).
const LENGTH: std::ops::RangeInclusive<usize> = 2..=64;

/// Characters of the hash of a name that is cut: of 16^12 values, no two that a cluster has are alike.
const HASH_LENGTH: usize = 12;

impl SessionNameTemplate {
    /// Returns whether a text has anything to fill in.
    pub fn is_template(text: &str) -> bool {
        text.contains(['{', '}'])
    }

    /// Returns the name of this account's sessions. One that is too long is cut, one that is too short is not, and both
    /// get `-` and a hash of the whole.
    pub fn fill(&self, account: &ServiceAccount) -> Result<SessionName, String> {
        let whole: String = self
            .parts
            .iter()
            .map(|part| match part {
                Part::Text(text) => text,
                Part::Namespace => account.namespace(),
                Part::Account => account.name(),
            })
            .collect();
        if LENGTH.contains(&whole.len()) {
            return whole.parse();
        }
        let hash = hex::encode(Sha256::digest(&whole));
        let room = LENGTH.end() - HASH_LENGTH - 1;
        let (begin, hash) = (whole.chars().take(room), hash.chars().take(HASH_LENGTH));
        begin.chain(['-']).chain(hash).collect::<String>().parse()
    }
}

impl FromStr for SessionNameTemplate {
    type Err = String;

    fn from_str(text: &str) -> Result<SessionNameTemplate, String> {
        let (mut parts, mut rest) = (Vec::new(), text);
        while let Some((before, after)) = rest.split_once('{') {
            let (name, behind) = after.split_once('}').ok_or("a '{' has no '}'")?;
            parts.push(literal(before)?);
            parts.push(match name {
                NAMESPACE => Part::Namespace,
                ACCOUNT => Part::Account,
                _ => {
                    return Err(format!(
                        "write {{{NAMESPACE}}} or {{{ACCOUNT}}}, not {{{name}}}"
                    ));
                }
            });
            rest = behind;
        }
        parts.push(literal(rest)?);
        parts.retain(|part| *part != Part::Text(String::new()));
        Ok(SessionNameTemplate { parts })
    }
}

fn literal(text: &str) -> Result<Part, String> {
    match text.chars().all(SessionName::may_contain) {
        true => Ok(Part::Text(text.to_owned())),
        false => Err("a role session's name has letters, digits or any of _+=,.@-".to_owned()),
    }
}

impl fmt::Display for SessionNameTemplate {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.parts.iter().try_for_each(|part| match part {
            Part::Text(text) => f.write_str(text),
            Part::Namespace => write!(f, "{{{NAMESPACE}}}"),
            Part::Account => write!(f, "{{{ACCOUNT}}}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(namespace: &str, name: &str) -> ServiceAccount {
        ServiceAccount::new(namespace, name).unwrap()
    }

    #[test]
    fn a_name_says_whose_it_is() {
        let api = account("payments", "api");
        for (template, name) in [
            ("{namespace}.{service-account}", "payments.api"),
            ("k8s-{service-account}@{namespace}", "k8s-api@payments"),
            ("{namespace}", "payments"),
        ] {
            let parsed: SessionNameTemplate = template.parse().unwrap();
            assert_eq!(parsed.fill(&api).unwrap().to_string(), name);
            assert_eq!(parsed.to_string(), template);
        }
        for wrong in [
            "{pod}",
            "{namespace",
            "namespace}",
            "{}",
            "a b{namespace}",
            "ü{namespace}",
        ] {
            assert!(wrong.parse::<SessionNameTemplate>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_name_that_does_not_fit_differs_from_all_others() {
        let template: SessionNameTemplate = "{namespace}.{service-account}".parse().unwrap();
        let long = |end: &str| account("payments", &format!("{}{end}", "a".repeat(200)));
        let [one, other] = ["b", "c"].map(|end| template.fill(&long(end)).unwrap().to_string());
        assert_eq!((one.len(), other.len()), (64, 64));
        assert!(one.starts_with("payments.aaaa") && one != other);
        assert_eq!(template.fill(&long("b")).unwrap().to_string(), one);
        let short: SessionNameTemplate = "{namespace}".parse().unwrap();
        let name = short.fill(&account("a", "b")).unwrap().to_string();
        assert!(name.starts_with("a-") && name.len() == 14, "{name}");
    }
}
