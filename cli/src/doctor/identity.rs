//! The agent that answers, the identities that it shows to this user, and their tokens.

use client::exit::Exit;
use client::socket_access::user_name;
use wire::{Identity, PinSource, ServiceInfo, State};

use super::finding::{Check, Finding};
use crate::identity_table::{key_and_certificate, retry_pin};

/// Checks that an agent answers, of this version.
pub(super) fn agent_finding(info: &ServiceInfo) -> Finding {
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
                "{product} {version} answers, without the interface {}",
                wire::INTERFACE_NAME
            ),
            "the socket belongs to another program: name the agent's with --socket or ROLESEAL_SOCKET",
        );
    }
    let detail = format!("{product} {version} answers, by {}", wire::INTERFACE_NAME);
    if version == OURS {
        return Finding::ok(Check::Agent, detail);
    }
    Finding::warning(
        Check::Agent,
        format!("{detail}; this is roleseal {OURS}"),
        "install one version of both; after an upgrade: sudo systemctl restart roleseal-agent",
    )
}

const OURS: &str = env!("CARGO_PKG_VERSION");

/// Chooses the identity as the agent does; all of them without a target.
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
            "the agent shows this user no identity".to_owned(),
            rule(&user_name(), "the identity to use"),
        );
    }
    match wanted {
        Some(name) => match identities.iter().find(|one| one.name == name) {
            Some(one) => (Finding::ok(Check::Identity, shown(one)), vec![one]),
            None => refused(
                format!("{name} is not among the identities that the agent shows this user: {all}"),
                format!(
                    "check the name (roleseal identities), or: {}",
                    rule(&user_name(), name)
                ),
            ),
        },
        None if identities.len() > 1 && for_session => refused(
            format!("the target names no identity, and this user may use several: {all}"),
            "choose one with --identity or the target's identity".to_owned(),
        ),
        None => {
            let shown: Vec<_> = identities.iter().map(shown).collect();
            let finding = Finding::ok(Check::Identity, shown.join("\n"));
            (finding, identities.iter().collect())
        }
    }
}

/// Returns the rule that permits a user an identity.
fn rule(user: &str, identity: &str) -> String {
    format!(
        "have the agent's operator add this to the [[identity]] of {identity} in agent.toml:\n\
         [[identity.allow]]\nusers = [\"{user}\"]\nthen: sudo systemctl reload roleseal-agent"
    )
}

fn shown(identity: &Identity) -> String {
    format!("{}: {}", identity.name, key_and_certificate(identity))
}

/// Reports the token's state as the agent knows it: no PIN is tried. An agent does not use a key whose certificate
/// AWS would refuse: that is a finding of the certificate alone.
pub(super) fn token_findings(identity: &Identity, certificate_refused: bool) -> Vec<Finding> {
    let name = &identity.name;
    let message = identity.message.as_deref().unwrap_or("no reason is given");
    let failed = |remedy: &str| {
        let exit = Exit::TokenTrouble;
        Finding::failed(Check::Token, exit, format!("{name}: {message}"), remedy)
    };
    let state = match identity.state {
        State::Ready => Finding::ok(Check::Token, format!("{name}: ready, its key proven")),
        State::Unusable if certificate_refused => {
            let why = format!("{name}: not used with this certificate: {message}");
            Finding::skipped(Check::Token, why)
        }
        State::Opening => Finding::warning(
            Check::Token,
            format!("{name}: the token is still being opened"),
            "try again in a moment; the agent's log shows the cause: journalctl -u roleseal-agent",
        ),
        State::Unavailable => failed(
            "check that the token is connected and that its module or TPM answers; the agent tries again by itself, and its \
             log shows the cause: journalctl -u roleseal-agent",
        ),
        State::PinRejected => failed(&format!(
            "correct the PIN where the identity's pin setting names it (the agent does not try the refused one again, as \
             that could lock the token), then: {}; if the PIN is right by now: {}",
            apply(identity),
            retry_pin(name)
        )),
        State::Unusable => failed(&format!(
            "correct the key, the certificate or the configuration (sudo roleseal-agent --check shows its \
             faults), then: {}",
            apply(identity)
        )),
    };
    let warnings = identity.warnings.iter().map(|warning| {
        let text = format!("{name}: {warning}");
        Finding::warning(
            Check::Token,
            text,
            "follow the warning; the agent's log shows since when: journalctl -u roleseal-agent; docs/security.md explains \
             it",
        )
    });
    [state].into_iter().chain(warnings).collect()
}

/// Returns the command after which the agent uses the correction.
fn apply(identity: &Identity) -> &'static str {
    match identity.pin_source {
        Some(PinSource::Credential) => {
            "sudo systemctl restart roleseal-agent (its PIN is in a systemd credential, which is copied when \
             the service starts: a reload does not read it again)"
        }
        Some(PinSource::File | PinSource::Uri) | None => "sudo systemctl reload roleseal-agent",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Outcome;
    use crate::identity_table::tests::identity;

    #[test]
    fn another_version_is_a_warning_and_another_program_a_failure() {
        let info = |version: &str, interface: &str| ServiceInfo {
            vendor: "roleseal".into(),
            product: "roleseal-agent".into(),
            version: version.into(),
            url: String::new(),
            interfaces: vec![interface.into()],
        };
        let same = agent_finding(&info(OURS, wire::INTERFACE_NAME));
        assert_eq!(same.outcome, Outcome::Ok);
        let other = agent_finding(&info("99.0.0", wire::INTERFACE_NAME));
        assert_eq!(other.outcome, Outcome::Warning);
        assert!(other.detail.contains("99.0.0") && other.detail.contains(OURS));
        let stranger = agent_finding(&info(OURS, "io.systemd.Resolve"));
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
        let outcome = |identity: &Identity| token_findings(identity, false)[0].outcome;
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
        let refused = token_findings(&identity("web", State::Unusable), true);
        assert_eq!(refused[0].outcome, Outcome::Skipped);
    }

    #[test]
    fn what_the_agent_warns_of_is_a_line_of_its_own() {
        let warned = Identity {
            warnings: vec!["somebody gave a wrong PIN".into(), "extractable".into()],
            ..identity("web", State::Ready)
        };
        let findings = token_findings(&warned, false);
        assert_eq!(findings.len(), 3);
        assert_eq!(findings[1].outcome, Outcome::Warning);
        assert_eq!(findings[1].detail, "web: somebody gave a wrong PIN");
    }
}
