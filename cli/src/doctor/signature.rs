//! A signature for the target: whether the agent's policy permits it, and whether it is the certificate's.

use std::collections::BTreeMap;

use client::agent_client::AgentError;
use client::exit::Exit;
use wire::{Refusal, Rule, UnsignedRequest};

use super::finding::{Check, Finding};
use super::verify::{Verified, verify};

/// The headers that sign a request, or why there are none.
pub(super) type Signed = Result<BTreeMap<String, String>, AgentError>;

/// What there is to say of permission and signature.
pub(super) fn judge(unsigned: &UnsignedRequest, signed: &Signed) -> Vec<Finding> {
    match signed {
        Ok(headers) => vec![
            Finding::ok(
                Check::Permission,
                "the agent's rules let this user have this session signed",
            ),
            judge_signature(unsigned, headers),
        ],
        Err(error) => judge_error(error),
    }
}

fn judge_signature(unsigned: &UnsignedRequest, headers: &BTreeMap<String, String>) -> Finding {
    match verify(unsigned, headers) {
        Ok(Verified {
            algorithm, serial, ..
        }) => Finding::ok(
            Check::Signature,
            format!("{algorithm}, verified here with the certificate (serial {serial})"),
        ),
        Err(fault) => Finding::failed(
            Check::Signature,
            Exit::TokenTrouble,
            format!("the agent's signature does not hold: {fault}"),
            "Agent and roleseal should be of one version; if they are, this is a fault of roleseal.",
        ),
    }
}

fn judge_error(error: &AgentError) -> Vec<Finding> {
    let (exit, text) = (error.exit(), error.to_string());
    let told = |check| Finding::told(check, exit, &text, else_do(exit));
    let not_signed = || Finding::skipped(Check::Signature, "nothing was signed");
    let Some(refusal) = error.refusal() else {
        let why = "the agent gave no answer to a request";
        return vec![
            Finding::skipped(Check::Permission, why),
            told(Check::Signature),
        ];
    };
    match refusal {
        Refusal::NotPermitted { rule, message } => {
            let (part, remedy) = objection(*rule);
            let detail = format!("the agent's rules do not permit the {part}: {message}");
            let failed = Finding::failed(Check::Permission, exit, detail, remedy);
            vec![failed, not_signed()]
        }
        // These come before the rules are read.
        Refusal::Busy { .. } => vec![
            Finding::skipped(Check::Permission, "the agent is busy"),
            told(Check::Signature),
        ],
        _ if exit == Exit::TokenTrouble => vec![
            Finding::ok(
                Check::Permission,
                "the agent's rules let this user have this session signed",
            ),
            told(Check::Signature),
        ],
        _ => vec![told(Check::Permission), not_signed()],
    }
}

/// Most of the agent's refusals say in one sentence what is wrong and what to do.
fn else_do(exit: Exit) -> &'static str {
    match exit {
        Exit::TokenTrouble => {
            "It says itself what to do, as do the checks \"token\" and \"certificate\"; the agent's log has \
             more: journalctl -u roleseal-agent"
        }
        _ => "It says itself what to change: the target, or the agent's configuration.",
    }
}

/// What the rule is about, and what to do.
fn objection(rule: Rule) -> (&'static str, &'static str) {
    match rule {
        Rule::Caller => (
            "user",
            "An [[identity.allow]] rule of the identity in agent.toml has to name this user (users) or one \
             of its groups (groups); then: sudo systemctl reload roleseal-agent",
        ),
        Rule::Role => (
            "role",
            "Ask for another role, or have it named in roles of this user's [[identity.allow]] rule in \
             agent.toml; then: sudo systemctl reload roleseal-agent",
        ),
        Rule::Profile => (
            "profile",
            "Ask through another profile, or have it named in profiles of this user's [[identity.allow]] \
             rule in agent.toml; then: sudo systemctl reload roleseal-agent",
        ),
        Rule::TrustAnchor => (
            "trust anchor",
            "Ask with another trust anchor, or have it named in trust-anchors of this user's \
             [[identity.allow]] rule in agent.toml; then: sudo systemctl reload roleseal-agent",
        ),
        Rule::Duration => (
            "duration",
            "Ask for less with session-duration, or have max-duration of this user's [[identity.allow]] \
             rule in agent.toml raised; then: sudo systemctl reload roleseal-agent",
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use wire::{ClientError, RequestFault, TransportError};

    use super::*;
    use crate::doctor::finding::Outcome;

    fn judged(error: ClientError) -> [(Outcome, String); 2] {
        let error = AgentError::new(Path::new("/s"), error);
        let findings = judge_error(&error);
        let checks: Vec<_> = findings.iter().map(|one| one.check).collect();
        assert_eq!(checks, [Check::Permission, Check::Signature]);
        let both = findings.into_iter().map(|one| {
            let remedy = one.remedy.unwrap_or_default();
            (one.outcome, format!("{} {remedy}", one.detail))
        });
        both.collect::<Vec<_>>().try_into().unwrap()
    }

    fn message() -> String {
        "why".into()
    }

    #[test]
    fn the_rule_that_objects_is_named() {
        for (rule, part, remedy) in [
            (Rule::Caller, "the user", "users"),
            (Rule::Role, "the role", "roles"),
            (Rule::Profile, "the profile", "profiles"),
            (Rule::TrustAnchor, "the trust anchor", "trust-anchors"),
            (Rule::Duration, "the duration", "max-duration"),
        ] {
            let message = message();
            let [permission, signature] = judged(Refusal::NotPermitted { rule, message }.into());
            assert_eq!(permission.0, Outcome::Failed(Exit::RefusedByAgent));
            assert!(permission.1.contains(part) && permission.1.contains(remedy));
            assert_eq!(signature.0, Outcome::Skipped);
        }
    }

    #[test]
    fn a_token_in_trouble_is_no_matter_of_the_rules() {
        let trouble = Outcome::Failed(Exit::TokenTrouble);
        let refused = Outcome::Failed(Exit::RefusedByAgent);
        let cases: [(ClientError, Outcome, Outcome); 5] = [
            (
                Refusal::PinRejected { message: message() }.into(),
                Outcome::Ok,
                trouble,
            ),
            (
                Refusal::DeadlineExceeded { message: message() }.into(),
                Outcome::Ok,
                trouble,
            ),
            (
                Refusal::Busy { message: message() }.into(),
                Outcome::Skipped,
                trouble,
            ),
            (
                Refusal::RequestRefused {
                    fault: RequestFault::Host,
                    message: message(),
                }
                .into(),
                refused,
                Outcome::Skipped,
            ),
            (
                TransportError::Idle.into(),
                Outcome::Skipped,
                Outcome::Failed(Exit::AgentUnreachable),
            ),
        ];
        for (error, permission, signature) in cases {
            let shown = error.to_string();
            let judged = judged(error);
            assert_eq!(
                [judged[0].0, judged[1].0],
                [permission, signature],
                "{shown}"
            );
        }
    }
}
