//! `roleseal-admin csr`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::Args;
use rolesanywhere::certificate::CertificationRequest;

use crate::attestation;
use crate::failure::Failure;
use crate::key_choice::KeyChoice;
use crate::new_file::NewFile;
use crate::new_request::{AltNameArguments, Subject, Wanted};
use crate::output;
use crate::pins::in_file;
use crate::signed_request::{request, to_pem};
use crate::token_key::TokenKey;

pub(super) const EXAMPLES: &str = "\
Examples:
  roleseal-admin csr --uri 'pkcs11:token=lab;object=web' \\
    --subject 'CN=web,O=Example' --out web.csr
  roleseal-admin csr --key /etc/roleseal/web.tss --subject 'CN=web' \\
    --dns web.example.org | openssl req -text
  roleseal-admin csr --handle 0x81000101 --subject 'CN=web' --out web.csr \\
    --attest web.json
With --attest, whoever issues the certificate can check that the key cannot
leave its TPM:
  roleseal-admin attest verify --csr web.csr --attestation web.json";

/// Which key, and what to ask for.
#[derive(Debug, Args)]
pub(crate) struct CsrArguments {
    #[command(flatten)]
    key: KeyChoice,
    /// The certificate's subject (RFC 4514): 'CN=web,O=Example'
    #[arg(long, value_name = "NAME", help_heading = "The request")]
    subject: Subject,
    #[command(flatten, next_help_heading = "The request")]
    alt_names: AltNameArguments,
    /// Write the CSR (PEM) to this new file [default: standard output]
    #[arg(long, value_name = "FILE", help_heading = "The request")]
    out: Option<PathBuf>,
    /// Write the TPM's attestation of the key to this new file; .json is added to its name if missing
    #[arg(long, value_name = "FILE", help_heading = "Attestation")]
    attest: Option<PathBuf>,
    /// File with the endorsement hierarchy's auth value, if any
    #[arg(
        long,
        value_name = "FILE",
        requires = "attest",
        help_heading = "Attestation"
    )]
    endorsement_pin_file: Option<PathBuf>,
}

/// A request and an attestation are nobody's secret.
const PUBLIC: u32 = 0o644;

/// The error for an attestation of a key on a PKCS#11 token.
const NO_STATEMENT: &str = "\
cannot attest the key: --attest is for keys in a TPM; a PKCS#11 token makes no statement that a CA can verify";

/// Its hint.
const ATTRIBUTES: &str = "\
leave --attest out; `roleseal-admin key list --login` shows the attributes that the token reports to its own host \
(CKA_ALWAYS_SENSITIVE, CKA_NEVER_EXTRACTABLE, CKA_LOCAL)";

pub(super) fn run(arguments: &CsrArguments) -> Result<(), Failure> {
    if arguments.attest.is_some() && arguments.key.uri.is_some() {
        return Err(Failure::usage(NO_STATEMENT).hint(ATTRIBUTES));
    }
    let place = arguments.key.place()?;
    let out = arguments
        .out
        .as_deref()
        .filter(|path| *path != Path::new("-")) // standard output, as everywhere
        .map(|path| NewFile::begin(path, PUBLIC, None))
        .transpose()?;
    let attestation = arguments
        .attest
        .as_deref()
        .map(|path| NewFile::begin(&json_of(path), PUBLIC, None))
        .transpose()?;
    let wanted = Wanted {
        subject: arguments.subject.0.clone(),
        alt_names: arguments.alt_names.names(),
    };
    let mut key = TokenKey::open(place)?;
    let request = request(&mut key, &wanted)?;
    if let Some(file) = attestation {
        attest(&mut key, &request, arguments, file)?;
    }
    let pem = to_pem(&request)?;
    match out {
        Some(file) => file.put(pem.as_bytes()),
        None => output::print(&pem),
    }
}

fn attest(
    key: &mut TokenKey,
    request: &CertificationRequest,
    arguments: &CsrArguments,
    file: NewFile,
) -> Result<(), Failure> {
    let pin = in_file(&arguments.endorsement_pin_file);
    let attestation = key.attest(pin, attestation::qualifying_data(request))?;
    let verdict = attestation::judge(request, &attestation, None);
    if let Some(fault) = verdict.findings.iter().find(|finding| !finding.holds) {
        return Err(Failure::failed(format!(
            "cannot write the attestation: a check failed: {}",
            fault.text
        )));
    }
    let json = attestation::to_json(&attestation)
        .map_err(|error| Failure::failed(format!("cannot write the attestation: {error}")))?;
    file.put(json.as_bytes())
}

/// `web` and `web.json` both mean `web.json`.
fn json_of(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    if !name.as_bytes().ends_with(b".json") {
        name.push(".json");
    }
    PathBuf::from(name)
}
