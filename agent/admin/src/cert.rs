//! `roleseal-admin cert`.

use std::fmt;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use rolesanywhere::certificate::{self, CertificateError};

use crate::failure::Failure;
use crate::input::read_file;
use crate::key_choice::{ModuleArgument, UriText, place_on_token};
use crate::output;
use crate::owner::OwnerArgument;
use crate::pins::PinArguments;
use crate::token_key::TokenKey;

/// What is done with certificates.
#[derive(Debug, Subcommand)]
pub(crate) enum CertCommand {
    /// Store a certificate on a PKCS#11 token, beside its key
    ///
    /// Stores it with the key's CKA_ID and label, and replaces a certificate for the same key. It must be the key's
    /// own. The agent then reads it from the token, and needs no certificate file.
    #[command(after_long_help = EXAMPLES)]
    Import(Box<ImportArguments>),
}

const EXAMPLES: &str = "\
Example:
  roleseal-admin cert import --uri 'pkcs11:token=lab;object=web' --cert web.pem
Keep intermediates in a file, and name it in the identity's configuration:
  chain = \"/var/lib/roleseal/chain.pem\"";

/// Selects the certificate and the key.
#[derive(Debug, Args)]
pub(crate) struct ImportArguments {
    /// The key (RFC 7512), such as 'pkcs11:token=lab;object=web'
    #[arg(long, value_name = "URI")]
    uri: UriText,
    #[command(flatten)]
    module: ModuleArgument,
    /// File with the certificate, PEM or DER; the first one of several
    #[arg(long, value_name = "FILE")]
    cert: PathBuf,
    #[command(flatten)]
    owner: OwnerArgument,
    #[command(flatten)]
    pin: PinArguments,
}

impl CertCommand {
    pub(super) fn run(&self) -> Result<(), Failure> {
        match self {
            CertCommand::Import(arguments) => import(arguments),
        }
    }
}

fn import(arguments: &ImportArguments) -> Result<(), Failure> {
    let fault = |what: &dyn fmt::Display| {
        Failure::failed(format!(
            "cannot store certificate {}: {what}",
            arguments.cert.display()
        ))
    };
    let (der, public_key) = leaf(&read_file(&arguments.cert)?).map_err(|error| fault(&error))?;
    let user = arguments.owner.account()?;
    let (module, pin) = (&arguments.module, &arguments.pin);
    let place = place_on_token(arguments.uri.read()?, module, pin, user)?;
    let mut key = TokenKey::open(place)?;
    if key.public_key().is_ok_and(|key| key.0 != public_key) {
        let other = format!("its first certificate is not for the key {}", key.place());
        return Err(fault(&other)
            .hint("put the key's certificate first, or have one issued for a CSR of this key"));
    }
    for uri in key.import_certificate(der)? {
        let stored = format!("stored {uri}");
        output::print_done(&stored, &format!("{stored}\n"))?;
    }
    Ok(())
}

/// The first certificate, and its public key.
fn leaf(bytes: &[u8]) -> Result<(Vec<u8>, Vec<u8>), CertificateError> {
    let certificates = certificate::parse(bytes)?;
    let leaf = certificates
        .first()
        .ok_or_else(|| CertificateError::new("the file has no certificate"))?;
    Ok((leaf.der().to_vec(), leaf.spki()?))
}
