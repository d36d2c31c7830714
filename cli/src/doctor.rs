//! `roleseal doctor`: checks every step from this user to AWS, and suggests fixes.
//!
//! Each step is the usual one of the client library, with a probe before it where its error would not tell enough. A
//! failed step shows its own error and hint; the checks behind it continue as far as they can.

mod agent;
mod certificate;
mod finding;
mod identity;
mod network;
mod session;
mod signature;
mod socket;
mod target;
mod trust_policy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use client::create_session;
use client::environment::Environment;
use client::http::Http;
use client::target::{Settings, Target, TargetName};

use crate::common::{CommandError, Common};
use crate::output::{self, OutputError};

use agent::AgentProbe;
use finding::{Check, Finding, skipped};
use network::NetworkProbe;
use session::SessionOutcome;
use target::ResolvedTarget;

/// The target to check.
#[derive(Debug, Args)]
pub(crate) struct DoctorArguments {
    /// A target of the targets file; the options below win over its settings
    #[arg(long, value_name = "NAME")]
    target: Option<TargetName>,
    #[command(flatten)]
    settings: Settings,
    /// The role's trust policy, to evaluate for the certificate
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
    let resolved = ResolvedTarget::read(common, &environment, wanted.target, wanted.settings);
    let findings = examine(&resolved, &environment, wanted.trust_policy.as_deref());
    let text = match wanted.json {
        true => finding::json(&findings).map_err(OutputError::from)?,
        false => finding::show(&findings),
    };
    output::print_text(&text)?;
    Ok(finding::exit(&findings).map_or(ExitCode::SUCCESS, ExitCode::from))
}

/// Checks each step from this user to AWS.
fn examine(
    resolved: &ResolvedTarget,
    environment: &Environment,
    policy: Option<&Path>,
) -> Vec<Finding> {
    let mut findings = vec![target::finding(resolved)];
    let agent = AgentProbe::run(resolved, &mut findings);
    let Some(target) = resolved.usable() else {
        findings.extend(skipped(NETWORK, "there is no target"));
        if policy.is_some() {
            findings.extend(skipped(&[Check::TrustPolicy], "there is no target"));
        }
        return findings;
    };
    findings.push(target::proxy_finding(resolved, target, environment));
    let outcome = match Http::new(&target.route) {
        Ok(http) => request_session(target, &http, &agent, &mut findings),
        Err(error) => {
            findings.extend(skipped(
                &[Check::Name, Check::Connection],
                "there is no HTTP client",
            ));
            findings.push(Finding::error(Check::Tls, &error));
            findings.extend(skipped(
                &[Check::Clock, Check::Session],
                "there is no HTTP client",
            ));
            None
        }
    };
    if let Some(path) = policy {
        let policy = trust_policy::read(path);
        let chain = agent.chain.as_ref();
        findings.push(trust_policy::finding(
            target,
            &policy,
            chain,
            outcome.as_ref(),
        ));
    }
    findings
}

const NETWORK: &[Check] = &[
    Check::Proxy,
    Check::Name,
    Check::Connection,
    Check::Tls,
    Check::Clock,
    Check::Session,
];

/// For CreateSession: the service takes less than a second.
const SESSION_TIMEOUT: Duration = Duration::from_secs(20);

/// Sends the signed request, where the network permits it.
fn request_session(
    target: &Target,
    http: &Http,
    agent: &AgentProbe,
    findings: &mut Vec<Finding>,
) -> Option<SessionOutcome> {
    let network = NetworkProbe::run(target, http).findings();
    // AWS judges the clock itself.
    let reached = !network
        .iter()
        .any(|one| one.is_failure() && one.check != Check::Clock);
    findings.extend(network);
    let headers = match &agent.signed {
        Some(Ok(headers)) if reached => headers,
        Some(Ok(_)) => {
            findings.extend(skipped(&[Check::Session], "the endpoint was not reached"));
            return None;
        }
        Some(Err(_)) | None => {
            findings.extend(skipped(&[Check::Session], "there is no signature"));
            return None;
        }
    };
    let outcome = create_session::send(http, &target.session.unsigned(), headers, SESSION_TIMEOUT);
    findings.push(session::finding(target, &outcome));
    Some(outcome)
}

#[cfg(test)]
pub(crate) mod tests {
    use rolesanywhere::certificate::Certificate;

    /// One that AWS accepts as a leaf.
    pub(crate) fn certificate() -> Certificate {
        let chain = super::certificate::tests::chain("web", 12, 31);
        chain.unwrap().leaf().clone()
    }
}
