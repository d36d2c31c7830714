//! The tokens of a configuration are opened, and those of the one before kept open where they are the same.

use std::sync::Arc;

use token::link::{Open, OpenKey, OpenPkcs11, OpenTpm};
use token::{PinSource, Pkcs11Token, Tcti};

use super::{Identities, Identity, Token};
use crate::launcher::TokenPrograms;
use crate::policy::Policy;
use crate::renewal_view::RenewalView;
use crate::token_worker::{KeyOwner, PinTries, Predecessors, TokenWorker};
use config::certificate::{LeafSource, Stamp};
use config::{Config, IdentityConfig, KeyConfig, TokenConfig, TokenKind};

/// Where an identity's key is.
#[derive(Debug, Clone)]
struct Place {
    worker: Arc<TokenWorker>,
    /// Its number with the worker.
    key: usize,
    pin_source: Option<wire::PinSource>,
}

impl Identities {
    /// Starts to open the tokens of the configuration, with these token programs. What is the same as with
    /// `previous` is kept open.
    pub fn start(
        config: Config,
        programs: &TokenPrograms,
        pin_tries: &PinTries,
        previous: Option<&Identities>,
    ) -> std::io::Result<Identities> {
        let mut places: Vec<Option<Place>> = vec![None; config.identities.len()];
        let mut workers = Vec::new();
        for token in &config.tokens {
            let token_now =
                keep_or_start(token, &config.identities, programs, previous, pin_tries)?;
            for (key, identity) in token.identities.iter().enumerate() {
                if let Some(place) = places.get_mut(*identity) {
                    *place = Some(Place {
                        worker: Arc::clone(&token_now.worker),
                        key,
                        pin_source: pin_source(config.pins_of(token, *identity)),
                    });
                }
            }
            workers.push(token_now);
        }
        let identities = config
            .identities
            .into_iter()
            .zip(places)
            .filter_map(|(config, place)| {
                let Place {
                    worker,
                    key,
                    pin_source,
                } = place?;
                let source = config.certificate.clone();
                let renewal = config
                    .renewal
                    .map(|settings| RenewalView::new(settings, source));
                Some(Identity {
                    renewal,
                    name: config.name,
                    endpoints: config.endpoints,
                    policy: Policy::new(config.rules),
                    certificate: config.certificate,
                    key_uri: config.key.to_string(),
                    pin_source,
                    worker,
                    key,
                })
            })
            .collect();
        Ok(Identities {
            limits: config.limits,
            identities,
            workers,
        })
    }
}

/// As clients are told: of several, the one that takes the most to correct.
fn pin_source<'c>(sources: impl Iterator<Item = &'c PinSource>) -> Option<wire::PinSource> {
    let source = sources.max_by_key(|source| source.take_over())?;
    Some(match source {
        PinSource::Credential(_) => wire::PinSource::Credential,
        PinSource::Value(_) => wire::PinSource::Uri,
        PinSource::File(_) | PinSource::Terminal(_) | PinSource::AskPassword(_) => {
            wire::PinSource::File
        }
    })
}

/// The token's worker: the one of before, if it has the same keys of the same token open, or a new one.
fn keep_or_start(
    token: &TokenConfig,
    identities: &[IdentityConfig],
    programs: &TokenPrograms,
    previous: Option<&Identities>,
    pin_tries: &PinTries,
) -> std::io::Result<Token> {
    let configs = || token.identities.iter().filter_map(|at| identities.get(*at));
    let open = match &token.kind {
        TokenKind::Pkcs11(token) => open_pkcs11(token, configs()),
        TokenKind::Tpm(tcti) => open_tpm(tcti, configs()),
    };
    let key_files = Stamp::of(configs().filter_map(|config| config.key.file()));
    let owners = configs()
        .map(|config| KeyOwner {
            identity: config.name.clone(),
            certificate: config.certificate.clone(),
        })
        .collect();
    let before = previous.map_or(&[][..], |previous| &previous.workers);
    let same = |token: &&Token| *token.worker.open() == open && token.key_files == key_files;
    if let Some(Token { worker, .. }) = before.iter().find(same) {
        worker.set_owners(owners);
        worker.retry();
        let worker = Arc::clone(worker);
        return Ok(Token { worker, key_files });
    }
    let heritage = Predecessors {
        ends: before
            .iter()
            .filter(|token| token.worker.open().may_be_the_token_of(&open))
            .map(|token| token.worker.end())
            .collect(),
        pin_tries: pin_tries.clone(),
    };
    let worker = Arc::new(TokenWorker::start(
        programs.clone(),
        open,
        owners,
        heritage,
    )?);
    Ok(Token { worker, key_files })
}

fn open_pkcs11<'a>(
    token: &Pkcs11Token,
    identities: impl Iterator<Item = &'a IdentityConfig>,
) -> Open {
    let key = |config: &IdentityConfig| match &config.key {
        KeyConfig::Pkcs11(uri) => Some(OpenKey {
            uri: uri.clone(),
            certificate: match &config.certificate.leaf {
                LeafSource::File(_) => None,
                LeafSource::Token(which) => Some(which.clone()),
            },
            public_key: None, // its worker reads the file when it opens the token
        }),
        KeyConfig::Tpm(_) => None,
    };
    Open::Pkcs11(Box::new(OpenPkcs11 {
        token: token.clone(),
        keys: identities.filter_map(key).collect(),
    }))
}

fn open_tpm<'a>(tcti: &Tcti, identities: impl Iterator<Item = &'a IdentityConfig>) -> Open {
    let key = |config: &IdentityConfig| config.key.of_tpm().cloned();
    Open::Tpm(OpenTpm {
        tcti: tcti.clone(),
        keys: identities.map(key).collect(),
        left_sessions: Vec::new(),
    })
}
