//! The agent that answers, the identities that it shows to this user, and their tokens.

use client::exit::Exit;
use jiff::Timestamp;
use wire::{Identity, PinSource, ServiceInfo, State};

use super::finding::{Check, Finding};
use super::socket::caller_name;

/// Who answers at the socket.
pub(super) fn judge_agent(info: &ServiceInfo) -> Finding {
    let ServiceInfo {
        product, version, ..
    } = info;
    let speaks = info
        .interfaces
        .iter()
        .any(|interface| interface == wire::INTERFACE_NAME);
    if !speaks {
        return Finding::failed(
            Check::Agent,
            Exit::AgentUnreachable,
            format!(
                "{product} {version} answers, which does not speak {}",
                wire::INTERFACE_NAME
            ),
            "The socket is another program's: name the agent's with --socket or ROLESEAL_SOCKET.",
        );
    }
    let detail = format!("{product} {version} answers, by {}", wire::INTERFACE_NAME);
    if version == OURS {
        return Finding::ok(Check::Agent, detail);
    }
    Finding::warning(
        Check::Agent,
        format!("{detail}; this is roleseal {OURS}"),
        "Install both of one version; after an update of the agent: sudo systemctl restart roleseal-agent",
    )
}

const OURS: &str = env!("CARGO_PKG_VERSION");

/// Which of the identities is meant; all of them where nothing needs a choice.
pub(super) fn choose<'i>(
    identities: &'i [Identity],
    wanted: Option<&str>,
    for_session: bool,
) -> (Finding, Vec<&'i Identity>) {
    let names: Vec<_> = identities.iter().map(|one| one.name.as_str()).collect();
    let all = names.join(", ");
    let refused = |detail: String, remedy: String| {
        let finding = Finding::failed(Check::Identity, Exit::RefusedByAgent, detail, remedy);
        (finding, Vec::new())
    };
    if names.is_empty() {
        return refused(
            "the agent shows this user none".to_owned(),
            rule(&caller_name(), "the one that it is to use"),
        );
    }
    match wanted {
        Some(name) => match identities.iter().find(|one| one.name == name) {
            Some(one) => (Finding::ok(Check::Identity, shown(one)), vec![one]),
            None => refused(
                format!("{name} is not among those that the agent shows this user: {all}"),
                format!(
                    "Is the name right (roleseal identities)? {}",
                    rule(&caller_name(), name)
                ),
            ),
        },
        None if identities.len() > 1 && for_session => refused(
            format!("the target names none, and this user may use several: {all}"),
            "Choose one with --identity or the target's identity.".to_owned(),
        ),
        None => {
            let shown: Vec<_> = identities.iter().map(shown).collect();
            let finding = Finding::ok(Check::Identity, shown.join("\n"));
            (finding, identities.iter().collect())
        }
    }
}

/// What lets a user use an identity.
fn rule(user: &str, identity: &str) -> String {
    format!(
        "Have the agent's operator put this under the [[identity]] of {identity} in agent.toml:\n\
         [[identity.allow]]\nusers = [\"{user}\"]\nthen: sudo systemctl reload roleseal-agent"
    )
}

fn shown(identity: &Identity) -> String {
    let known = |member: &Option<String>| member.clone().unwrap_or_else(|| "unknown".to_owned());
    format!(
        "{}: {} key {}, certificate {} (serial {})",
        identity.name,
        known(&identity.key_algorithm),
        identity.key_uri,
        known(&identity.subject),
        known(&identity.serial),
    )
}

/// Whether the token can be used. The PIN is not tried for this: the agent says what it knows.
pub(super) fn judge_token(identity: &Identity, now: Timestamp) -> Vec<Finding> {
    let name = &identity.name;
    let message = identity.message.as_deref().unwrap_or("no reason is given");
    let failed = |remedy: &str| {
        let exit = Exit::TokenTrouble;
        Finding::failed(Check::Token, exit, format!("{name}: {message}"), remedy)
    };
    let state = match identity.state {
        State::Ready => Finding::ok(Check::Token, format!("{name}: ready, its key proven")),
        // The agent says so of a certificate that has ended: the token itself works.
        State::Unusable if !valid(identity, now) => {
            Finding::ok(Check::Token, format!("{name}: open, its key proven"))
        }
        State::Opening => Finding::warning(
            Check::Token,
            format!("{name}: the token is still being opened"),
            "Look again in a moment. What it waits for is in the agent's log: journalctl -u roleseal-agent",
        ),
        State::Unavailable => failed(
            "The agent tries again by itself. Is the token there, and does its module or its TPM answer? \
             The agent's log has more: journalctl -u roleseal-agent",
        ),
        State::PinRejected => failed(&format!(
            "The PIN is not tried again before somebody acts, so that it does not lock. Put the right one \
             where the identity's pin setting says, then: {}",
            take_over(identity)
        )),
        State::Unusable => failed(&format!(
            "Mend the key, the certificate or the configuration (sudo roleseal-agent --check shows its \
             faults), then: {}",
            take_over(identity)
        )),
    };
    let warnings = identity.warnings.iter().map(|warning| {
        let text = format!("{name}: {warning}");
        Finding::warning(
            Check::Token,
            text,
            "What helps stands in the warning. Since when it is so: journalctl -u roleseal-agent. Background: \
             docs/security.md",
        )
    });
    [state].into_iter().chain(warnings).collect()
}

/// How the agent takes over what was mended.
fn take_over(identity: &Identity) -> &'static str {
    match identity.pin_source {
        Some(PinSource::Credential) => {
            "sudo systemctl restart roleseal-agent (its PIN is in a systemd credential, which is copied when \
             the service starts: a reload does not read it again)"
        }
        Some(PinSource::File | PinSource::Uri) | None => "sudo systemctl reload roleseal-agent",
    }
}

fn valid(identity: &Identity, now: Timestamp) -> bool {
    let time = |text: &Option<String>| text.as_ref()?.parse::<Timestamp>().ok();
    let begun = time(&identity.not_before).is_none_or(|begin| begin <= now);
    let ended = time(&identity.not_after).is_some_and(|end| end <= now);
    begun && !ended
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Outcome;
    use crate::identities::tests::identity;

    fn now() -> Timestamp {
        "2026-06-01T00:00:00Z".parse().unwrap()
    }

    #[test]
    fn another_version_is_told_and_a_stranger_is_refused() {
        let info = |version: &str, interface: &str| ServiceInfo {
            vendor: "roleseal".into(),
            product: "roleseal-agent".into(),
            version: version.into(),
            url: String::new(),
            interfaces: vec![interface.into()],
        };
        let same = judge_agent(&info(OURS, wire::INTERFACE_NAME));
        assert_eq!(same.outcome, Outcome::Ok);
        let other = judge_agent(&info("99.0.0", wire::INTERFACE_NAME));
        assert_eq!(other.outcome, Outcome::Warning);
        assert!(other.detail.contains("99.0.0") && other.detail.contains(OURS));
        let stranger = judge_agent(&info(OURS, "io.systemd.Resolve"));
        assert_eq!(stranger.outcome, Outcome::Failed(Exit::AgentUnreachable));
    }

    #[test]
    fn an_identity_is_chosen_as_the_agent_would() {
        let both = [
            identity("web", State::Ready),
            identity("batch", State::Ready),
        ];
        let chosen = |identities: &[Identity], wanted, for_session| {
            let (finding, chosen) = choose(identities, wanted, for_session);
            (finding.outcome, finding.detail, chosen.len())
        };
        let refused = Outcome::Failed(Exit::RefusedByAgent);
        let (outcome, detail, _) = chosen(&both, Some("web"), true);
        assert_eq!(outcome, Outcome::Ok);
        assert_eq!(
            detail,
            "web: EC-P-256 key pkcs11:object=web, certificate CN=web (serial 42)"
        );
        let (outcome, detail, count) = chosen(&both, Some("wep"), true);
        assert_eq!((outcome, count), (refused, 0));
        assert!(detail.contains("wep is not among") && detail.ends_with("web, batch"));
        assert_eq!(chosen(&both, None, true).0, refused);
        assert_eq!(chosen(&both, None, false).2, 2);
        assert_eq!(chosen(&both[..1], None, true).2, 1);
        assert_eq!(chosen(&[], None, false).0, refused);
    }

    #[test]
    fn a_token_is_what_the_agent_says_of_it() {
        let outcome = |identity: &Identity| judge_token(identity, now())[0].outcome;
        let trouble = Outcome::Failed(Exit::TokenTrouble);
        for (state, expected) in [
            (State::Ready, Outcome::Ok),
            (State::Opening, Outcome::Warning),
            (State::Unavailable, trouble),
            (State::PinRejected, trouble),
            (State::Unusable, trouble),
        ] {
            assert_eq!(outcome(&identity("web", state)), expected, "{state:?}");
        }
        let expired = Identity {
            not_after: Some("2026-05-31T23:59:59Z".into()),
            ..identity("web", State::Unusable)
        };
        assert_eq!(outcome(&expired), Outcome::Ok);
        let future = Identity {
            not_before: Some("2026-06-01T00:00:01Z".into()),
            ..identity("web", State::Unusable)
        };
        assert_eq!(outcome(&future), Outcome::Ok);
    }

    #[test]
    fn what_the_agent_warns_of_is_a_line_of_its_own() {
        let warned = Identity {
            warnings: vec!["somebody gave a wrong PIN".into(), "extractable".into()],
            ..identity("web", State::Ready)
        };
        let findings = judge_token(&warned, now());
        assert_eq!(findings.len(), 3);
        assert_eq!(findings[1].outcome, Outcome::Warning);
        assert_eq!(findings[1].detail, "web: somebody gave a wrong PIN");
    }
}
