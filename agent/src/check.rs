//! What is wrong with a configuration beyond its own file, as far as it shows without a token.

use jiff::Timestamp;

use crate::certificate::{self, CertificateSource, LeafSource};
use crate::config::{Config, TokenKind};
use crate::sandbox::Sandbox;

/// The faults of modules, PIN files and certificate files, a sentence each. A confined agent sees fewer files
/// than its user.
pub fn faults(config: &Config, sandbox: Option<&Sandbox>) -> Vec<String> {
    let modules = config.tokens.iter().filter_map(|token| match &token.kind {
        TokenKind::Pkcs11(token) if token.module.is_absolute() && !token.module.exists() => {
            let module = token.module.display();
            Some(format!("PKCS#11 module {module} does not exist"))
        }
        _ => None,
    });
    let pins = config
        .pins()
        .filter_map(|pin| pin.check().err().map(|error| error.to_string()));
    let certificates = config.identities.iter().filter_map(|identity| {
        let source = &identity.certificate;
        let error = check_certificate(source).err()?;
        let error = match sandbox {
            Some(sandbox) => sandbox.explain(error, source.files()),
            None => error,
        };
        Some(format!("identity {:?}: {error}", identity.name))
    });
    modules.chain(pins).chain(certificates).collect()
}

fn check_certificate(source: &CertificateSource) -> Result<(), String> {
    match (&source.leaf, &source.chain) {
        (LeafSource::File(_), _) => source
            .load(None)?
            .check_validity(Timestamp::now())
            .map_err(|error| format!("its certificate: {error}")),
        (LeafSource::Token(_), Some(chain)) => certificate::read_file(chain)
            .map(drop)
            .map_err(|error| format!("{}: {error}", chain.display())),
        (LeafSource::Token(_), None) => Ok(()),
    }
}
