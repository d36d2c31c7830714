//! Every case of cases.toml, each with the page of AWS's documentation that it comes from; and what holds for any input.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "how a test fails"
)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::Deserialize;
use trust_policy::{Context, Decision, TrustPolicy, Verdict, wildcard_matches};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cases {
    case: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    /// Page and section.
    source: String,
    /// The whole document, or
    policy: Option<String>,
    /// the Condition of a statement that allows the three actions to the service principal.
    condition: Option<String>,
    /// By default sts:AssumeRole.
    action: Option<String>,
    #[serde(default)]
    context: BTreeMap<String, Values>,
    /// allowed, denied (explicitly), not allowed (implicitly), or refused (as a document).
    expect: String,
    /// In the decision's reason, or in the refusal.
    because: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Values {
    One(String),
    Several(Vec<String>),
}

impl Case {
    fn document(&self) -> String {
        match (&self.policy, &self.condition) {
            (Some(policy), None) => policy.clone(),
            (None, Some(condition)) => format!(
                r#"{{"Version": "2012-10-17", "Statement": [{{"Effect": "Allow",
                    "Principal": {{"Service": "rolesanywhere.amazonaws.com"}},
                    "Action": ["sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"],
                    "Condition": {condition}}}]}}"#
            ),
            _ => panic!("{}: policy or condition", self.name),
        }
    }

    fn context(&self) -> Context {
        let mut context = Context::new();
        for (key, values) in &self.context {
            context.set(
                key,
                match values {
                    Values::One(value) => vec![value.clone()],
                    Values::Several(values) => values.clone(),
                },
            );
        }
        context
    }

    fn outcome(&self) -> (&'static str, String) {
        let policy = match TrustPolicy::parse(&self.document()) {
            Ok(policy) => policy,
            Err(error) => return ("refused", error.to_string()),
        };
        let action = self.action.as_deref().unwrap_or("sts:AssumeRole");
        let decision: Decision = policy.decide(action, &self.context());
        let verdict = match decision.verdict {
            Verdict::Allowed { .. } => "allowed",
            Verdict::ExplicitlyDenied { .. } => "denied",
            Verdict::ImplicitlyDenied => "not allowed",
        };
        (verdict, decision.reason())
    }
}

fn cases() -> Vec<Case> {
    toml::from_str::<Cases>(include_str!("cases.toml"))
        .unwrap()
        .case
}

#[test]
fn every_documented_case_is_decided_as_documented() {
    let mut wrong = Vec::new();
    for case in cases() {
        let (verdict, reason) = case.outcome();
        if verdict != case.expect || !reason.contains(&case.because) {
            let expected = format!("{} because {}", case.expect, case.because);
            wrong.push(format!(
                "{} ({}): {expected}; but {verdict}: {reason}",
                case.name, case.source
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_table_has_allow_and_deny_and_no_case_twice() {
    let cases = cases();
    let count = |expect: &str| cases.iter().filter(|case| case.expect == expect).count();
    let counts = ["allowed", "denied", "not allowed", "refused"].map(count);
    assert!(counts.iter().all(|count| *count >= 5), "{counts:?}");
    assert_eq!(counts.iter().sum::<usize>(), cases.len());
    assert!(cases.len() >= 60, "{}", cases.len());
    let names: std::collections::BTreeSet<&str> =
        cases.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(names.len(), cases.len());
}

/// Wildcards by definition, in exponential time.
fn reference(pattern: &[char], text: &[char]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        (['*', rest @ ..], _) => {
            reference(rest, text) || (!text.is_empty() && reference(pattern, &text[1..]))
        }
        (['?', rest @ ..], [_, after @ ..]) => reference(rest, after),
        ([c, rest @ ..], [d, after @ ..]) => c == d && reference(rest, after),
        _ => false,
    }
}

/// JSON that looks like policies, and JSON that does not.
fn json() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "Version",
        "Statement",
        "Effect",
        "Principal",
        "Service",
        "Action",
        "NotAction",
        "Condition",
        "Sid",
        "Allow",
        "Deny",
        "2012-10-17",
        "rolesanywhere.amazonaws.com",
        "sts:*",
        "StringEquals",
        "StringLike",
        "ArnLike",
        "Null",
        "ForAllValues:StringLikeIfExists",
        "DateLessThan",
        "IpAddress",
        "NumericEquals",
        "Bool",
        "aws:TagKeys",
        "${",
        "${aws:SourceArn, 'x'}",
        "*",
        "arn:*:*:*:*:*",
        "true",
        "2026-01-01",
        "10.0.0.0/8",
        "1e9",
        "",
    ]);
    let leaf = prop_oneof![
        word.clone().prop_map(|word| format!("{word:?}")),
        any::<f64>()
            .prop_filter("JSON has no such number", |n| n.is_finite())
            .prop_map(|n| n.to_string()),
        Just("null".to_owned()),
        Just("true".to_owned()),
    ];
    leaf.prop_recursive(5, 48, 6, move |inner| {
        let entry = (word.clone(), inner.clone());
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::vec(entry, 0..5).prop_map(|entries| {
                let entries: Vec<String> = entries
                    .iter()
                    .map(|(name, value)| format!("{name:?}:{value}"))
                    .collect();
                format!("{{{}}}", entries.join(","))
            }),
        ]
    })
}

proptest! {
    #[test]
    fn wildcards_match_as_defined(pattern in "[ab*?é]{0,10}", text in "[abé]{0,10}") {
        let chars = |text: &str| text.chars().collect::<Vec<char>>();
        prop_assert_eq!(
            wildcard_matches(&pattern, &text),
            reference(&chars(&pattern), &chars(&text))
        );
    }

    #[test]
    fn no_json_and_no_text_makes_it_panic(json in json(), text in "\\PC{0,60}") {
        let _ = TrustPolicy::parse(&text);
        let _ = TrustPolicy::parse(&json);
        let context = Context::new().with("aws:SourceArn", &text).with("aws:TagKeys", &json);
        for (operator, value) in [("StringLike", &text), ("ArnLike", &text), ("DateEquals", &text), ("IpAddress", &text)] {
            let statement = format!(
                r#"{{"Statement": {{"Effect": "Deny", "Principal": "*", "Action": "*",
                    "Condition": {{"{operator}": {{"aws:SourceArn": {value:?}}}}}}}}}"#
            );
            if let Ok(policy) = TrustPolicy::parse(&statement) {
                let _ = policy.for_roles_anywhere(&context).to_string();
            }
        }
        let condition = format!(
            r#"{{"Version": "2012-10-17", "Statement": {{"Effect": "Allow", "Principal": "*", "Action": "*",
                "Condition": {json}}}}}"#
        );
        if let Ok(policy) = TrustPolicy::parse(&condition) {
            let _ = policy.for_roles_anywhere(&context).reason();
        }
    }

    /// Whatever else a policy says, a Deny that applies wins.
    #[test]
    fn an_unconditional_deny_always_wins(conditions in json()) {
        let policy = format!(
            r#"{{"Version": "2012-10-17", "Statement": [
                {{"Effect": "Allow", "Principal": "*", "Action": "*", "Condition": {conditions}}},
                {{"Effect": "Deny", "Principal": "*", "Action": "sts:TagSession"}}]}}"#
        );
        if let Ok(policy) = TrustPolicy::parse(&policy) {
            let decision = policy.decide("sts:TagSession", &Context::new());
            prop_assert_eq!(decision.verdict, Verdict::ExplicitlyDenied { statement: 1 });
        }
    }
}
