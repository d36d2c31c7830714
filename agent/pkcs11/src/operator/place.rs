//! Where a task is done: a token, logged in to once for as long as the link lasts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use cryptoki_sys::CK_SLOT_ID;
use token::operator::pkcs11::KeyReport;
use token::{PinSource, Pkcs11Uri, TokenError, TokenMatch};

use super::report;
use crate::error::Failure;
use crate::login::{ContextLogin, log_in};
use crate::raw::{Module, Session};
use crate::slot::{self, Slots, Token};
use crate::{find, module};

/// Every module and token that the link has had to do with.
#[derive(Default)]
pub(super) struct Places {
    modules: BTreeMap<PathBuf, Arc<Module>>,
    logins: BTreeMap<(PathBuf, CK_SLOT_ID, String), Login>,
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

/// How long to wait before each further look for a token: SoftHSM shows it to nobody who starts while another
/// process logs in to it.
const PATIENCE: [Duration; 3] = [
    Duration::from_millis(50),
    Duration::from_millis(150),
    Duration::from_millis(400),
];

/// What a login came to.
type Login = Result<(Arc<Session>, Option<Arc<ContextLogin>>), TokenError>;

impl Places {
    /// The token of this key, logged in to.
    pub(super) fn at(
        &mut self,
        module: &Path,
        key: &Pkcs11Uri,
        pin: Option<&PinSource>,
    ) -> Result<Place, TokenError> {
        let all = self.slots(module, &key.token)?;
        let token = all.find(&key.token)?;
        self.enter(module, &token, &all, pin)
    }

    /// What is in the module's slots; of SoftHSM's, when the token that is wanted is there or patience has an end.
    pub(super) fn slots(&mut self, path: &Path, wanted: &TokenMatch) -> Result<Slots, TokenError> {
        for patience in PATIENCE {
            let all = slot::all(&*self.started(path)?)?;
            let may_be_hidden = matches!(all.find(wanted), Err(TokenError::Gone(_)))
                && all.tokens.iter().any(Token::is_softhsm);
            let in_use = self.logins.keys().any(|(module, ..)| module == path);
            if !may_be_hidden || in_use {
                return Ok(all);
            }
            thread::sleep(patience);
            self.modules.remove(path); // a module that is started anew sees what is new
        }
        slot::all(&*self.started(path)?)
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
        let started = self.started(module)?;
        let login = match self.logins.get(&place_of(module, token)) {
            Some(login) => login.clone(),
            None => {
                let login = first_login(&started, token, pin);
                // Anything else is worth another try: no PIN has been used.
                if matches!(login, Ok(_) | Err(TokenError::PinRejected(_))) {
                    self.logins.insert(place_of(module, token), login.clone());
                }
                login
            }
        };
        let (session, context_login) = login?;
        Ok(Place {
            module: started,
            token: token.clone(),
            name: token.shortest(&all.tokens),
            session,
            context_login,
        })
    }

    /// Whether the link is logged in to it, or was refused.
    pub(super) fn has_tried(&self, module: &Path, token: &Token) -> bool {
        self.logins.contains_key(&place_of(module, token))
    }
}

fn place_of(module: &Path, token: &Token) -> (PathBuf, CK_SLOT_ID, String) {
    (module.to_owned(), token.slot, token.identity())
}

fn first_login(module: &Arc<Module>, token: &Token, pin: Option<&PinSource>) -> Login {
    let session = open_session(module, token)?;
    let login = log_in(&session, token, pin, None)?;
    Ok((Arc::new(session), login.context.map(Arc::new)))
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
        report::private_key(&self.session, &self.name, handle).map_err(failed)
    }
}
