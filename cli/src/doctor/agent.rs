//! The agent: its socket, identities, tokens and certificates, and its signature for the target.

use std::path::Path;
use std::time::Duration;

use client::agent_client::{self, AgentError};
use client::exit::Exit;
use client::timeout::timeout;
use jiff::Timestamp;
use rolesanywhere::certificate::Chain;
use wire::{Client, Identity};

use super::finding::{Check, Finding, skipped};
use super::signature::Signed;
use super::target::ResolvedTarget;
use super::{certificate, identity, signature, socket};
use crate::certificate_source::of_identity;

/// The agent's answers.
#[derive(Default)]
pub(super) struct AgentProbe {
    /// `None` where it was not asked.
    pub(super) signed: Option<Signed>,
    /// The certificate of the only identity, or of the last.
    pub(super) chain: Option<Chain>,
}

/// An agent answers these requests at once, or is in trouble.
const TIMEOUT: Duration = Duration::from_secs(5);

impl AgentProbe {
    /// Sends each request of the usual path, and adds the findings.
    pub(super) fn run(resolved: &ResolvedTarget, findings: &mut Vec<Finding>) -> AgentProbe {
        let mut probe = AgentProbe::default();
        let (finding, client) = socket::probe(resolved);
        findings.push(finding);
        let identities = match client {
            Some(client) => probe.connected(resolved, client, findings),
            None => {
                findings.extend(skipped(&[Check::Agent], "there is no connection"));
                None
            }
        };
        match identities {
            Some(identities) => probe.examine(resolved, &identities, findings),
            None => findings.extend(skipped(
                &[Check::Identity, Check::Token, Check::Certificate],
                "the agent does not answer",
            )),
        }
        findings.extend(match (resolved.usable(), &probe.signed) {
            (Some(_), Some(signed)) => signature::findings(signed),
            (None, _) => skipped(SIGNING, "there is no target"),
            (Some(_), None) => skipped(SIGNING, "the agent does not answer"),
        });
        probe
    }

    /// Has the request signed first: that waits for the token, whose state the identities report afterwards.
    fn connected(
        &mut self,
        resolved: &ResolvedTarget,
        mut client: Client,
        findings: &mut Vec<Finding>,
    ) -> Option<Vec<Identity>> {
        let socket = &resolved.socket;
        let info = timeout(TIMEOUT, move || client.info());
        let info = info.map(|info| info.map_err(|error| AgentError::new(socket, error)));
        let finding = identity::agent_finding(&answer(info, findings)?);
        let speaks = !finding.is_failure();
        findings.push(finding);
        if !speaks {
            return None;
        }
        self.signed = resolved
            .usable()
            .map(|target| agent_client::sign(&target.socket, target.session.unsigned()));
        let path = socket.clone();
        let identities = timeout(TIMEOUT, move || agent_client::identities(&path));
        answer(identities, findings)
    }

    fn examine(
        &mut self,
        resolved: &ResolvedTarget,
        identities: &[Identity],
        findings: &mut Vec<Finding>,
    ) {
        let wanted = resolved.identity.as_deref();
        let (finding, chosen) = identity::choose(identities, wanted, resolved.usable().is_some());
        findings.push(finding);
        for identity in &chosen {
            let now = Timestamp::now();
            let chain = chain(&resolved.socket, &identity.name);
            let of_certificate = certificate::findings(&identity.name, &chain, now);
            let refused = of_certificate.iter().any(Finding::is_failure);
            findings.extend(identity::token_findings(identity, refused));
            findings.extend(of_certificate);
            self.chain = chain.ok();
        }
        if chosen.is_empty() {
            let behind = &[Check::Token, Check::Certificate];
            findings.extend(skipped(behind, "there is no identity"));
        }
    }
}

const SIGNING: &[Check] = &[Check::Permission, Check::Signature];

/// The answer, or a finding about its absence.
fn answer<T>(answer: Option<Result<T, AgentError>>, findings: &mut Vec<Finding>) -> Option<T> {
    let finding = match answer {
        Some(Ok(answer)) => return Some(answer),
        Some(Err(error)) => Finding::error(Check::Agent, &error),
        None => Finding::failed(
            Check::Agent,
            Exit::AgentUnreachable,
            format!("no answer within {} s", TIMEOUT.as_secs()),
            "the agent hangs, or never started: systemctl status roleseal-agent; journalctl -u roleseal-agent; to end \
             that: sudo systemctl restart roleseal-agent",
        ),
    };
    findings.push(finding);
    None
}

fn chain(socket: &Path, identity: &str) -> Result<Chain, String> {
    let (socket, identity) = (socket.to_owned(), identity.to_owned());
    match timeout(TIMEOUT, move || of_identity(&socket, Some(&identity))) {
        Some(answer) => answer.map_err(|error| error.to_string()),
        None => Err(format!("no answer within {} s", TIMEOUT.as_secs())),
    }
}
