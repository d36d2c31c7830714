//! One condition: an operator, a key, and the values that the policy expects.

use std::net::IpAddr;

use crate::context::Context;
use crate::date::{self, Instant};
use crate::decision::{ConditionReport, Outcome};
use crate::error::PolicyError;
use crate::json::Node;
use crate::operator::{Comparison, Operator, Qualifier, Test};
use crate::template::{Resolved, Template, text_of};
use crate::wildcard::{Token, tokens_match};

#[derive(Clone, Debug)]
pub(crate) struct Condition {
    operator: Operator,
    key: String,
    expected: Vec<Expected>,
}

/// A value of the policy, read for its operator.
#[derive(Clone, Debug)]
enum Expected {
    Text(Template),
    Flag(bool),
    Number(f64, String),
    Date(Instant, String),
    Network(IpAddr, u8, String),
}

/// Condition keys of tags name the tag; alone they name nothing ("Missing tag key in condition").
const TAG_KEYS: [&str; 3] = ["aws:principaltag", "aws:requesttag", "aws:resourcetag"];

impl Condition {
    /// Reads the `Condition` element of a statement.
    pub(crate) fn parse_block(
        node: &Node,
        path: &str,
        variables: bool,
    ) -> Result<Vec<Condition>, PolicyError> {
        let mut conditions = Vec::new();
        for (name, keys) in node.object(path)? {
            let path = format!("{path}.{name}");
            let operator = Operator::parse(name, &path)?;
            let keys = keys.object(&path)?;
            for (at, (key, values)) in keys.iter().enumerate() {
                let path = format!("{path}.{key}");
                check_key(key, &path)?;
                let mut earlier = keys.iter().take(at);
                if earlier.any(|(other, _)| other.to_lowercase() == key.to_lowercase()) {
                    let problem = "the key is there twice with different capitals";
                    return Err(PolicyError::malformed(&path, problem));
                }
                let expected = values
                    .scalars(&path)?
                    .iter()
                    .map(|value| Expected::parse(&operator, value, &path, variables))
                    .collect::<Result<_, _>>()?;
                conditions.push(Condition {
                    operator: operator.clone(),
                    key: key.clone(),
                    expected,
                });
            }
        }
        Ok(conditions)
    }

    pub(crate) fn report(&self, context: &Context) -> ConditionReport {
        ConditionReport {
            operator: self.operator.name.clone(),
            key: self.key.clone(),
            expected: self
                .expected
                .iter()
                .map(|expected| expected.describe(context))
                .collect(),
            actual: context.values(&self.key).to_vec(),
            outcome: self.evaluate(context),
        }
    }

    fn evaluate(&self, context: &Context) -> Outcome {
        let operator = &self.operator;
        let values = context.values(&self.key);
        if values.is_empty() && !context.can_tell(&self.key) {
            return Outcome::Unclear(format!("whether the request has {} is not known", self.key));
        }
        if operator.test == Test::Null {
            return self.evaluate_null(values);
        }
        let held = match operator.qualifier {
            Qualifier::None => match values {
                // "If the policy condition requires that the key is not matched, such as StringNotLike or ArnNotLike,
                // and the right key is not present, the condition is true."
                [] => Ok(operator.if_exists || operator.negated),
                [value] => self.fits(value, context),
                // "You must use set operators with multivalued condition keys": what happens without is not told.
                _ => Err(format!(
                    "{} has several values, which takes ForAllValues: or ForAnyValue:",
                    self.key
                )),
            },
            // "It also returns true if there are no keys in the request, or if the key values resolve to a null data
            // set, such as an empty string."
            Qualifier::ForAllValues => full(values).try_fold(true, |all, value| {
                self.fits(value, context).map(|fits| all && fits)
            }),
            // "For no matching key or a null dataset, the condition returns false."
            Qualifier::ForAnyValue if values.is_empty() && operator.if_exists => Err(
                // "If the key is not present, evaluate the condition element as true" (...IfExists).
                "by ForAnyValue: it is false without the key, by IfExists true".to_owned(),
            ),
            Qualifier::ForAnyValue => full(values).try_fold(false, |any, value| {
                self.fits(value, context).map(|fits| any || fits)
            }),
        };
        match held {
            Ok(true) => Outcome::Held,
            Ok(false) => Outcome::Failed,
            Err(why) => Outcome::Unclear(why),
        }
    }

    /// "true (the key doesn't exist — it is null) or false (the key exists and its value is not null)". With a
    /// qualifier it "always returns a true or false respectively" (Access Analyzer, "Null with qualifier").
    fn evaluate_null(&self, values: &[String]) -> Outcome {
        let is_null = full(values).next().is_none();
        let held = match self.operator.qualifier {
            Qualifier::ForAllValues => true,
            Qualifier::ForAnyValue => false,
            Qualifier::None => self
                .expected
                .iter()
                .any(|expected| matches!(expected, Expected::Flag(flag) if *flag == is_null)),
        };
        if held { Outcome::Held } else { Outcome::Failed }
    }

    /// One of the policy's values is enough; for a negated operator, one is too many.
    fn fits(&self, value: &str, context: &Context) -> Result<bool, String> {
        let mut any = false;
        for expected in &self.expected {
            any |= expected.matches(self.operator.test, value, context)?;
        }
        Ok(any != self.operator.negated)
    }
}

fn full(values: &[String]) -> impl Iterator<Item = &String> {
    values.iter().filter(|value| !value.is_empty())
}

fn check_key(key: &str, path: &str) -> Result<(), PolicyError> {
    let well_formed = key
        .split_once(':')
        .is_some_and(|(prefix, name)| !prefix.is_empty() && !name.is_empty());
    if !well_formed || key.contains("${") {
        let problem = "Invalid condition key format: a key is PREFIX:NAME";
        return Err(PolicyError::malformed(path, problem));
    }
    let name = key.to_lowercase();
    if TAG_KEYS.contains(&name.trim_end_matches('/')) {
        let problem = format!("Missing tag key in condition: write {key}/TAG");
        return Err(PolicyError::malformed(path, problem));
    }
    Ok(())
}

impl Expected {
    fn parse(
        operator: &Operator,
        value: &str,
        path: &str,
        variables: bool,
    ) -> Result<Expected, PolicyError> {
        let takes_variables = matches!(
            operator.test,
            Test::Equals | Test::EqualsIgnoreCase | Test::Like | Test::Arn
        );
        if takes_variables {
            return Ok(Expected::Text(if variables {
                Template::parse(value, path)?
            } else {
                Template::literal(value)
            }));
        }
        // The page on operators lets Bool have variables, the pages on variables and on checks do not.
        if value.contains("${") {
            let problem = format!(
                "Invalid variable for operator: {} takes no policy variable",
                operator.name
            );
            return Err(PolicyError::malformed(path, problem));
        }
        let read = match operator.test {
            Test::Null | Test::Bool => flag(value).map(Expected::Flag),
            Test::Numeric(_) => number(value).map(|n| Expected::Number(n, value.to_owned())),
            Test::Date(_) => date::parse(value).map(|d| Expected::Date(d, value.to_owned())),
            Test::IpAddress => network(value)
                .map(|(address, prefix)| Expected::Network(address, prefix, value.to_owned())),
            Test::Equals | Test::EqualsIgnoreCase | Test::Like | Test::Arn => None,
        };
        read.ok_or_else(|| {
            let problem = format!(
                "Type mismatch: {} cannot compare with {value}",
                operator.name
            );
            PolicyError::malformed(path, problem)
        })
    }

    /// The error says why neither yes nor no can be said.
    fn matches(&self, test: Test, value: &str, context: &Context) -> Result<bool, String> {
        match self {
            Expected::Text(template) => {
                let wildcards = matches!(test, Test::Like | Test::Arn);
                match template.resolve(context, wildcards) {
                    Resolved::Tokens(tokens) => text_matches(test, &tokens, value),
                    Resolved::NoValue => Ok(false),
                    Resolved::Multivalued(key) => {
                        Err(format!("the variable ${{{key}}} has several values"))
                    }
                    Resolved::Unknown(key) => {
                        Err(format!("whether the request has {key} is not known"))
                    }
                }
            }
            Expected::Flag(expected) => flag(value)
                .map(|flag| flag == *expected)
                .ok_or_else(|| format!("{value} is neither true nor false")),
            Expected::Number(expected, _) => {
                let number = number(value).ok_or_else(|| format!("{value} is no number"))?;
                Ok(compares(test, number.total_cmp(expected)))
            }
            Expected::Date(expected, _) => {
                let date = date::parse(value).ok_or_else(|| format!("{value} is no date"))?;
                Ok(compares(test, date.cmp(expected)))
            }
            Expected::Network(address, prefix, _) => {
                let value: IpAddr = value
                    .parse()
                    .map_err(|_| format!("{value} is no IP address"))?;
                Ok(is_within(value, *address, *prefix))
            }
        }
    }

    fn describe(&self, context: &Context) -> String {
        match self {
            Expected::Text(template) => template.describe(context),
            Expected::Flag(flag) => flag.to_string(),
            Expected::Number(_, text) | Expected::Date(_, text) | Expected::Network(_, _, text) => {
                text.clone()
            }
        }
    }
}

fn text_matches(test: Test, pattern: &[Token], value: &str) -> Result<bool, String> {
    match test {
        Test::EqualsIgnoreCase => Ok(text_of(pattern).to_lowercase() == value.to_lowercase()),
        Test::Arn => arn_matches(pattern, value),
        _ => Ok(tokens_match(pattern, value)),
    }
}

/// "Each of the six colon-delimited components of the ARN is checked separately". What an operator for ARNs makes of
/// something else is not told.
fn arn_matches(pattern: &[Token], value: &str) -> Result<bool, String> {
    let patterns: Vec<&[Token]> = pattern
        .splitn(6, |token| *token == Token::Char(':'))
        .collect();
    let values: Vec<&str> = value.splitn(6, ':').collect();
    if patterns.len() != 6 {
        return Err(format!("{} is no ARN of six parts", text_of(pattern)));
    }
    if values.len() != 6 {
        return Err(format!("{value} is no ARN of six parts"));
    }
    Ok(patterns
        .iter()
        .zip(values)
        .all(|(pattern, part)| tokens_match(pattern, part)))
}

fn compares(test: Test, ordering: std::cmp::Ordering) -> bool {
    match test {
        Test::Numeric(comparison) | Test::Date(comparison) => comparison.holds(ordering),
        _ => Comparison::Equal.holds(ordering),
    }
}

fn flag(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

/// "an integer or decimal value": not `inf`, `nan` or an exponent, which Rust would read too.
fn number(text: &str) -> Option<f64> {
    let plain = |c: char| c.is_ascii_digit() || c == '.' || c == '-' || c == '+';
    if !text.chars().all(plain) {
        return None;
    }
    // Adding zero makes -0 equal to 0 for total_cmp.
    text.parse::<f64>().ok().map(|number| number + 0.0)
}

/// `ADDRESS/PREFIX`; an address alone is that address alone.
fn network(text: &str) -> Option<(IpAddr, u8)> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok()?,
        Some(_) => return None,
        None => longest,
    };
    (prefix <= longest).then_some((address, prefix))
}

fn is_within(value: IpAddr, network: IpAddr, prefix: u8) -> bool {
    let (value, network, width) = match (value, network) {
        (IpAddr::V4(value), IpAddr::V4(network)) => (
            u128::from(u32::from(value)),
            u128::from(u32::from(network)),
            32,
        ),
        (IpAddr::V6(value), IpAddr::V6(network)) => (u128::from(value), u128::from(network), 128),
        _ => return false,
    };
    // A shift by the whole width would overflow: prefix 0 takes every address.
    prefix == 0 || (value ^ network) >> (width - u32::from(prefix)) == 0
}
