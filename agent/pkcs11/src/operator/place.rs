//! Where a task is done: a token, logged in to once for as long as the link lasts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use cryptoki_sys::CK_SLOT_ID;
use token::operator::pkcs11::KeyReport;
use token::{PinSource, Pkcs11Uri, TokenError, TokenMatch};

use super::report::Reporter;
use crate::error::Failure;
use crate::login::{ContextLogin, UntriedPin, log_in_with, operators_pin};
use crate::raw::{Module, Session};
use crate::slot::{self, Hidden, Slots, Token};
use crate::softhsm_store::jittered;
use crate::{find, module};

/// Every module and token that the link has had to do with.
#[derive(Default)]
pub(super) struct Places {
    modules: BTreeMap<PathBuf, Arc<Module>>,
    logins: BTreeMap<PlaceKey, Result<LoggedIn, TokenError>>,
    pins: BTreeMap<PlaceKey, Option<UntriedPin>>,
}

/// A failure, and how long after the first try it is worth another one.
struct Miss {
    error: TokenError,
    limit: Duration,
}

impl Miss {
    /// What was wanted is not among these.
    fn of(all: &Slots, error: TokenError) -> Miss {
        let limit = match (&error, &all.hidden) {
            (TokenError::Gone(_), Hidden::Tokens { .. }) => LOOK_LIMIT,
            (TokenError::Gone(_), Hidden::Unknown) => UNTOLD_LIMIT,
            _ => Duration::ZERO,
        };
        Miss { error, limit }
    }

    /// Another process has the token; no PIN was tried.
    fn meanwhile(error: TokenError) -> Miss {
        let limit = LOOK_LIMIT;
        Miss { error, limit }
    }
}

impl From<Miss> for TokenError {
    fn from(miss: Miss) -> TokenError {
        miss.error
    }
}

impl From<TokenError> for Miss {
    fn from(error: TokenError) -> Miss {
        let limit = Duration::ZERO;
        Miss { error, limit }
    }
}

/// A token, with a session on it.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) module: Arc<Module>,
    pub(super) token: Token,
    /// The least that names the token.
    pub(super) name: TokenMatch,
    /// Open for as long as the link, since the login ends with the token's last session.
    pub(super) session: Arc<Session>,
    /// `None` where the token needs no login.
    pub(super) context_login: Option<Arc<ContextLogin>>,
}

/// How long a token of SoftHSM's is looked for that another process hides. Within what a command waits for an answer.
const LOOK_LIMIT: Duration = Duration::from_secs(20);

/// How long it is looked for where nothing tells whether one is hidden: SoftHSM is in another process.
const UNTOLD_LIMIT: Duration = Duration::from_millis(600);

/// The longest pause between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// The session of a login, and how to log in for single signatures.
type LoggedIn = (Arc<Session>, Option<Arc<ContextLogin>>);

impl Places {
    /// The token of this key, logged in to.
    pub(super) fn at(
        &mut self,
        module: &Path,
        key: &Pkcs11Uri,
        pin: Option<&PinSource>,
    ) -> Result<Place, TokenError> {
        self.persist(module, |places| {
            let all = slot::all(&*places.started(module)?)?;
            let token = all.find(&key.token);
            let token = token.map_err(|error| Miss::of(&all, error))?;
            places.enter_now(module, &token, &all, pin)
        })
    }

    /// What is in the module's slots; of SoftHSM's, when the token that is wanted is there, or it was looked for long
    /// enough.
    pub(super) fn slots(&mut self, path: &Path, wanted: &TokenMatch) -> Result<Slots, TokenError> {
        let mut last = None;
        let found = self.persist(path, |places| {
            let all = slot::all(&*places.started(path)?)?;
            let found = all.find(wanted).map_err(|error| Miss::of(&all, error));
            last = Some(all);
            found
        });
        match (last, found) {
            (Some(all), _) => Ok(all),
            (None, Err(error)) => Err(error),
            (None, Ok(_)) => slot::all(&*self.started(path)?),
        }
    }

    /// Tries it until it succeeds or its failure is no longer worth another try. A module that is started anew sees what
    /// is new.
    fn persist<T>(
        &mut self,
        path: &Path,
        mut attempt: impl FnMut(&mut Places) -> Result<T, Miss>,
    ) -> Result<T, TokenError> {
        let start = Instant::now();
        loop {
            let miss = match attempt(self) {
                Ok(found) => return Ok(found),
                Err(miss) => miss,
            };
            if start.elapsed() >= miss.limit {
                return Err(miss.error);
            }
            thread::sleep(jittered(LOOK_PAUSE));
            if !self.logins.keys().any(|(module, ..)| module == path) {
                self.modules.remove(path);
            }
        }
    }

    /// The module, which stays started.
    pub(super) fn started(&mut self, path: &Path) -> Result<Arc<Module>, TokenError> {
        if let Some(module) = self.modules.get(path) {
            return Ok(Arc::clone(module));
        }
        let module = module::start(path, &mut None)?;
        self.modules.insert(path.to_owned(), Arc::clone(&module));
        Ok(module)
    }

    /// This token of `all`, logged in to: now, if it was not before. A refusal is remembered, and the PIN not
    /// tried again.
    pub(super) fn enter(
        &mut self,
        module: &Path,
        token: &Token,
        all: &Slots,
        pin: Option<&PinSource>,
    ) -> Result<Place, TokenError> {
        Ok(self.enter_now(module, token, all, pin)?)
    }

    fn enter_now(
        &mut self,
        module: &Path,
        token: &Token,
        all: &Slots,
        pin: Option<&PinSource>,
    ) -> Result<Place, Miss> {
        let started = self.started(module)?;
        let place = place_of(module, token);
        if !self.logins.contains_key(&place) {
            match self.first_login(&started, &place, token, pin) {
                Ok(login) => self.logins.insert(place.clone(), Ok(login)),
                Err(miss) if matches!(miss.error, TokenError::PinRejected(_)) => {
                    self.logins.insert(place.clone(), Err(miss.error))
                }
                Err(miss) => return Err(miss), // no PIN has been used
            };
        }
        let (session, context_login) = match self.logins.get(&place) {
            Some(login) => login.clone()?,
            None => return Err(TokenError::Broken(format!("{token} has no login")).into()),
        };
        Ok(Place {
            module: started,
            token: token.clone(),
            name: token.shortest(&all.tokens),
            session,
            context_login,
        })
    }

    /// The PIN is read once, however often a login is tried that does not come to it.
    fn first_login(
        &mut self,
        module: &Arc<Module>,
        place: &PlaceKey,
        token: &Token,
        pin: Option<&PinSource>,
    ) -> Result<LoggedIn, Miss> {
        let untried = match self.pins.get(place) {
            Some(untried) => untried.clone(),
            None => {
                let untried = operators_pin(token, pin)?;
                self.pins.insert(place.clone(), untried.clone());
                untried
            }
        };
        let session = open_session(module, token);
        let session = session.map_err(|error| match (&error, token.is_softhsm()) {
            (TokenError::Gone(_), true) => Miss::meanwhile(error),
            _ => Miss::from(error),
        })?;
        let login = log_in_with(&session, token, untried);
        let login = login.map_err(|no_login| match no_login.is_meanwhile {
            true => Miss::meanwhile(no_login.error),
            false => Miss::from(no_login.error),
        })?;
        Ok((Arc::new(session), login.context.map(Arc::new)))
    }

    /// Whether the link is logged in to it, or was refused.
    pub(super) fn has_tried(&self, module: &Path, token: &Token) -> bool {
        self.logins.contains_key(&place_of(module, token))
    }
}

type PlaceKey = (PathBuf, CK_SLOT_ID, String);

fn place_of(module: &Path, token: &Token) -> PlaceKey {
    (module.to_owned(), token.slot, token.identity())
}

/// A session of its own.
pub(super) fn open_session(module: &Arc<Module>, token: &Token) -> Result<Session, TokenError> {
    module
        .open_session(token.slot)
        .map_err(|failure| failure.while_doing(format_args!("cannot open a session on {token}")))
}

impl Place {
    /// A session in which objects can be made and destroyed.
    pub(super) fn writing_session(&self) -> Result<Session, TokenError> {
        let Place { module, token, .. } = self;
        module.open_writing_session(token.slot).map_err(|failure| {
            failure.while_doing(format_args!("cannot open a session to write on {token}"))
        })
    }

    /// What there is to say of the one private key that the URI names.
    pub(super) fn report(&self, key: &Pkcs11Uri) -> Result<KeyReport, TokenError> {
        let handle = find::private_key(&self.session, key)?;
        let failed = |failure: Failure| failure.while_doing(format_args!("cannot read {key}"));
        self.reporter().private_key(handle).map_err(failed)
    }

    /// Tells of this token's objects.
    pub(super) fn reporter(&self) -> Reporter<'_> {
        Reporter {
            session: &self.session,
            others: self.session.as_ref(),
            token: &self.name,
        }
    }
}
