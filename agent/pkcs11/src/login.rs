//! The login: one `C_Login` for the token, and one for each signature of an always-authenticate key.
//! A PIN that was refused is not tried again: tokens lock after a few.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use cryptoki_sys::*;
use token::host::{PinGuard, UntriedPins};
use token::{Pin, PinSource, TokenError};

use crate::error::Failure;
use crate::raw::Session;
use crate::slot::Token;
use crate::softhsm_store::Store;
use crate::unbroken::Unbroken;

/// What a login leaves behind.
pub(crate) struct Login {
    /// To log in for single signatures; `None` where the token has no PIN. Holds the PIN.
    pub(crate) context: Option<ContextLogin>,
    pub(crate) warning: Option<String>,
}

/// The login for one signature (`CKA_ALWAYS_AUTHENTICATE`), shared by all workers.
pub(crate) struct ContextLogin {
    pin: Pin,
    /// What puts a refused PIN right.
    remedy: String,
    user: User,
    token: String,
    is_softhsm: bool,
    /// Why the PIN was refused. Locked while a signature is under way: a wrong PIN is tried by one worker
    /// alone, and nothing comes between a right one and its signature.
    refused: RwLock<Option<TokenError>>,
}

/// A signature with a login of its own is under way, and no other one on the token.
pub(crate) struct Alone<'a> {
    login: &'a ContextLogin,
    refused: RwLockWriteGuard<'a, Option<TokenError>>,
}

/// Who has to mend what is wrong with a PIN, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum User {
    Agent,
    Operator,
}

/// Why there is no login.
pub(crate) struct NoLogin {
    pub(crate) error: TokenError,
    /// Whether another process was logging in to a token of SoftHSM's, so that the PIN was not looked at.
    pub(crate) is_meanwhile: bool,
}

/// A PIN that was read and not tried yet.
#[derive(Clone)]
pub(crate) struct UntriedPin {
    pin: Pin,
    /// What puts it right, if it is refused.
    remedy: String,
    user: User,
}

/// Logs in for the agent, where token or configuration want it. `pins` hears of every PIN before it is tried.
pub(crate) fn log_in(
    session: &Session,
    token: &Token,
    source: Option<&PinSource>,
    pins: &PinGuard,
) -> Result<Login, TokenError> {
    let (Some(untried), Some(source)) = (read_pin(token, source, User::Agent)?, source) else {
        return Ok(NO_LOGIN);
    };
    await_turn(session, token, source, &untried.pin, pins)?;
    log_in_with(session, token, Some(untried)).map_err(|no_login| no_login.error)
}

/// Waits until nobody else tries a PIN of the token, then asks whether this one may be tried.
fn await_turn(
    session: &Session,
    token: &Token,
    source: &PinSource,
    pin: &Pin,
    pins: &PinGuard,
) -> Result<(), TokenError> {
    pins.await_turn(&token.identity())?;
    // Others may have tried a PIN since.
    let now = token.read_again(session.module())?;
    source_for(&now, Some(source), User::Agent)?;
    pins.may_try(&UntriedPins {
        key: None,
        name: &token.to_string(),
        token: &token.with_label(),
        pins: &[pin],
        failures: now.failures(),
        at_once: true,
        take_over: source.take_over(),
    })
}

/// Reads the PIN for an operator's command, where token or command want a login.
pub(crate) fn operators_pin(
    token: &Token,
    source: Option<&PinSource>,
) -> Result<Option<UntriedPin>, TokenError> {
    read_pin(token, source, User::Operator)
}

fn read_pin(
    token: &Token,
    source: Option<&PinSource>,
    user: User,
) -> Result<Option<UntriedPin>, TokenError> {
    let Some(source) = source_for(token, source, user)? else {
        return Ok(None);
    };
    let pin = source
        .read()
        .map_err(|error| TokenError::Unusable(error.to_string()))?;
    let mut remedy = user.put_right(source);
    if pin.has_blank_end() {
        remedy += "; what was tried has a blank at its beginning or end";
    }
    Ok(Some(UntriedPin { pin, remedy, user }))
}

/// Logs in with this PIN; without one, not at all.
pub(crate) fn log_in_with(
    session: &Session,
    token: &Token,
    untried: Option<UntriedPin>,
) -> Result<Login, NoLogin> {
    let Some(UntriedPin { pin, remedy, user }) = untried else {
        return Ok(NO_LOGIN);
    };
    let context = ContextLogin {
        pin,
        remedy,
        user,
        token: token.to_string(),
        is_softhsm: token.is_softhsm(),
        refused: RwLock::new(None),
    };
    context
        .log_in(session, CKU_USER)
        .map_err(|failure| context.first_refusal(failure, token))?;
    let count_low = token.flags & CKF_USER_PIN_COUNT_LOW != 0;
    Ok(Login {
        context: Some(context),
        warning: count_low.then(|| {
            format!(
                "before this login somebody gave {token} a wrong PIN (CKF_USER_PIN_COUNT_LOW): \
                 look for a program with an old PIN before it locks the token"
            )
        }),
    })
}

const NO_LOGIN: Login = Login {
    context: None,
    warning: None,
};

/// Where the PIN is, if it is needed and may be tried.
fn source_for<'a>(
    token: &Token,
    source: Option<&'a PinSource>,
    user: User,
) -> Result<Option<&'a PinSource>, TokenError> {
    let has = |flag| token.flags & flag != 0;
    let Some(source) = source else {
        return match (
            has(CKF_LOGIN_REQUIRED),
            has(CKF_PROTECTED_AUTHENTICATION_PATH),
        ) {
            (false, _) => Ok(None),
            (true, false) => Err(TokenError::Unusable(format!(
                "{token} needs a PIN: {}",
                user.give_one()
            ))),
            (true, true) => Err(TokenError::Unusable(format!(
                "{token} takes its PIN from a PIN pad (CKF_PROTECTED_AUTHENTICATION_PATH), where nobody \
                 stands beside a daemon: {} if it takes one from programs too, or use another token",
                user.give_one()
            ))),
        };
    };
    if has(CKF_USER_PIN_LOCKED) {
        return Err(TokenError::PinRejected(format!(
            "the user PIN of {token} is locked (CKF_USER_PIN_LOCKED), so none was tried: have the \
             security officer unlock it, then {}",
            user.put_right(source)
        )));
    }
    if has(CKF_USER_PIN_FINAL_TRY) {
        return Err(TokenError::PinRejected(format!(
            "{token} takes one more try before it locks (CKF_USER_PIN_FINAL_TRY), so none was made: \
             log in once by hand with the right PIN (pkcs11-tool --login --list-objects), then {}",
            user.put_right(source)
        )));
    }
    // CKF_USER_PIN_INITIALIZED is not asked for: AWS CloudHSM's module was seen without it. Where there is no PIN
    // yet, C_Login says so, and there is none that a try could lock.
    Ok(Some(source))
}

impl ContextLogin {
    /// `C_Login`. SoftHSM writes its token anew there: under our lock, and not to be broken off.
    fn log_in(&self, session: &Session, user: CK_USER_TYPE) -> Result<(), Failure> {
        let store = self.is_softhsm.then(Store::configured).flatten();
        let _lock = store.as_ref().map(Store::lock);
        let _whole = (self.user == User::Operator).then(Unbroken::begin);
        accepted(session.login(user, &self.pin))
    }

    fn first_refusal(&self, failure: Failure, token: &Token) -> NoLogin {
        let is_meanwhile = self.is_softhsm
            && match failure.code {
                CKR_GENERAL_ERROR => true,
                // The token says that there is one: the module has read it while another process was writing.
                CKR_USER_PIN_NOT_INITIALIZED => token.flags & CKF_USER_PIN_INITIALIZED != 0,
                _ => false,
            };
        let error = match is_meanwhile {
            true => TokenError::Gone(format!("{}: {failure}", meanwhile(&self.token))),
            false => refusal(failure, &self.token, &self.remedy, self.is_softhsm),
        };
        NoLogin {
            error,
            is_meanwhile,
        }
    }

    /// To be held from before `sign_init` until after `sign`: on a smart card (PIV), any command in between
    /// undoes the login, whichever session it comes from.
    pub(crate) fn alone(&self) -> Result<Alone<'_>, TokenError> {
        let refused = self.refused.write().unwrap_or_else(PoisonError::into_inner);
        match &*refused {
            Some(error) => Err(error.clone()),
            None => Ok(Alone {
                login: self,
                refused,
            }),
        }
    }

    /// To be held by a signature that needs no login of its own, so that it is not made while one is under way
    /// that does.
    pub(crate) fn beside_others(&self) -> RwLockReadGuard<'_, impl Sized> {
        self.refused.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Alone<'_> {
    /// Between `sign_init` and `sign`. After a refusal the started signature stays open: no session of
    /// this process signs with the key again.
    pub(crate) fn log_in(&mut self, session: &Session, key: &str) -> Result<(), TokenError> {
        let result = self.login.log_in(session, CKU_CONTEXT_SPECIFIC);
        self.latch(key, result)
    }

    fn latch(&mut self, key: &str, result: Result<(), Failure>) -> Result<(), TokenError> {
        let ContextLogin {
            token,
            remedy,
            is_softhsm,
            ..
        } = self.login;
        let what = format!("{key} on {token}");
        let result = result.map_err(|failure| refusal(failure, &what, remedy, *is_softhsm));
        if let Err(error @ TokenError::PinRejected(_)) = &result {
            *self.refused = Some(error.clone());
        }
        result
    }
}

/// Some modules share a login between processes, or keep it over `C_Initialize`.
fn accepted(result: Result<(), Failure>) -> Result<(), Failure> {
    match result {
        Err(failure) if failure.code == CKR_USER_ALREADY_LOGGED_IN => Ok(()),
        result => result,
    }
}

fn refusal(failure: Failure, what: &str, remedy: &str, is_softhsm: bool) -> TokenError {
    if failure.code == CKR_USER_PIN_NOT_INITIALIZED {
        return failure.while_doing(format_args!(
            "{what} has no user PIN yet: have the security officer set one (pkcs11-tool --init-pin)"
        ));
    }
    if never_looked_at_the_pin(failure.code) {
        return failure.while_doing(format_args!("cannot log in to {what}"));
    }
    // A wrong PIN is CKR_PIN_INCORRECT with SoftHSM, and locks nothing.
    if is_softhsm && failure.code == CKR_GENERAL_ERROR {
        return failure.while_doing(meanwhile(what));
    }
    let first = match failure.code {
        CKR_PIN_LOCKED => "have the security officer unlock it, ",
        CKR_PIN_EXPIRED => "set a new PIN on the token, ",
        _ => "",
    };
    TokenError::PinRejected(format!(
        "{what} did not take the PIN: {failure}. It was tried once and will not be tried again: \
         {first}{remedy} (how many wrong PINs it takes before it locks is the token's own affair)"
    ))
}

/// Of a token of SoftHSM's that cannot be read.
fn meanwhile(what: &str) -> String {
    format!("cannot log in to {what} while another process does, or it is damaged")
}

impl User {
    fn give_one(self) -> &'static str {
        match self {
            User::Agent => "set pin = { file = \"/path\" }",
            User::Operator => "have this command ask for it, or name a file that has it",
        }
    }

    fn put_right(self, source: &PinSource) -> String {
        let place = match source {
            PinSource::File(path) => format!("{}", path.display()),
            PinSource::Credential(name) => format!("the systemd credential {name:?}"),
            PinSource::Value(_) if self == User::Operator => {
                return "start the command again with the right PIN".to_owned(); // wherever it came from
            }
            PinSource::Value(_) => "pin-value in the key's URI".to_owned(),
            PinSource::Terminal(_) | PinSource::AskPassword(_) => {
                return "start the command again with the right PIN".to_owned();
            }
        };
        let then = match self {
            User::Agent => source.take_over().to_string(),
            User::Operator => "start the command again".to_owned(),
        };
        format!("put the right PIN into {place} and {then}")
    }
}

/// From `C_Login`, only these are another matter than the PIN. Modules say CKR_GENERAL_ERROR,
/// CKR_FUNCTION_FAILED or a code of their own for a wrong one: to have a PIN tried again by hand is cheaper than a
/// locked token.
fn never_looked_at_the_pin(code: CK_RV) -> bool {
    matches!(
        code,
        CKR_TOKEN_NOT_PRESENT
            | CKR_DEVICE_REMOVED
            | CKR_SESSION_HANDLE_INVALID
            | CKR_SESSION_CLOSED
            | CKR_CRYPTOKI_NOT_INITIALIZED
            | CKR_OPERATION_NOT_INITIALIZED
            | CKR_HOST_MEMORY
            | CKR_SESSION_COUNT // YubiHSM, with its 16 sessions in use
            | CKR_SESSION_READ_ONLY_EXISTS
            | CKR_USER_ANOTHER_ALREADY_LOGGED_IN
            | CKR_USER_TOO_MANY_TYPES
            | CKR_USER_TYPE_INVALID
    )
}

#[cfg(test)]
mod tests;
