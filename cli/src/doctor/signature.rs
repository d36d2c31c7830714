//! Permission and signature: whether the agent's policy permits the session, and whether its token signs.

use std::collections::BTreeMap;

use client::Diagnostic;
use client::agent_client::AgentError;
use client::exit::Exit;
use wire::Refusal;

use super::finding::{Check, Finding};

/// The headers that sign a request, or why there are none.
pub(super) type Signed = Result<BTreeMap<String, String>, AgentError>;

/// Returns a finding about each of the two.
pub(super) fn findings(signed: &Signed) -> Vec<Finding> {
    match signed {
        Ok(_) => vec![permitted(), Finding::ok(Check::Signature, SIGNED)],
        Err(error) => failure(error),
    }
}

/// The agent verifies each signature with the certificate before it answers.
const SIGNED: &str =
    "the agent signed the request, and verified the signature with the certificate";

fn permitted() -> Finding {
    Finding::ok(
        Check::Permission,
        "the agent's rules permit this user this session",
    )
}

fn failure(error: &AgentError) -> Vec<Finding> {
    let unknown = |why: &str| Finding::skipped(Check::Permission, why);
    let permission = match error.refusal() {
        None => unknown("the agent gave no answer to a request"),
        // The agent reads its rules later.
        Some(Refusal::Busy { .. }) => unknown("the agent is busy"),
        Some(_) if error.exit() == Exit::TokenTrouble => permitted(),
        Some(_) => {
            let not_signed = Finding::skipped(Check::Signature, "nothing was signed");
            return vec![Finding::error(Check::Permission, error), not_signed];
        }
    };
    vec![permission, Finding::error(Check::Signature, error)]
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use wire::{ClientError, RequestFault, Rule, TransportError};

    use super::*;
    use crate::doctor::finding::Outcome;

    #[test]
    fn a_refusal_is_about_the_rules_or_the_token() {
        let trouble = Outcome::Failed(Exit::TokenTrouble);
        let refused = Outcome::Failed(Exit::RefusedByAgent);
        let unreachable = Outcome::Failed(Exit::AgentUnreachable);
        let message = || "why".to_owned();
        let not_permitted = Refusal::NotPermitted {
            rule: Rule::Role,
            message: message(),
        };
        let malformed = Refusal::RequestRefused {
            fault: RequestFault::Host,
            message: message(),
        };
        let cases: [(ClientError, Outcome, Outcome); 5] = [
            (not_permitted.into(), refused, Outcome::Skipped),
            (malformed.into(), refused, Outcome::Skipped),
            (
                Refusal::PinRejected { message: message() }.into(),
                Outcome::Ok,
                trouble,
            ),
            (
                Refusal::Busy { message: message() }.into(),
                Outcome::Skipped,
                trouble,
            ),
            (TransportError::Idle.into(), Outcome::Skipped, unreachable),
        ];
        for (error, permission, signature) in cases {
            let findings = failure(&AgentError::new(Path::new("/s"), error));
            let outcomes: Vec<_> = findings
                .iter()
                .map(|one| (one.check, one.outcome))
                .collect();
            assert_eq!(
                outcomes,
                [
                    (Check::Permission, permission),
                    (Check::Signature, signature)
                ]
            );
        }
    }
}
