//! `roleseal doctor`: looks at the whole way from this user to AWS, and says what is wrong and what to do.
//!
//! Each part of the way has a file: it gathers what there is to see of it, and judges that apart, by what was
//! gathered alone. What lies behind a failure is looked at as far as that can be.

mod certificate;
mod finding;
mod identity;
mod network;
mod session;
mod signature;
mod socket;
mod target;
mod trust_policy;
mod verify;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use client::agent_client::{self, AgentError};
use client::environment::Environment;
use client::exit::Exit;
use client::http::Http;
use client::proxy::ProxyWord;
use client::target::{Settings, Target, TargetName};
use client::timeout::timeout;
use jiff::Timestamp;
use wire::{Client, Identity};

use crate::certificate_source::of_identity;
use crate::common::{CommandError, Common};
use crate::output::{self, OutputError};

use ::rolesanywhere::certificate::Chain;
use finding::{Check, Finding};
use session::Ended;
use signature::Signed;
use target::Wish;

/// What is looked at.
#[derive(Debug, Args)]
pub(crate) struct DoctorArguments {
    /// A target of the targets file; the options below win over its settings
    #[arg(long, value_name = "NAME")]
    target: Option<TargetName>,
    #[command(flatten)]
    settings: Settings,
    /// The role's trust policy, to lay against the certificate
    #[arg(long, value_name = "FILE")]
    trust_policy: Option<PathBuf>,
    /// Print the checks as a JSON array
    #[arg(long)]
    json: bool,
}

pub(crate) const EXAMPLE: &str = "\
Examples:
  roleseal doctor --target web
  aws iam get-role --role-name web --query Role.AssumeRolePolicyDocument > policy.json
  roleseal doctor --target web --trust-policy policy.json
Exit code 0 if nothing failed (warnings do not count), otherwise that of the first failure.

";

pub(crate) fn run(common: &Common, wanted: DoctorArguments) -> Result<ExitCode, CommandError> {
    let environment = Environment::of_process();
    let wish = Wish::read(common, &environment, wanted.target, wanted.settings);
    let findings = examine(&wish, &environment, wanted.trust_policy.as_deref());
    let text = match wanted.json {
        true => finding::json(&findings).map_err(OutputError::from)?,
        false => finding::show(&findings),
    };
    output::print_text(&text)?;
    Ok(finding::exit(&findings).map_or(ExitCode::SUCCESS, ExitCode::from))
}

/// From this user to AWS.
fn examine(wish: &Wish, environment: &Environment, policy: Option<&Path>) -> Vec<Finding> {
    let mut findings = vec![target::judge(wish)];
    let target = wish.usable();
    let near = examine_agent(wish, target, &mut findings);
    let far = examine_network(wish, environment, target, &near, &mut findings);
    if let (Some(policy), Some(target)) = (policy, target) {
        let policy = trust_policy::read(policy);
        findings.push(trust_policy::judge(
            target,
            &policy,
            &near.chain,
            far.as_ref(),
        ));
    } else if policy.is_some() {
        let why = "there is no target to lay it against";
        findings.push(Finding::skipped(Check::TrustPolicy, why));
    }
    findings
}

/// What the agent gave.
struct Near {
    signed: Option<Signed>,
    chain: Result<Chain, String>,
}

/// The agent answers such questions at once, or is in trouble.
const GLANCE: Duration = Duration::from_secs(5);

/// Socket, agent, identity, token, certificate, permission, signature.
fn examine_agent(wish: &Wish, target: Option<&Target>, findings: &mut Vec<Finding>) -> Near {
    let mut near = Near {
        signed: None,
        chain: Err("it is not known".to_owned()),
    };
    let (facts, client) = socket::look(&wish.socket, &wish.socket_from);
    findings.push(socket::judge(&facts));
    let speaks = match client {
        Some(client) => meet(client, &wish.socket, findings),
        None => {
            skip(&[Check::Agent], "there is no connection", findings);
            false
        }
    };
    // First of all: a signature waits for its token, and what the agent says of that is true afterwards.
    near.signed = target
        .filter(|_| speaks)
        .map(|target| agent_client::sign(&target.socket, target.session.unsigned()));
    let identities = match speaks {
        true => list(&wish.socket, findings),
        false => None,
    };
    let Some(identities) = identities else {
        let behind = [Check::Identity, Check::Token, Check::Certificate];
        skip(&behind, "the agent does not answer", findings);
        examine_signature(target, near.signed.as_ref(), findings);
        return near;
    };
    let wanted = wish.identity.as_deref();
    let (finding, chosen) = identity::choose(&identities, wanted, target.is_some());
    findings.push(finding);
    for identity in &chosen {
        let now = Timestamp::now();
        findings.extend(identity::judge_token(identity, now));
        near.chain = chain(&wish.socket, &identity.name);
        findings.extend(certificate::judge(identity, &near.chain, now));
    }
    if chosen.is_empty() {
        let behind = [Check::Token, Check::Certificate];
        skip(&behind, "there is no identity", findings);
    }
    examine_signature(target, near.signed.as_ref(), findings);
    near
}

fn examine_signature(
    target: Option<&Target>,
    signed: Option<&Signed>,
    findings: &mut Vec<Finding>,
) {
    let why = match (target, signed) {
        (Some(target), Some(signed)) => {
            findings.extend(signature::judge(&target.session.unsigned(), signed));
            return;
        }
        (None, _) => "there is no target",
        (Some(_), None) => "the agent does not answer",
    };
    skip(&[Check::Permission, Check::Signature], why, findings);
}

/// Whether who answers is an agent.
fn meet(client: Client, socket: &Path, findings: &mut Vec<Finding>) -> bool {
    let mut client = client;
    match timeout(GLANCE, move || client.info()) {
        Some(Ok(info)) => {
            let judged = identity::judge_agent(&info);
            let speaks = !judged.is_failure();
            findings.push(judged);
            speaks
        }
        Some(Err(error)) => {
            findings.push(no_agent(&AgentError::new(socket, error)));
            false
        }
        None => {
            findings.push(silent());
            false
        }
    }
}

fn list(socket: &Path, findings: &mut Vec<Finding>) -> Option<Vec<Identity>> {
    let path = socket.to_owned();
    match timeout(GLANCE, move || agent_client::identities(&path)) {
        Some(Ok(identities)) => return Some(identities),
        Some(Err(error)) => findings.push(no_agent(&error)),
        None => findings.push(silent()),
    }
    None
}

fn no_agent(error: &AgentError) -> Finding {
    Finding::told(Check::Agent, error.exit(), &error.to_string(), LOOK)
}

fn silent() -> Finding {
    Finding::failed(
        Check::Agent,
        Exit::AgentUnreachable,
        format!(
            "it takes the connection, but does not answer within {} s",
            GLANCE.as_secs()
        ),
        LOOK,
    )
}

const LOOK: &str = "It hangs, or never started: systemctl status roleseal-agent; journalctl -u roleseal-agent. To end that: sudo \
     systemctl restart roleseal-agent";

fn chain(socket: &Path, identity: &str) -> Result<Chain, String> {
    let (socket, identity) = (socket.to_owned(), identity.to_owned());
    match timeout(GLANCE, move || of_identity(&socket, Some(&identity))) {
        Some(answer) => answer.map_err(|error| error.to_string()),
        None => Err("it does not answer".to_owned()),
    }
}

const TRUST: &str = "Name a PEM file that you may read with --ca-bundle or AWS_CA_BUNDLE.";

/// For CreateSession: the service takes less than a second.
const SESSION_TIMEOUT: Duration = Duration::from_secs(20);

/// Proxy, name, connection, TLS, clock, session.
fn examine_network(
    wish: &Wish,
    environment: &Environment,
    target: Option<&Target>,
    near: &Near,
    findings: &mut Vec<Finding>,
) -> Option<Ended> {
    let Some(target) = target else {
        let behind = [
            Check::Proxy,
            Check::Name,
            Check::Connection,
            Check::Tls,
            Check::Clock,
            Check::Session,
        ];
        skip(&behind, "there is no target", findings);
        return None;
    };
    // A malformed one is not asked here: --proxy or the target goes before it, or there was no target.
    let word = ProxyWord::of(environment, target.session.endpoint.host());
    let word = word.unwrap_or(ProxyWord::None);
    findings.push(target::judge_proxy(wish, target, &word));
    let http = match Http::new(&target.route) {
        Ok(http) => http,
        Err(error) => {
            let untrusted = "it is not known which CAs to trust";
            skip(&[Check::Name, Check::Connection], untrusted, findings);
            findings.push(Finding::told(
                Check::Tls,
                error.exit(),
                &error.to_string(),
                TRUST,
            ));
            skip(&[Check::Clock], untrusted, findings);
            skip(&[Check::Session], "there is no way to AWS", findings);
            return None;
        }
    };
    let way = network::judge(&network::walk(target, &http));
    let lost = way
        .iter()
        .any(|one| one.is_failure() && one.check != Check::Clock);
    findings.extend(way);
    let headers = match &near.signed {
        Some(Ok(headers)) if !lost => headers,
        Some(Ok(_)) => {
            skip(&[Check::Session], "there is no way to AWS", findings);
            return None;
        }
        _ => {
            skip(&[Check::Session], "there is no signature", findings);
            return None;
        }
    };
    let asked = Timestamp::now();
    let answer = http.post_session(&target.session.unsigned(), headers, SESSION_TIMEOUT);
    let ended = Ended::of(answer, asked);
    findings.push(session::judge(target, &ended));
    Some(ended)
}

fn skip(checks: &[Check], why: &str, findings: &mut Vec<Finding>) {
    findings.extend(checks.iter().map(|check| Finding::skipped(*check, why)));
}

#[cfg(test)]
pub(crate) mod tests {
    use rolesanywhere::certificate::Certificate;

    /// One that AWS takes of a leaf.
    pub(crate) fn certificate() -> Certificate {
        let made = super::certificate::tests::Made::leaf("web", 1);
        Certificate::from_der(made.der).unwrap()
    }
}
