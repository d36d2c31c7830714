//! The identities that the agent serves: which one a caller means, what it can do, and its signature.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rolesanywhere::Endpoint;
use token::link::{Open, OpenKey, OpenPkcs11, OpenTpm};
use token::{Pkcs11Uri, Signature, StringToSign, Tcti, TokenError};
use wire::{Refusal, State};

use crate::certificate::{Certificate, CertificateSource, LeafSource, Stamp};
use crate::config::{
    Config, IdentityConfig, KeyConfig, Limits, Pkcs11Config, TokenConfig, TokenKind,
};
use crate::keeper::{self, Caller, Heritage, Keeper, KeyOwner, KeyState, NotSigned, RefusedPins};
use crate::launcher::TokenPrograms;
use crate::peer::Peer;
use crate::policy::Policy;
use crate::renewal::Schedule;

/// All identities of one configuration, and the keepers of their tokens.
#[derive(Debug)]
pub struct Identities {
    /// What callers may take of the agent.
    pub limits: Limits,
    refused_pins: RefusedPins,
    identities: Vec<Identity>,
    keepers: Vec<Token>,
}

/// So many identities are named to a caller who has to choose one: they fit into a message.
const SHOWN: usize = 100;

/// A token, and what it was opened for.
#[derive(Debug)]
struct Token {
    keeper: Arc<Keeper>,
    /// Of the files of its keys, when they were opened.
    key_files: Stamp,
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
    certificate: CertificateSource,
    renewal: Option<Arc<Schedule>>,
    key_uri: String,
    keeper: Arc<Keeper>,
    /// Its key's number with the keeper.
    key: usize,
}

impl Identities {
    /// Starts to open the tokens of the configuration, with these token programs. What is the same as with
    /// `previous` is kept open.
    pub fn start(
        config: Config,
        programs: &TokenPrograms,
        previous: Option<&Identities>,
    ) -> std::io::Result<Identities> {
        let mut places: Vec<Option<(Arc<Keeper>, usize)>> = vec![None; config.identities.len()];
        let mut keepers = Vec::new();
        let refused_pins = previous.map_or_else(RefusedPins::default, |previous| {
            previous.refused_pins.clone()
        });
        for token in &config.tokens {
            let token_now =
                keep_or_start(token, &config.identities, programs, previous, &refused_pins)?;
            for (key, identity) in token.identities.iter().enumerate() {
                if let Some(place) = places.get_mut(*identity) {
                    *place = Some((Arc::clone(&token_now.keeper), key));
                }
            }
            keepers.push(token_now);
        }
        let identities = config
            .identities
            .into_iter()
            .zip(places)
            .filter_map(|(config, place)| {
                let (keeper, key) = place?;
                let renewal = keep_or_plan(&config, previous);
                Some(Identity {
                    renewal,
                    name: config.name,
                    endpoints: config.endpoints,
                    policy: config.policy,
                    certificate: config.certificate,
                    key_uri: config.key.to_string(),
                    keeper,
                    key,
                })
            })
            .collect();
        Ok(Identities {
            limits: config.limits,
            refused_pins,
            identities,
            keepers,
        })
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Identity> {
        self.identities.iter()
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
                let names: Vec<String> = several
                    .iter()
                    .take(SHOWN)
                    .map(|one| one.name.clone())
                    .collect();
                let more = if several.len() > SHOWN {
                    " and more"
                } else {
                    ""
                };
                Err(Refusal::IdentityAmbiguous {
                    message: format!("name one identity of {}{more}", names.join(", ")),
                    identities: names,
                })
            }
        }
    }

    /// What the caller may see: what it may use; everything for root and the agent's own user.
    pub fn shown_to(&self, peer: &Peer) -> impl Iterator<Item = &Identity> {
        self.iter()
            .filter(|identity| identity.policy.shows_to(peer))
    }

    /// The keepers of their tokens.
    pub fn keepers(&self) -> impl Iterator<Item = &Keeper> {
        self.keepers.iter().map(|token| token.keeper.as_ref())
    }

    /// Closes all tokens.
    pub fn close(&self, deadline: Instant) {
        for token in &self.keepers {
            token.keeper.close();
        }
        for token in &self.keepers {
            token.keeper.end().wait(deadline);
        }
    }
}

/// When the certificate is renewed. How that went stays known across a reload.
fn keep_or_plan(config: &IdentityConfig, previous: Option<&Identities>) -> Option<Arc<Schedule>> {
    let (settings, source) = (config.renewal.clone()?, config.certificate.clone());
    let named = |identity: &&Identity| identity.name == config.name;
    let before = previous.and_then(|previous| previous.iter().find(named)?.renewal.clone());
    match before {
        Some(schedule) => {
            schedule.reset(settings, source);
            Some(schedule)
        }
        None => Some(Arc::new(Schedule::new(settings, source))),
    }
}

/// The token's keeper: the one of before, if it has the same keys of the same token open, or a new one.
fn keep_or_start(
    token: &TokenConfig,
    identities: &[IdentityConfig],
    programs: &TokenPrograms,
    previous: Option<&Identities>,
    refused_pins: &RefusedPins,
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
    let before = previous.map_or(&[][..], |previous| &previous.keepers);
    let same = |token: &&Token| *token.keeper.open() == open && token.key_files == key_files;
    if let Some(Token { keeper, .. }) = before.iter().find(same) {
        keeper.set_owners(owners);
        keeper.retry();
        let keeper = Arc::clone(keeper);
        return Ok(Token { keeper, key_files });
    }
    let heritage = Heritage {
        ends: before
            .iter()
            .filter(|token| token.keeper.open().may_be_the_token_of(&open))
            .map(|token| token.keeper.end())
            .collect(),
        refused_pins: refused_pins.clone(),
    };
    let keeper = Arc::new(Keeper::start(programs.clone(), open, owners, heritage)?);
    Ok(Token { keeper, key_files })
}

fn open_pkcs11<'a>(
    token: &Pkcs11Config,
    identities: impl Iterator<Item = &'a IdentityConfig>,
) -> Open {
    let key = |config: &IdentityConfig| match &config.key {
        KeyConfig::Pkcs11(uri) => Some(OpenKey {
            uri: uri.clone(),
            certificate: match &config.certificate.leaf {
                LeafSource::File(_) => None,
                LeafSource::Token(which) => Some(which.clone()),
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

/// Why a new certificate is not taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotTaken {
    /// It is not fit to be this identity's.
    Unfit(String),
    /// That cannot be told now, or it is not valid yet.
    NotNow,
}

impl Identity {
    /// Where its certificate comes from.
    pub fn certificate_source(&self) -> &CertificateSource {
        &self.certificate
    }

    /// Takes over what was read from its certificate's files, if it is another certificate and a signature
    /// of the key proves it. `replaced`: the files have changed since an opening of the token failed.
    pub fn take(
        &self,
        read: Result<Certificate, String>,
        replaced: bool,
        deadline: Instant,
    ) -> Result<Option<Arc<Certificate>>, NotTaken> {
        let old = match self.keeper.state(self.key) {
            KeyState::Ready { certificate, .. } => certificate,
            // The certificate may be what was wrong. The keeper reads it itself.
            KeyState::Failed {
                error: TokenError::Unusable(_),
                ..
            } => {
                if replaced && read.is_ok() {
                    self.keeper.retry();
                }
                return Ok(None);
            }
            _ => return Err(NotTaken::NotNow),
        };
        let new = read.map_err(NotTaken::Unfit)?;
        if new.is_same(&old) {
            return Ok(None);
        }
        let now = Timestamp::now();
        if now < new.not_before {
            return Err(NotTaken::NotNow);
        }
        new.check_validity(now)
            .map_err(|error| NotTaken::Unfit(error.to_string()))?;
        let text = keeper::proof(&new).map_err(NotTaken::Unfit)?;
        let caller = Caller::user(self.policy.own_uid);
        let signature = match self.keeper.sign(self.key, &text, caller, deadline) {
            Ok(signature) => signature,
            Err(NotSigned::Token(TokenError::Broken(error) | TokenError::Unusable(error))) => {
                return Err(NotTaken::Unfit(error));
            }
            Err(_) => return Err(NotTaken::NotNow),
        };
        keeper::check_proof(&new, &text, &signature).map_err(NotTaken::Unfit)?;
        let new = Arc::new(new);
        match self.keeper.replace_certificate(self.key, &old, &new) {
            true => Ok(Some(new)),
            false => Err(NotTaken::NotNow),
        }
    }

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

    /// As `GetCertificate` shows it: base64 of DER, the leaf first. Without a token, what its files say is the
    /// next best: who asks wants to know what is wrong.
    pub fn shown_certificate(
        &self,
        peer: &Peer,
        deadline: Instant,
    ) -> Result<Vec<String>, Refusal> {
        if !self.policy.shows_to(peer) {
            return Err(Refusal::NotPermitted {
                rule: wire::Rule::Caller,
                message: format!(
                    "identity {:?} may not be used by user {}: an [[identity.allow]] rule of the \
                     agent's configuration has to name it",
                    self.name, peer.uid
                ),
            });
        }
        if let Some(certificate) = self.keeper.state(self.key).certificate() {
            return Ok(certificate.chain());
        }
        if let Some(read) = self.certificate.load_files() {
            return match read {
                Ok(certificate) => Ok(certificate.chain()),
                Err(fault) => Err(self.unusable(&fault)),
            };
        }
        match self.keeper.settled_state(self.key, deadline) {
            KeyState::Ready { certificate, .. } => Ok(certificate.chain()),
            KeyState::Failed { error, retry_at } => Err(self.refusal(error, retry_at)),
            KeyState::Opening => Err(self.late("its token is still being opened")),
        }
    }

    /// The key's signature over `text`, verified with the certificate; and how long the token took.
    pub fn sign(
        &self,
        text: &StringToSign,
        certificate: &Arc<Certificate>,
        caller: Caller,
        deadline: Instant,
        token_time: &mut Option<Duration>,
    ) -> Result<Signature, Refusal> {
        let asked = Instant::now();
        let signed = self.keeper.sign(self.key, text, caller, deadline);
        *token_time = Some(asked.elapsed());
        let signature = match signed {
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

    /// The keeper of its token.
    pub fn keeper(&self) -> &Keeper {
        &self.keeper
    }

    /// When its certificate is renewed, if the agent sees to that.
    pub fn renewal(&self) -> Option<&Arc<Schedule>> {
        self.renewal.as_ref()
    }

    /// When its certificate expires, if it has one.
    pub fn expiry(&self) -> Option<Timestamp> {
        let state = self.keeper.state(self.key);
        state.certificate().map(|certificate| certificate.not_after)
    }

    /// As `ListIdentities` shows it, but for what was counted.
    pub fn describe(&self, now: Timestamp) -> wire::Identity {
        let state = self.keeper.state(self.key);
        let certificate = state.certificate().cloned();
        let (state, message, mut warnings) = match state {
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
        let renewal = self.renewal.as_ref();
        warnings.extend(
            renewal
                .map(|schedule| schedule.warnings())
                .unwrap_or_default(),
        );
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
            signatures: None,
            last_signed: None,
        }
    }
}

/// Rounded up, so that whoever waits that long is not early.
fn seconds_until(time: Instant) -> u64 {
    let left = time.saturating_duration_since(Instant::now());
    left.as_secs() + u64::from(left.subsec_nanos() > 0)
}
