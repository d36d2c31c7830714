//! `roleseal-admin attest`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use rolesanywhere::certificate::CertificationRequest;

use crate::attestation::{self, EndorsementCas, Verdict};
use crate::failure::Failure;
use crate::input::{read_file, read_text};
use crate::output;

/// What is done with attestations.
#[derive(Debug, Subcommand)]
pub(crate) enum AttestCommand {
    /// Check that the key of a CSR was made in a TPM and cannot leave it
    ///
    /// For the issuer of the certificate; needs no TPM. Prints each check, and what the attestation does not prove. Exit
    /// status 1 if a check fails.
    #[command(after_long_help = EXAMPLES)]
    Verify(VerifyArguments),
}

const EXAMPLES: &str = "\
Example:
  roleseal-admin attest verify --csr web.csr --attestation web.json \\
    --ek-ca tpm-vendor-ca.pem";

/// What to check.
#[derive(Debug, Args)]
pub(crate) struct VerifyArguments {
    /// The certificate request, PEM or DER
    #[arg(long, value_name = "FILE")]
    csr: PathBuf,
    /// The attestation, as `roleseal-admin csr --attest` writes it
    #[arg(long, value_name = "FILE")]
    attestation: PathBuf,
    /// CAs of TPM vendors (PEM), one of which must have issued each endorsement certificate
    #[arg(long, value_name = "FILE")]
    ek_ca: Option<PathBuf>,
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

impl AttestCommand {
    pub(super) fn run(&self) -> Result<(), Failure> {
        match self {
            AttestCommand::Verify(arguments) => verify(arguments),
        }
    }
}

fn verify(arguments: &VerifyArguments) -> Result<(), Failure> {
    let fault = |path: &PathBuf| {
        let path = path.display().to_string();
        move |what: String| Failure::failed(format!("cannot use {path}: {what}"))
    };
    let request = CertificationRequest::parse(&read_file(&arguments.csr)?)
        .map_err(|error| fault(&arguments.csr)(error.to_string()))?;
    let attestation = attestation::from_json(&read_text(&arguments.attestation)?)
        .map_err(fault(&arguments.attestation))?;
    let cas = match &arguments.ek_ca {
        Some(path) => Some({
            let now = Timestamp::now();
            EndorsementCas::parse(&read_file(path)?, now).map_err(fault(path))?
        }),
        None => None,
    };
    let verdict = attestation::judge(&request, &attestation, cas.as_ref());
    match arguments.json {
        true => output::print_json(&verdict)?,
        false => output::print(&text(&verdict))?,
    }
    match verdict.proven {
        true => Ok(()),
        false => Err(
            Failure::failed("cannot verify the attestation: a check failed")
                .hint("do not issue a certificate for this CSR"),
        ),
    }
}

fn text(verdict: &Verdict) -> String {
    let mut text = String::new();
    for finding in &verdict.findings {
        let mark = if finding.holds { "holds" } else { "FAILS" };
        text += &format!("{mark}  {}\n", finding.text);
    }
    if let Some(name) = &verdict.attestation_key_name {
        text += &format!("attestation key: {name}\n");
    }
    for what in &verdict.not_proven {
        text += &format!("not proven: {what}\n");
    }
    text
}
