//! The identities that the agent serves: which one a caller means, what it can do, and its signature.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use rolesanywhere::Endpoint;
use token::link::{Open, OpenKey, OpenPkcs11, OpenTpm};
use token::{Pkcs11Uri, Signature, StringToSign, Tcti, TokenError};
use wire::{Refusal, State};

use crate::certificate::{self, Certificate};
use crate::config::{
    CertificateSource, Config, IdentityConfig, KeyConfig, Pkcs11Config, TokenConfig, TokenKind,
};
use crate::keeper::{Keeper, KeyOwner, KeyState, NotSigned};
use crate::launcher::TokenPrograms;
use crate::peer::Peer;
use crate::policy::Policy;
use crate::sandbox::Sandbox;

/// All identities, and the keepers of their tokens.
#[derive(Debug)]
pub struct Identities {
    identities: Vec<Identity>,
    keepers: Vec<Arc<Keeper>>,
}

/// One identity.
#[derive(Debug)]
pub struct Identity {
    /// Its name in the configuration.
    pub name: String,
    /// What may be called beside AWS's own endpoints.
    pub endpoints: Vec<Endpoint>,
    /// Who may use it, and for what.
    pub policy: Policy,
    key_uri: String,
    keeper: Arc<Keeper>,
    /// Its key's number with the keeper.
    key: usize,
}

impl Identities {
    /// Starts to open the tokens of the configuration, with these token programs. What `sandbox` keeps
    /// from being read is explained.
    pub fn start(
        config: Config,
        programs: &TokenPrograms,
        sandbox: &Arc<Sandbox>,
    ) -> std::io::Result<Identities> {
        let mut places: Vec<Option<(Arc<Keeper>, usize)>> = vec![None; config.identities.len()];
        let mut keepers = Vec::new();
        for token in &config.tokens {
            let keeper = Arc::new(start_keeper(token, &config.identities, programs, sandbox)?);
            for (key, identity) in token.identities.iter().enumerate() {
                if let Some(place) = places.get_mut(*identity) {
                    *place = Some((Arc::clone(&keeper), key));
                }
            }
            keepers.push(keeper);
        }
        let identities = config
            .identities
            .into_iter()
            .zip(places)
            .filter_map(|(config, place)| {
                let (keeper, key) = place?;
                Some(Identity {
                    name: config.name,
                    endpoints: config.endpoints,
                    policy: config.policy,
                    key_uri: config.key.to_string(),
                    keeper,
                    key,
                })
            })
            .collect();
        Ok(Identities {
            identities,
            keepers,
        })
    }

    /// The identity of that name; without one, the only one that the caller may use.
    pub fn choose(&self, name: Option<&str>, peer: &Peer) -> Result<&Identity, Refusal> {
        match name {
            Some(name) => self.named(name),
            None => self.only_one_for(peer),
        }
    }

    fn named(&self, name: &str) -> Result<&Identity, Refusal> {
        self.identities
            .iter()
            .find(|identity| identity.name == name)
            .ok_or_else(|| {
                let name: String = name.chars().take(64).collect();
                Refusal::IdentityNotFound {
                    message: format!(
                        "the agent has no identity {name:?}: `roleseal identities` shows those it has"
                    ),
                    identity: name,
                }
            })
    }

    fn only_one_for(&self, peer: &Peer) -> Result<&Identity, Refusal> {
        let usable: Vec<&Identity> = self
            .identities
            .iter()
            .filter(|identity| identity.policy.knows(peer))
            .collect();
        match usable.as_slice() {
            [one] => Ok(one),
            [] => Err(Refusal::NotPermitted {
                rule: wire::Rule::Caller,
                message: format!(
                    "no identity may be used by user {}: an [[identity.allow]] rule of the agent's \
                     configuration has to name it",
                    peer.uid
                ),
            }),
            several => {
                let names: Vec<String> = several.iter().map(|one| one.name.clone()).collect();
                Err(Refusal::IdentityAmbiguous {
                    message: format!("name one identity of {}", names.join(", ")),
                    identities: names,
                })
            }
        }
    }

    /// What the caller may see: what it may use; everything for root and the agent's own user.
    pub fn list(&self, peer: &Peer, now: Timestamp) -> Vec<wire::Identity> {
        let operator = |policy: &Policy| peer.uid == 0 || peer.uid == policy.own_uid;
        self.identities
            .iter()
            .filter(|identity| operator(&identity.policy) || identity.policy.knows(peer))
            .map(|identity| identity.describe(now))
            .collect()
    }

    /// Closes all tokens.
    pub fn close(&self, deadline: Instant) {
        for keeper in &self.keepers {
            keeper.close();
        }
        for keeper in &self.keepers {
            keeper.wait_closed(deadline);
        }
    }
}

fn start_keeper(
    token: &TokenConfig,
    identities: &[IdentityConfig],
    programs: &TokenPrograms,
    sandbox: &Arc<Sandbox>,
) -> std::io::Result<Keeper> {
    let configs = || token.identities.iter().filter_map(|at| identities.get(*at));
    let open = match &token.kind {
        TokenKind::Pkcs11(token) => open_pkcs11(token, configs()),
        TokenKind::Tpm(tcti) => open_tpm(tcti, configs()),
    };
    let owners = configs()
        .map(|config| {
            let (source, chain) = (config.certificate.clone(), config.chain.clone());
            let sandbox = Arc::clone(sandbox);
            KeyOwner {
                identity: config.name.clone(),
                certify: Box::new(move |on_token| {
                    load_certificate(&source, chain.as_ref(), on_token)
                        .map_err(|error| sandbox.explain(error, source.file().chain(&chain)))
                }),
            }
        })
        .collect();
    Keeper::start(programs.clone(), open, owners)
}

fn open_pkcs11<'a>(
    token: &Pkcs11Config,
    identities: impl Iterator<Item = &'a IdentityConfig>,
) -> Open {
    let key = |config: &IdentityConfig| match &config.key {
        KeyConfig::Pkcs11(uri) => Some(OpenKey {
            uri: uri.clone(),
            certificate: match &config.certificate {
                CertificateSource::File(_) => None,
                CertificateSource::Token(which) => Some(which.clone()),
            },
        }),
        KeyConfig::Tpm(_) => None,
    };
    Open::Pkcs11(Box::new(OpenPkcs11 {
        module: token.module.clone(),
        token: Pkcs11Uri {
            token: token.token.clone(),
            ..Pkcs11Uri::default()
        },
        pin: token.pin.clone(),
        sessions: token.sessions,
        keys: identities.filter_map(key).collect(),
    }))
}

fn open_tpm<'a>(tcti: &Tcti, identities: impl Iterator<Item = &'a IdentityConfig>) -> Open {
    let key = |config: &IdentityConfig| match &config.key {
        KeyConfig::Tpm(key) => Some(key.clone()),
        KeyConfig::Pkcs11(_) => None,
    };
    Open::Tpm(OpenTpm {
        tcti: tcti.clone(),
        keys: identities.map(key).collect(),
    })
}

/// Leaf and chain, from where the configuration says.
pub fn load_certificate(
    source: &CertificateSource,
    chain: Option<&PathBuf>,
    on_token: Option<Vec<u8>>,
) -> Result<Certificate, String> {
    let read = |path: &PathBuf| {
        certificate::read_pem(path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let (mut ders, place) = match source {
        CertificateSource::File(path) => (read(path)?, path.display().to_string()),
        CertificateSource::Token(_) => (
            on_token.into_iter().collect(),
            "the certificate on the token".to_owned(),
        ),
    };
    if let Some(path) = chain {
        ders.extend(read(path)?);
    }
    Certificate::new(ders).map_err(|error| format!("{place}: {error}"))
}

impl Identity {
    /// Its certificate, once its token is open and while it can sign.
    pub fn certificate(
        &self,
        now: Timestamp,
        deadline: Instant,
    ) -> Result<Arc<Certificate>, Refusal> {
        let certificate = match self.keeper.settled_state(self.key, deadline) {
            KeyState::Ready { certificate, .. } => certificate,
            KeyState::Failed { error, retry_at } => return Err(self.refusal(error, retry_at)),
            KeyState::Opening => return Err(self.late("its token is still being opened")),
        };
        certificate
            .check_validity(now)
            .map_err(|error| self.unusable(&format!("its certificate: {error}")))?;
        Ok(certificate)
    }

    /// The key's signature over `text`, verified with the certificate.
    pub fn sign(
        &self,
        text: &StringToSign,
        certificate: &Arc<Certificate>,
        deadline: Instant,
    ) -> Result<Signature, Refusal> {
        let signature = match self.keeper.sign(self.key, text, deadline) {
            Ok(signature) => signature,
            Err(NotSigned::Token(error)) => {
                let retry_at = match self.keeper.state(self.key) {
                    KeyState::Failed { retry_at, .. } => retry_at,
                    _ => None,
                };
                return Err(self.refusal(error, retry_at));
            }
            Err(NotSigned::Late) => return Err(self.late("its token did not sign in time")),
            Err(NotSigned::Busy) => {
                return Err(Refusal::Busy {
                    message: format!(
                        "identity {:?}: too many requests wait for its token: try again later",
                        self.name
                    ),
                });
            }
        };
        if !certificate.verifies(&text.to_string(), &signature) {
            self.keeper.distrust(self.key, certificate);
            return Err(Refusal::SignatureInvalid {
                message: format!(
                    "identity {:?}: the token's signature does not verify with its certificate \
                     (serial {}); the token is opened again, so try again",
                    self.name, certificate.serial
                ),
            });
        }
        Ok(signature)
    }

    fn refusal(&self, error: TokenError, retry_at: Option<Instant>) -> Refusal {
        let name = &self.name;
        match error.shortened() {
            TokenError::Wait { text, seconds } => Refusal::TokenUnavailable {
                retry_after_seconds: Some(retry_at.map_or(seconds, seconds_until)),
                message: format!("identity {name:?}: {text}"),
            },
            TokenError::PinRejected(why) => Refusal::PinRejected {
                message: format!("identity {name:?}: {why}"),
            },
            TokenError::Unusable(why) => self.unusable(&why),
            TokenError::Gone(why) | TokenError::Hung(why) | TokenError::Broken(why) => {
                Refusal::TokenUnavailable {
                    retry_after_seconds: retry_at.map(seconds_until),
                    message: format!("identity {name:?}: {why}"),
                }
            }
        }
    }

    fn unusable(&self, why: &str) -> Refusal {
        Refusal::IdentityUnusable {
            identity: self.name.clone(),
            message: format!("identity {:?}: {why}", self.name),
        }
    }

    fn late(&self, why: &str) -> Refusal {
        Refusal::DeadlineExceeded {
            message: format!("identity {:?}: {why}: try again later", self.name),
        }
    }

    /// As `ListIdentities` shows it.
    fn describe(&self, now: Timestamp) -> wire::Identity {
        let state = self.keeper.state(self.key);
        let certificate = state.certificate().cloned();
        let (state, message, warnings) = match state {
            KeyState::Opening => (State::Opening, None, Vec::new()),
            KeyState::Ready {
                certificate,
                warnings,
            } => match certificate.check_validity(now) {
                Ok(()) => (State::Ready, None, warnings),
                Err(error) => (
                    State::Unusable,
                    Some(format!("its certificate: {error}")),
                    warnings,
                ),
            },
            KeyState::Failed { error, .. } => {
                let state = match error {
                    TokenError::PinRejected(_) => State::PinRejected,
                    TokenError::Unusable(_) => State::Unusable,
                    _ => State::Unavailable,
                };
                (state, Some(error.shortened().to_string()), Vec::new())
            }
        };
        let of = |field: fn(&Certificate) -> String| certificate.as_deref().map(field);
        wire::Identity {
            name: self.name.clone(),
            key_algorithm: of(|certificate| certificate.key_algorithm()),
            subject: of(|certificate| certificate.subject.clone()),
            issuer: of(|certificate| certificate.issuer.clone()),
            serial: of(|certificate| certificate.serial.clone()),
            not_before: of(|certificate| certificate.not_before.to_string()),
            not_after: of(|certificate| certificate.not_after.to_string()),
            key_uri: self.key_uri.clone(),
            state,
            message,
            warnings,
        }
    }
}

/// Rounded up, so that whoever waits that long is not early.
fn seconds_until(time: Instant) -> u64 {
    let left = time.saturating_duration_since(Instant::now());
    left.as_secs() + u64::from(left.subsec_nanos() > 0)
}
