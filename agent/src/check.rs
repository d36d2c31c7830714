//! What is wrong with a configuration beyond its own file, as far as it shows without a token.

use jiff::Timestamp;

use crate::sandbox::Sandbox;
use config::certificate::{self, CertificateSource, LeafSource};
use config::renewal::{self, Present};
use config::{Config, IdentityConfig, TokenKind};

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
        if sandbox.is_some() && awaits_renewal(identity) {
            return None;
        }
        let error = match sandbox {
            Some(sandbox) => sandbox.explain(error, source.files()),
            None => error,
        };
        Some(format!("identity {:?}: {error}", identity.name))
    });
    let renewals = config.identities.iter().filter_map(|identity| {
        let error = check_renewal(identity, sandbox).err()?;
        Some(format!("identity {:?}: renew: {error}", identity.name))
    });
    let all = modules.chain(pins).chain(certificates).chain(renewals);
    all.collect()
}

/// What is no fault, but may become one.
pub fn warnings(config: &Config) -> Vec<String> {
    let renewed = config.identities.iter().filter_map(|identity| {
        let settings = identity.renewal.as_ref()?;
        let path = identity.certificate.files().next()?;
        let objection = renewal::objection_to_writing(path);
        let all = objection.into_iter().chain(renewal::doubt(settings));
        Some(all.map(|warning| format!("identity {:?}: {warning}", identity.name)))
    });
    renewed.flatten().collect()
}

/// The certificate request. A confined agent need not be able to read it.
fn check_renewal(identity: &IdentityConfig, sandbox: Option<&Sandbox>) -> Result<(), String> {
    let Some(settings) = &identity.renewal else {
        return Ok(());
    };
    let csr = settings.csr.as_path();
    if sandbox.is_some_and(|sandbox| !sandbox.may_read(csr)) {
        return Ok(());
    }
    Present::read(&identity.certificate, settings).map(drop)
}

/// Whether a running agent has the certificate renewed, which is expired or gone and nothing else.
fn awaits_renewal(identity: &IdentityConfig) -> bool {
    let Some(settings) = &identity.renewal else {
        return false;
    };
    match Present::read(&identity.certificate, settings).map(|present| present.certificate) {
        Ok(Some(certificate)) => certificate.not_after < Timestamp::now(),
        Ok(None) => true,
        Err(_) => false,
    }
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
