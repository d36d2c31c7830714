//! Where a certificate to look at comes from: files, a pipe, or an identity of the agent.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::Args;
use rolesanywhere::certificate::{
    self, Certificate, CertificateError, Chain, FILE_LIMIT, Violation,
};
use thiserror::Error;

use client::Diagnostic;
use client::agent_client::{self, AgentError};
use client::exit::Exit;
use client::input;

/// Which certificate is meant. With neither, it is that of the only identity that the caller may use.
#[derive(Debug, Clone, Args)]
pub(crate) struct CertificateArguments {
    /// The certificate, PEM or DER, and its intermediates, in it or in files behind it; - is standard input
    #[arg(value_name = "FILE", conflicts_with = "identity")]
    pub(crate) files: Vec<PathBuf>,
    /// The certificate of an identity of the agent [default, without FILE: the only one that you may use]
    #[arg(long, value_name = "NAME")]
    pub(crate) identity: Option<String>,
}

/// Why there is no certificate.
#[derive(Debug, Error)]
pub(crate) enum SourceError {
    #[error("standard input (-) is named for two files, and is read once")]
    StandardInputTwice,
    #[error("{place}: {error}")]
    File {
        place: String,
        error: CertificateError,
    },
    #[error(transparent)]
    Agent(#[from] AgentError),
    #[error("the agent's answer holds no certificate: {0}")]
    Garbled(String),
}

impl Diagnostic for SourceError {
    fn exit(&self) -> Exit {
        match self {
            SourceError::StandardInputTwice => Exit::Usage,
            SourceError::File { .. } => Exit::Failed,
            SourceError::Agent(error) => error.exit(),
            SourceError::Garbled(_) => Exit::AgentUnreachable,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            SourceError::StandardInputTwice => Some("give one of them by its path".to_owned()),
            SourceError::Agent(error) => error.hint(),
            SourceError::File { .. } | SourceError::Garbled(_) => None,
        }
    }
}

impl CertificateArguments {
    /// The certificate with its intermediates.
    pub(crate) fn chain(&self, socket: &Path) -> Result<Chain, SourceError> {
        self.chain_with_objections(socket).map(|(chain, _)| chain)
    }

    /// The same, and what there is to say against the files.
    pub(crate) fn chain_with_objections(
        &self,
        socket: &Path,
    ) -> Result<(Chain, Vec<Violation>), SourceError> {
        if self.files.is_empty() {
            let chain = of_identity(socket, self.identity.as_deref())?;
            return Ok((chain, Vec::new()));
        }
        let (mut certificates, mut objections) = (Vec::new(), Vec::new());
        for file in &self.files {
            let (more, objection) = read_with_objection(file)?;
            certificates.extend(more);
            objections.extend(objection);
        }
        let place = shown(self.files.first().map_or(Path::new("-"), PathBuf::as_path));
        let chain = Chain::new(certificates).map_err(|error| SourceError::File { place, error })?;
        Ok((chain, objections))
    }
}

/// The certificate that an identity signs with.
pub(crate) fn of_identity(socket: &Path, identity: Option<&str>) -> Result<Chain, SourceError> {
    let encoded = agent_client::certificate_chain(socket, identity)?;
    let certificates = encoded.iter().map(|one| {
        let der = BASE64.decode(one).map_err(|error| error.to_string())?;
        Certificate::from_der(der).map_err(|error| error.to_string())
    });
    let chain = certificates
        .collect::<Result<Vec<_>, _>>()
        .and_then(|certificates| Chain::new(certificates).map_err(|error| error.to_string()));
    chain.map_err(SourceError::Garbled)
}

/// The certificates of a file, or of standard input.
pub(crate) fn read(file: &Path) -> Result<Vec<Certificate>, SourceError> {
    read_with_objection(file).map(|(certificates, _)| certificates)
}

/// The same, and what there is to say against the file.
fn read_with_objection(file: &Path) -> Result<(Vec<Certificate>, Option<Violation>), SourceError> {
    let bytes = match is_standard_input(file) {
        true => input::read_limited(std::io::stdin().lock(), FILE_LIMIT),
        false => input::read(file, FILE_LIMIT),
    };
    let certificates = bytes
        .map_err(|fault| CertificateError::new(format!("cannot read it: {fault}")))
        .and_then(|bytes| {
            let objection =
                certificate::holds_clear_key(&bytes).then(|| Violation::clear_key(&shown(file)));
            Ok((certificate::parse(&bytes)?, objection))
        });
    certificates.map_err(|error| SourceError::File {
        place: shown(file),
        error,
    })
}

/// An error where several of the files that [`read`] is to read are standard input.
pub(crate) fn check_standard_input<'p>(
    files: impl IntoIterator<Item = &'p PathBuf>,
) -> Result<(), SourceError> {
    match files
        .into_iter()
        .filter(|file| is_standard_input(file))
        .count()
    {
        0 | 1 => Ok(()),
        _ => Err(SourceError::StandardInputTwice),
    }
}

fn is_standard_input(file: &Path) -> bool {
    file.as_os_str() == "-"
}

fn shown(file: &Path) -> String {
    match is_standard_input(file) {
        true => "standard input".to_owned(),
        false => file.display().to_string(),
    }
}
