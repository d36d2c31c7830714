//! The `Principal` element of a role's trust policy.

use crate::error::PolicyError;
use crate::json::Node;

/// Who assumes a role for IAM Roles Anywhere ("The IAM Roles Anywhere trust model", role trusts), also in the partitions aws-cn and
/// aws-us-gov.
pub const SERVICE_PRINCIPAL: &str = "rolesanywhere.amazonaws.com";

/// Who a statement speaks of.
#[derive(Clone, Debug)]
pub(crate) enum Principal {
    /// `"*"`, or `{"AWS": "*"}`: the page on Principal calls them equivalent.
    Everyone,
    Named(Vec<(Kind, String)>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Aws,
    Federated,
    Service,
    CanonicalUser,
}

const KINDS: [(&str, Kind); 4] = [
    ("AWS", Kind::Aws),
    ("Federated", Kind::Federated),
    ("Service", Kind::Service),
    ("CanonicalUser", Kind::CanonicalUser),
];

impl Principal {
    pub(crate) fn parse(node: &Node, path: &str) -> Result<Principal, PolicyError> {
        if let Node::Text(text) = node {
            return match text.as_str() {
                "*" => Ok(Principal::Everyone),
                _ => Err(PolicyError::malformed(
                    path,
                    r#"Invalid principal in policy: write {"Service": …}, {"AWS": …} or {"Federated": …}"#,
                )),
            };
        }
        let entries = node.object(path)?;
        if entries.is_empty() {
            let problem = "an object without principals";
            return Err(PolicyError::not_evaluated(path, problem));
        }
        let (mut named, mut everyone) = (Vec::new(), false);
        for (name, values) in entries {
            let path = format!("{path}.{name}");
            let Some((_, kind)) = KINDS.iter().find(|(known, _)| known == name) else {
                let problem = format!("Invalid principal in policy: the key {name} is not valid");
                return Err(PolicyError::malformed(&path, problem));
            };
            for value in values.strings(&path)? {
                if *kind == Kind::Aws && value == "*" {
                    everyone = true;
                    continue;
                }
                check_value(*kind, &value, &path)?;
                named.push((*kind, value));
            }
        }
        match everyone {
            true => Ok(Principal::Everyone),
            false => Ok(Principal::Named(named)),
        }
    }

    pub(crate) fn is_service(&self, service: &str) -> bool {
        match self {
            Principal::Everyone => true,
            Principal::Named(named) => named
                .iter()
                .any(|(kind, name)| *kind == Kind::Service && name == service),
        }
    }

    pub(crate) fn describe(&self) -> Vec<String> {
        match self {
            Principal::Everyone => vec!["*".to_owned()],
            Principal::Named(named) => named
                .iter()
                .map(|(kind, name)| match kind {
                    Kind::Service => name.clone(),
                    Kind::Aws => format!("AWS {name}"),
                    Kind::Federated => format!("Federated {name}"),
                    Kind::CanonicalUser => format!("CanonicalUser {name}"),
                })
                .collect(),
        }
    }
}

fn check_value(kind: Kind, value: &str, path: &str) -> Result<(), PolicyError> {
    let problem = if value.is_empty() {
        "it is empty"
    } else if value.contains("${") {
        "a principal takes no policy variable"
    } else if value.contains(['*', '?']) {
        "a wildcard cannot stand for a part of a name or ARN"
    } else if kind == Kind::Service && !is_service_name(value) {
        "a service principal is usually SERVICE-NAME.amazonaws.com, in lower case"
    } else {
        return Ok(());
    };
    let problem = format!("Invalid principal in policy: {value}: {problem}");
    Err(PolicyError::malformed(path, problem))
}

fn is_service_name(value: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    value.contains('.')
        && value
            .split('.')
            .all(|label| !label.is_empty() && label.chars().all(plain))
}
