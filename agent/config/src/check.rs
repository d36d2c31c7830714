//! What is wrong with a configuration beyond its own file, as far as it shows without a token.

use std::collections::BTreeSet;
use std::path::Path;

use files::trust::{self, Untrusted};
use jiff::Timestamp;
use rustix::fs::{Access, access};
use token::tpm_device::{self, Obstacle};
use token::{Program, Tcti, softhsm};

use crate::certificate::{self, CertificateSource, LeafSource};
use crate::renewal::{self, RenewalInput};
use crate::viewpoint::{Credential, Viewpoint, is_passed_by_systemd};
use crate::{Config, IdentityConfig, TokenKind, command};

/// A process that reads fewer files than its user may.
pub trait Confinement {
    /// Returns why this process may not read a file, if its user may.
    fn objection(&self, path: &Path) -> Option<String>;
}

/// Who looks.
#[derive(Clone, Copy)]
pub enum Looker<'l> {
    /// The running agent.
    Agent(&'l dyn Confinement),
    /// `--check`.
    Command(&'l Viewpoint),
}

impl<'l> Looker<'l> {
    fn confinement(self) -> Option<&'l dyn Confinement> {
        match self {
            Looker::Agent(confinement) => Some(confinement),
            Looker::Command(_) => None,
        }
    }
}

/// The faults of modules, PIN files, key files and certificate files, a sentence each.
pub fn faults(config: &Config, looker: Looker) -> Vec<String> {
    let confinement = looker.confinement();
    let tokens = config.tokens.iter();
    let tokens = tokens.filter_map(|token| fault_of_token(&token.kind, looker));
    let programs = faults_of_programs(config);
    let pins = config.pins().filter_map(|pin| {
        if let (Looker::Command(viewpoint), Some(name)) = (looker, is_passed_by_systemd(pin)) {
            return match viewpoint.credential(name) {
                Credential::Fault(fault) => Some(fault),
                Credential::Good | Credential::Unseen(_) => None,
            };
        }
        pin.check().err().map(|error| error.to_string())
    });
    let keys = config.identities.iter().filter_map(|identity| {
        let file = identity.key.file()?;
        let error = access(file, Access::READ_OK).err()?;
        let (name, file) = (&identity.name, file.display());
        Some(format!(
            "identity {name:?}: cannot read the key {file}: {error}"
        ))
    });
    let certificates = config.identities.iter().filter_map(|identity| {
        let source = &identity.certificate;
        let error = check_certificate(source).err()?;
        if confinement.is_some() && awaits_renewal(identity) {
            return None;
        }
        let closed = |own: &dyn Confinement| source.files().find_map(|file| own.objection(file));
        let objection = confinement.and_then(closed);
        let objection = objection.map_or(String::new(), |objection| format!("; {objection}"));
        Some(format!("identity {:?}: {error}{objection}", identity.name))
    });
    let clear_keys = config.identities.iter().filter_map(|identity| {
        let file = clear_key(&identity.certificate)?;
        Some(format!(
            "identity {:?}: {}: there is a private key in clear beside the certificate: remove it, and have a key \
             on the token certified",
            identity.name,
            file.display()
        ))
    });
    let renewals = config.identities.iter().filter_map(|identity| {
        let error = check_renewal(identity, confinement).err()?;
        Some(format!("identity {:?}: renew: {error}", identity.name))
    });
    let all = tokens
        .chain(programs)
        .chain(pins)
        .chain(keys)
        .chain(certificates)
        .chain(clear_keys)
        .chain(renewals);
    all.collect()
}

/// Of the token programs beside this one. One that is not there is told of when it is started.
fn faults_of_programs(config: &Config) -> impl Iterator<Item = String> {
    let kinds = config.tokens.iter().map(|token| match token.kind {
        TokenKind::Pkcs11(_) => Program::Pkcs11,
        TokenKind::Tpm(_) => Program::Tpm,
    });
    let names: BTreeSet<_> = kinds.map(Program::file_name).collect();
    let own = std::env::current_exe().unwrap_or_default();
    names.into_iter().filter_map(move |name| {
        let path = own.with_file_name(name);
        match trust::check(&path) {
            Ok(()) | Err(Untrusted::Io { .. }) => None,
            Err(untrusted) => Some(format!(
                "cannot start {}: {}",
                path.display(),
                untrusted.explain()
            )),
        }
    })
}

/// Of what a token is reached by, as far as the modes of files tell.
fn fault_of_token(token: &TokenKind, looker: Looker) -> Option<String> {
    match token {
        TokenKind::Pkcs11(token) => {
            let module = token.module.as_path();
            let unreadable = module
                .is_absolute()
                .then(|| access(module, Access::READ_OK));
            if let Some(Err(error)) = unreadable {
                return Some(format!(
                    "cannot read the PKCS#11 module {}: {error}",
                    module.display()
                ));
            }
            if module.is_absolute()
                && let Err(untrusted) = trust::check(module)
            {
                return Some(format!(
                    "cannot load PKCS#11 module {}: {}",
                    module.display(),
                    untrusted.explain()
                ));
            }
            match looker {
                Looker::Command(viewpoint) if softhsm::is_module(module) => {
                    viewpoint.softhsm_obstacle()
                }
                Looker::Command(_) | Looker::Agent(_) => None,
            }
        }
        TokenKind::Tpm(Tcti::Device(device)) => match looker {
            Looker::Command(_) => fault_of_device(device),
            Looker::Agent(_) => None, // which asks no user database for the group's name
        },
        TokenKind::Tpm(_) => None,
    }
}

/// One that is not there may come later.
fn fault_of_device(device: &Path) -> Option<String> {
    match tpm_device::obstacle(device)? {
        Obstacle::Closed(text) => Some(text),
        Obstacle::Missing(_) => None,
    }
}

/// What is no fault, but may become one; and what could not be seen.
pub fn warnings(config: &Config, viewpoint: &Viewpoint) -> Vec<String> {
    let credentials = config.pins().filter_map(is_passed_by_systemd);
    let mut unseen: Vec<String> = credentials
        .filter_map(|name| match viewpoint.credential(name) {
            Credential::Unseen(why) => Some(why),
            Credential::Good | Credential::Fault(_) => None,
        })
        .collect();
    unseen.dedup();

    let renewed = config.identities.iter().filter_map(|identity| {
        let settings = identity.renewal.as_ref()?;
        let path = identity.certificate.files().next()?;
        let objection = renewal::objection_to_writing(path);
        let all = objection.into_iter().chain(renewal::doubt(settings));
        Some(all.map(|warning| format!("identity {:?}: {warning}", identity.name)))
    });
    let all = unseen.into_iter().chain(renewed.flatten());
    all.chain(config.warnings()).collect()
}

/// The certificate request. A confined agent need not be able to read it.
fn check_renewal(
    identity: &IdentityConfig,
    confinement: Option<&dyn Confinement>,
) -> Result<(), String> {
    let Some(settings) = &identity.renewal else {
        return Ok(());
    };
    command::check(&settings.command)
        .map_err(|untrusted| format!("the command is not run: {}", untrusted.explain()))?;
    let csr = settings.csr.as_path();
    if confinement.is_some_and(|own| own.objection(csr).is_some()) {
        return Ok(());
    }
    RenewalInput::read(&identity.certificate, settings).map(drop)
}

/// Whether a running agent has the certificate renewed, which is expired or gone and nothing else.
fn awaits_renewal(identity: &IdentityConfig) -> bool {
    let Some(settings) = &identity.renewal else {
        return false;
    };
    match RenewalInput::read(&identity.certificate, settings).map(|present| present.certificate) {
        Ok(Some(certificate)) => certificate.not_after < Timestamp::now(),
        Ok(None) => true,
        Err(_) => false,
    }
}

/// The certificate file in which a private key is that opens for everybody.
fn clear_key(source: &CertificateSource) -> Option<&Path> {
    let mut files = source.files();
    files.find(|file| certificate::holds_clear_key(file))
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
