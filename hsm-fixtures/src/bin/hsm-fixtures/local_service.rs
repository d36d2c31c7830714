//! The local Roles Anywhere from a file: `service`, and `explain` for one decision of it.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;
use hsm_fixtures::{Explained, Question, Service, ServiceConfig, TlsIdentity};
use tempfile::NamedTempFile;

use crate::interrupt::Interrupt;

#[derive(Args)]
pub(crate) struct ServiceArguments {
    /// Trust anchors, profiles and roles, as docs/local-service.md tells; JSON where the name ends in .json, else TOML.
    #[arg(long)]
    config: PathBuf,
    /// Print how each CreateSession was decided: the path, the session tags, the trust policy statement by statement.
    #[arg(long)]
    explain: bool,
    /// Where to write the CA that clients have to trust, where the file names no TLS certificate; by default, into a
    /// temporary file.
    #[arg(long, value_name = "FILE")]
    write_ca: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct ExplainArguments {
    /// The service's file.
    #[arg(long)]
    config: PathBuf,
    /// The client's certificate, then its intermediates, PEM.
    #[arg(long)]
    cert: PathBuf,
    /// The role's ARN.
    #[arg(long)]
    role: String,
    /// The profile's ARN.
    #[arg(long)]
    profile: String,
    /// The trust anchor's ARN.
    #[arg(long)]
    trust_anchor: String,
    /// A roleSessionName that the client would set.
    #[arg(long)]
    session_name: Option<String>,
    /// As if the client sent instanceProperties.
    #[arg(long)]
    instance_properties: bool,
}

/// `hsm-fixtures service`.
pub(crate) fn service(arguments: &ServiceArguments) -> Result<()> {
    let mut made = None;
    let config = ServiceConfig::from_file(&arguments.config, || {
        let (tls, ca) = TlsIdentity::with_own_ca()?;
        made = Some(ca);
        Ok(tls)
    })?;
    let written = match (&arguments.write_ca, &made) {
        (Some(_), None) => {
            bail!("--write-ca: the file names a TLS certificate, so no CA is made")
        }
        (Some(path), Some(ca)) => Some(write_ca(path, ca)?),
        (None, _) => None,
    };
    let interrupt = Interrupt::install()?; // not before: a file may be a pipe that is waited for
    let temporary = match (&written, &made) {
        (None, Some(ca)) => Some(temporary_ca(ca).context("cannot make a temporary file")?),
        _ => None,
    };
    let service = Service::start(ServiceConfig {
        verbose: true,
        explain: arguments.explain,
        ..config
    })?;
    println!("{}", service.url());
    let temporary = temporary.as_ref().map(NamedTempFile::path);
    if let Some(ca) = written.as_deref().or(temporary) {
        println!("{}", ca.display());
    }
    interrupt.wait_while(|| Ok(()))
}

fn write_ca(path: &Path, ca: &str) -> Result<PathBuf> {
    fs::write(path, ca).with_context(|| format!("cannot write {}", path.display()))?;
    fs::canonicalize(path).with_context(|| format!("cannot find {}", path.display()))
}

/// A file that goes with what is returned.
fn temporary_ca(ca: &str) -> io::Result<NamedTempFile> {
    let mut file = tempfile::Builder::new()
        .prefix("ca-")
        .suffix(".pem")
        .tempfile()?;
    file.write_all(ca.as_bytes())?;
    Ok(file)
}

/// `hsm-fixtures explain`.
pub(crate) fn explain(arguments: &ExplainArguments) -> Result<ExitCode> {
    let config = ServiceConfig::from_file(&arguments.config, || {
        TlsIdentity::with_own_ca().map(|(tls, _)| tls)
    })?;
    let cert = &arguments.cert;
    let question = Question {
        certificates_pem: fs::read_to_string(cert)
            .with_context(|| format!("cannot read {}", cert.display()))?,
        trust_anchor_arn: arguments.trust_anchor.clone(),
        profile_arn: arguments.profile.clone(),
        role_arn: arguments.role.clone(),
        session_name: arguments.session_name.clone(),
        has_instance_properties: arguments.instance_properties,
    };
    let explained = Explained::new(&config, &question)?;
    print!("{explained}");
    Ok(if explained.granted() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
