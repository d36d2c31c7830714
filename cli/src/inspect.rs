//! `roleseal inspect`: a certificate as IAM Roles Anywhere sees it.

mod json;
mod text;

use std::path::PathBuf;

use clap::Args;
use client::Diagnostic;
use client::exit::Exit;
use jiff::Timestamp;
use rolesanywhere::certificate::{Certificate, Chain, SessionFacts, Violation};
use thiserror::Error;

use crate::certificate_source::{self, CertificateArguments, SourceError};
use crate::common::Common;
use crate::output::{self, OutputError};

/// What is to be looked at.
#[derive(Debug, Args)]
pub(crate) struct InspectArguments {
    #[command(flatten)]
    certificate: CertificateArguments,
    /// The certificates of the trust anchor, to check that the certificate leads to one of them
    #[arg(long, value_name = "FILE")]
    trust_anchor: Option<PathBuf>,
    /// Print JSON: the members of aws_signing_helper read-certificate-data, and more
    #[arg(long)]
    json: bool,
}

pub(crate) const EXAMPLES: &str = "\
Examples:
  roleseal inspect web.pem --trust-anchor ca.pem    before the certificate is installed
  roleseal inspect leaf.pem intermediates.pem       leaf and chain in two files
  roleseal inspect --identity web                   what the agent signs with
  step ca certificate … | roleseal inspect -        what was just issued

";

/// Why the command does not end well.
#[derive(Debug, Error)]
pub(crate) enum InspectError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("AWS would refuse this certificate: see above")]
    WouldBeRefused,
    #[error(transparent)]
    Output(#[from] OutputError),
}

impl Diagnostic for InspectError {
    fn exit(&self) -> Exit {
        match self {
            InspectError::Source(error) => error.exit(),
            InspectError::WouldBeRefused => Exit::RefusedByAws,
            InspectError::Output(error) => error.exit(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            InspectError::Source(error) => error.hint(),
            InspectError::WouldBeRefused | InspectError::Output(_) => None,
        }
    }
}

/// All that there is to say about a certificate.
struct Inspection {
    chain: Chain,
    facts: SessionFacts,
    objections: Vec<Violation>,
    /// Whether a trust anchor was there to check the way to.
    anchored: bool,
}

pub(crate) fn run(common: &Common, wanted: &InspectArguments) -> Result<(), InspectError> {
    let files = wanted.certificate.files.iter().chain(&wanted.trust_anchor);
    certificate_source::check_standard_input(files)?;
    let (chain, of_files) = wanted.certificate.chain_with_objections(&common.socket())?;
    let anchors = match &wanted.trust_anchor {
        Some(file) => Some(certificate_source::read(file)?),
        None => None,
    };
    let mut inspection = Inspection::of(chain, anchors.as_deref(), Timestamp::now());
    inspection.objections.extend(of_files);
    let text = match wanted.json {
        true => json::render(&inspection).map_err(OutputError::from)?,
        false => text::render(&inspection),
    };
    output::print_text(&text)?;
    match inspection.objections.iter().any(Violation::is_refusal) {
        true => Err(InspectError::WouldBeRefused),
        false => Ok(()),
    }
}

impl Inspection {
    fn of(chain: Chain, anchors: Option<&[Certificate]>, now: Timestamp) -> Inspection {
        Inspection {
            facts: SessionFacts::of(chain.leaf()),
            objections: chain.objections(anchors, now),
            anchored: anchors.is_some(),
            chain,
        }
    }
}
