//! `roleseal trust-policy`: what a role's trust policy has to say, so that this certificate and no other may
//! have the role.

use clap::Args;
use client::Diagnostic;
use client::environment::Environment;
use client::exit::Exit;
use client::progress;
use client::target::{TargetError, TargetName};
use jiff::Timestamp;
use rolesanywhere::TrustAnchorArn;
use rolesanywhere::certificate::SessionFacts;
use thiserror::Error;

use crate::binding::{Binding, By};
use crate::certificate_source::{self, CertificateArguments, SourceError};
use crate::common::Common;
use crate::output::{self, OutputError};
use crate::policy_document::{JSON, policy, quoted_json};

/// Whose certificate the policy is for, and which trust anchor's.
#[derive(Debug, Args)]
pub(crate) struct TrustPolicyArguments {
    #[command(flatten)]
    certificate: CertificateArguments,
    /// A target of the targets file, for its identity and its trust anchor
    #[arg(long, value_name = "NAME", conflicts_with_all = ["identity", "trust_anchor_arn"])]
    target: Option<TargetName>,
    /// The trust anchor of the certificate's CA
    #[arg(long, value_name = "ARN", required_unless_present = "target")]
    trust_anchor_arn: Option<TrustAnchorArn>,
    /// What of the certificate the role is bound to; may be a list [default: cn, else uri, else dns]
    #[arg(long, value_enum, value_name = "WHAT", value_delimiter = ',')]
    by: Vec<By>,
}

pub(crate) const EXAMPLES: &str = "\
Examples:
  roleseal trust-policy --target web
  roleseal trust-policy --by uri,issuer-cn --trust-anchor-arn ARN web.pem
  roleseal trust-policy --target web > policy.json &&
    aws iam update-assume-role-policy --role-name web --policy-document file://policy.json

";

/// Why there is no policy.
#[derive(Debug, Error)]
pub(crate) enum TrustPolicyError {
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The certificate lacks it, or AWS makes no tag of it.
    #[error("{0}")]
    Unbound(String),
    #[error("target {0} names no trust anchor")]
    NoAnchor(TargetName),
    #[error(transparent)]
    Output(#[from] OutputError),
}

impl Diagnostic for TrustPolicyError {
    fn exit(&self) -> Exit {
        match self {
            TrustPolicyError::Source(error) => error.exit(),
            TrustPolicyError::Target(_)
            | TrustPolicyError::Unbound(_)
            | TrustPolicyError::NoAnchor(_) => Exit::Usage,
            TrustPolicyError::Output(error) => error.exit(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            TrustPolicyError::Target(error) => error.hint(),
            TrustPolicyError::Source(error) => error.hint(),
            TrustPolicyError::NoAnchor(_) => {
                Some("give --trust-anchor-arn and --identity instead".to_owned())
            }
            TrustPolicyError::Unbound(_) | TrustPolicyError::Output(_) => None,
        }
    }
}

pub(crate) fn run(common: &Common, wanted: TrustPolicyArguments) -> Result<(), TrustPolicyError> {
    let mut socket = common.socket();
    let mut certificate = wanted.certificate;
    let mut anchor = wanted.trust_anchor_arn;
    if let Some(name) = wanted.target {
        let environment = Environment::of_process();
        let files = common.target_files(&environment);
        let settings = common.over(files.find(&name)?.settings);
        if certificate.files.is_empty() {
            certificate.identity = settings.identity;
        }
        socket = settings.socket.unwrap_or_else(|| environment.socket());
        anchor = settings.trust_anchor_arn;
        if anchor.is_none() {
            return Err(TrustPolicyError::NoAnchor(name));
        }
    }
    let Some(anchor) = anchor else {
        return Ok(()); // clap has demanded one of the two
    };
    certificate_source::check_standard_input(&certificate.files)?;
    let chain = certificate.chain(&socket)?;
    let facts = SessionFacts::of(chain.leaf());
    let binding = Binding::of(&facts, &wanted.by).map_err(TrustPolicyError::Unbound)?;
    if !common.quiet {
        for objection in chain.objections(None, Timestamp::now()) {
            if objection.is_refusal() {
                progress::note(&format!("AWS would refuse this certificate: {objection}"));
            }
        }
        progress::note(&format!("{binding}\ntrust anchor: {anchor}"));
    }
    let (arn, account) = (quoted_json(anchor.as_ref()), quoted_json(anchor.account()));
    let policy = policy(&binding, &JSON, &arn, &account);
    Ok(output::print_text(&(policy + "\n"))?)
}
