//! A trust policy, read strictly and decided by IAM's logic: an explicit deny, else an allow, else denied.

use std::str::FromStr;

use crate::condition::Condition;
use crate::context::Context;
use crate::decision::{Decision, Effect, Part, StatementReport, Verdict};
use crate::error::PolicyError;
use crate::json::Node;
use crate::principal::{Principal, SERVICE_PRINCIPAL};
use crate::wildcard;

/// "Role trust policy length", at the most ("IAM and AWS STS quotas"); white space does not count.
const LENGTH_LIMIT: usize = 4096;

/// Bytes of a document that are looked at, white space included: what is longer is no trust policy.
const BYTE_LIMIT: usize = 64 * 1024;

/// The `AssumeRolePolicyDocument` of an IAM role.
#[derive(Clone, Debug)]
pub struct TrustPolicy {
    statements: Vec<Statement>,
    length: usize,
}

#[derive(Clone, Debug)]
struct Statement {
    sid: Option<String>,
    effect: Effect,
    principal: Principal,
    actions: Actions,
    conditions: Vec<Condition>,
}

/// `Action`, or with `except` `NotAction`; patterns.
#[derive(Clone, Debug)]
struct Actions {
    except: bool,
    patterns: Vec<String>,
}

impl TrustPolicy {
    /// Reads a policy document, as strictly as IAM does when a role is given one.
    ///
    /// # Errors
    ///
    /// What IAM would refuse, and what this evaluator does not know: both by the path of the element.
    pub fn parse(json: &str) -> Result<TrustPolicy, PolicyError> {
        let length = json.chars().filter(|c| !c.is_whitespace()).count();
        if json.len() > BYTE_LIMIT || length > LENGTH_LIMIT {
            return Err(PolicyError::TooLong(length));
        }
        let document: Node =
            serde_json::from_str(json).map_err(|error| PolicyError::Syntax(error.to_string()))?;
        let (mut version, mut statements) = (None, None);
        for (name, node) in document.object("")? {
            match name.as_str() {
                "Version" => version = Some(read_version(node)?),
                "Statement" => statements = Some(node),
                // "The id_block is optional in resource-based policies", which trust policies are.
                "Id" => text(node, "Id").map(drop)?,
                _ => return Err(unknown_field("", name)),
            }
        }
        // Without Version, variables "aren't recognized as variables and are instead treated as literal strings".
        let variables = version.unwrap_or(false);
        let statements = statements
            .ok_or_else(|| PolicyError::malformed("", "Missing required field Statement"))?;
        let policy = TrustPolicy {
            statements: read_statements(statements, variables)?,
            length,
        };
        policy.check_sids()?;
        Ok(policy)
    }

    /// Characters without white space. IAM stores 2048 unless the account's quota was raised.
    #[must_use]
    pub fn length(&self) -> usize {
        self.length
    }

    /// Whether `rolesanywhere.amazonaws.com` may perform `action`, such as `sts:AssumeRole`, in a request of which
    /// `context` is known.
    #[must_use]
    pub fn decide(&self, action: &str, context: &Context) -> Decision {
        let statements: Vec<StatementReport> = self
            .statements
            .iter()
            .enumerate()
            .map(|(index, statement)| statement.report(index, action, context))
            .collect();
        let first = |effect| {
            statements
                .iter()
                .find(|statement| statement.effect == effect && statement.applies())
                .map(|statement| statement.index)
        };
        let verdict = match (first(Effect::Deny), first(Effect::Allow)) {
            (Some(statement), _) => Verdict::ExplicitlyDenied { statement },
            (None, Some(statement)) => Verdict::Allowed { statement },
            (None, None) => Verdict::ImplicitlyDenied,
        };
        Decision {
            action: action.to_owned(),
            verdict,
            statements,
        }
    }

    /// "In IAM, the Sid value must be unique within a JSON policy."
    fn check_sids(&self) -> Result<(), PolicyError> {
        for (at, statement) in self.statements.iter().enumerate() {
            let mut earlier = self.statements.iter().take(at);
            if statement.sid.is_some() && earlier.any(|other| other.sid == statement.sid) {
                return Err(PolicyError::malformed(
                    &format!("Statement[{at}].Sid"),
                    "Statement IDs (SID) in a single policy must be unique",
                ));
            }
        }
        Ok(())
    }
}

impl FromStr for TrustPolicy {
    type Err = PolicyError;

    fn from_str(json: &str) -> Result<TrustPolicy, PolicyError> {
        TrustPolicy::parse(json)
    }
}

/// Whether the version has variables.
fn read_version(node: &Node) -> Result<bool, PolicyError> {
    match text(node, "Version")?.as_str() {
        "2012-10-17" => Ok(true),
        "2008-10-17" => Ok(false),
        _ => Err(PolicyError::malformed(
            "Version",
            "The policy must contain a valid version string: 2012-10-17",
        )),
    }
}

fn read_statements(node: &Node, variables: bool) -> Result<Vec<Statement>, PolicyError> {
    let single = [node];
    let nodes: Vec<&Node> = match node {
        Node::List(items) => items.iter().collect(),
        _ => single.to_vec(),
    };
    if nodes.is_empty() {
        return Err(PolicyError::malformed(
            "Statement",
            "Syntax errors in policy: there is no statement",
        ));
    }
    nodes
        .iter()
        .enumerate()
        .map(|(at, node)| Statement::parse(node, &format!("Statement[{at}]"), variables))
        .collect()
}

impl Statement {
    fn parse(node: &Node, path: &str, variables: bool) -> Result<Statement, PolicyError> {
        let (mut sid, mut effect, mut principal, mut conditions) = (None, None, None, Vec::new());
        let mut actions: Option<Actions> = None;
        for (name, node) in node.object(path)? {
            let at = format!("{path}.{name}");
            match name.as_str() {
                "Sid" => sid = Some(read_sid(node, &at)?),
                "Effect" => effect = Some(read_effect(node, &at)?),
                "Principal" => principal = Some(Principal::parse(node, &at)?),
                "Action" | "NotAction" if actions.is_some() => {
                    let problem = "Action and NotAction cannot be in the same statement";
                    return Err(PolicyError::malformed(&at, problem));
                }
                "Action" | "NotAction" => actions = Some(Actions::parse(name, node, &at)?),
                "Condition" => conditions = Condition::parse_block(node, &at, variables)?,
                "Resource" | "NotResource" | "NotPrincipal" => return Err(prohibited(&at, name)),
                _ => return Err(unknown_field(path, name)),
            }
        }
        let missing =
            |name: &str| PolicyError::malformed(path, format!("Missing required field {name}"));
        Ok(Statement {
            sid,
            effect: effect.ok_or_else(|| missing("Effect"))?,
            principal: principal.ok_or_else(|| missing("Principal"))?,
            actions: actions.ok_or_else(|| missing("Action"))?,
            conditions,
        })
    }

    fn report(&self, index: usize, action: &str, context: &Context) -> StatementReport {
        StatementReport {
            index,
            sid: self.sid.clone(),
            effect: self.effect,
            principal: Part {
                fits: self.principal.is_service(SERVICE_PRINCIPAL),
                expected: self.principal.describe(),
                actual: SERVICE_PRINCIPAL.to_owned(),
            },
            action: Part {
                fits: self.actions.include(action),
                expected: self.actions.describe(),
                actual: action.to_owned(),
            },
            conditions: self
                .conditions
                .iter()
                .map(|condition| condition.report(context))
                .collect(),
        }
    }
}

fn read_sid(node: &Node, path: &str) -> Result<String, PolicyError> {
    let sid = text(node, path)?;
    if sid.chars().all(|c| c.is_ascii_alphanumeric()) {
        return Ok(sid);
    }
    let problem = "Statement IDs (SID) must be alpha-numeric: A-Z, a-z, 0-9";
    Err(PolicyError::malformed(path, problem))
}

fn read_effect(node: &Node, path: &str) -> Result<Effect, PolicyError> {
    match text(node, path)?.as_str() {
        "Allow" => Ok(Effect::Allow),
        "Deny" => Ok(Effect::Deny),
        other => Err(PolicyError::malformed(
            path,
            format!("Invalid effect: {other}: it is Allow or Deny, with these capitals"),
        )),
    }
}

impl Actions {
    fn parse(name: &str, node: &Node, path: &str) -> Result<Actions, PolicyError> {
        let patterns = node.strings(path)?;
        for pattern in &patterns {
            check_action(pattern, path)?;
        }
        Ok(Actions {
            except: name == "NotAction",
            patterns,
        })
    }

    /// "The prefix and the action name are case insensitive."
    fn include(&self, action: &str) -> bool {
        let action = action.to_lowercase();
        let listed = self
            .patterns
            .iter()
            .any(|pattern| wildcard::matches(&pattern.to_lowercase(), &action));
        listed != self.except
    }

    fn describe(&self) -> Vec<String> {
        let mut patterns = self.patterns.clone();
        if self.except {
            for pattern in &mut patterns {
                pattern.insert_str(0, "not ");
            }
        }
        patterns
    }
}

fn check_action(pattern: &str, path: &str) -> Result<(), PolicyError> {
    if pattern.contains("${") {
        let problem = "Variable unsupported in element: an action takes no policy variable";
        return Err(PolicyError::malformed(path, problem));
    }
    if pattern == "*" {
        return Ok(());
    }
    match pattern.split_once(':') {
        Some((service, name)) if service.eq_ignore_ascii_case("sts") && !name.is_empty() => Ok(()),
        _ => Err(PolicyError::malformed(
            path,
            format!("AssumeRole policy may only specify STS AssumeRole actions: {pattern}"),
        )),
    }
}

fn text(node: &Node, path: &str) -> Result<String, PolicyError> {
    match node {
        Node::Text(text) => Ok(text.clone()),
        _ => Err(PolicyError::malformed(
            path,
            "Syntax errors in policy: not a string",
        )),
    }
}

fn prohibited(path: &str, name: &str) -> PolicyError {
    let why = if name == "NotPrincipal" {
        "role trust policies do not support it; use Principal"
    } else {
        "a trust policy applies to the role that it is attached to"
    };
    PolicyError::malformed(path, format!("Has prohibited field {name}: {why}"))
}

fn unknown_field(path: &str, name: &str) -> PolicyError {
    PolicyError::malformed(path, format!("Unknown field {name}"))
}
