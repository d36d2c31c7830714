//! Auth values: read once, proved in an HMAC session, never in clear on the bus, and never tried again
//! after the TPM refused them.

use token::{PinSource, TakeOver, TokenError};
use tss_esapi::handles::TpmHandle;
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::Auth;

use crate::error::{Failure, rc};
use crate::tpm::{Caller, Tpm};

/// The proof that we may use something in the TPM.
#[derive(Clone)]
pub(crate) struct Proof {
    pub(crate) auth: Auth,
    /// The TPM has taken it once.
    pub(crate) is_good: bool,
    /// Its TPM name, or whatever else is its own; which the auth value was refused by.
    pub(crate) entity: Vec<u8>,
    /// For people: `its auth value (pin)`.
    pub(crate) what: String,
    /// How a corrected one gets here.
    pub(crate) take_over: TakeOver,
}

/// Auth values that were refused, and with which error.
#[derive(Default)]
pub(crate) struct Refused(Vec<(Vec<u8>, Auth, TokenError)>);

/// The auth value from a PIN source; empty without one.
pub(crate) fn read(source: Option<&PinSource>) -> Result<Auth, TokenError> {
    let Some(source) = source else {
        return Ok(Auth::default());
    };
    let pin = source
        .read()
        .map_err(|error| TokenError::Unusable(error.to_string()))?;
    Auth::try_from(pin.secret()).map_err(|_| {
        TokenError::Unusable("the PIN is longer than an auth value can be, 64 bytes".to_owned())
    })
}

impl Proof {
    /// Of the auth value of a hierarchy; `setting` is what it is called where it is given.
    pub(crate) fn of_hierarchy(
        hierarchy: Hierarchy,
        pin: Option<&PinSource>,
        setting: &str,
    ) -> Result<Proof, TokenError> {
        Ok(Proof {
            auth: read(pin)?,
            is_good: false,
            entity: u32::from(TpmHandle::from(hierarchy)).to_be_bytes().to_vec(),
            what: format!("the auth value of hierarchy {hierarchy:?} ({setting})"),
            take_over: TakeOver::of(pin),
        })
    }
}

impl Tpm {
    /// The session to prove it in. Nothing is to be protected where the auth value is empty.
    pub(crate) fn session_for(&mut self, proof: &Proof) -> Result<AuthSession, TokenError> {
        if proof.auth.is_empty() {
            return Ok(AuthSession::Password);
        }
        self.hmac_session()
            .map_err(|failure| failure.gone(format_args!("{}: no session", self.name())))
    }

    /// Runs a command that takes this proof in `session`. A wrong auth value is tried once.
    pub(crate) fn run_proving<T>(
        &mut self,
        proof: &Proof,
        doing: &str,
        session: AuthSession,
        command: impl FnOnce(&mut Tpm, Option<AuthSession>) -> Result<T, Failure>,
    ) -> Result<T, TokenError> {
        if let Some(error) = self.refused.find(proof) {
            return Err(error);
        }
        command(self, Some(session)).map_err(|failure| self.explain(proof, doing, session, failure))
    }

    fn explain(
        &mut self,
        proof: &Proof,
        doing: &str,
        session: AuthSession,
        failure: Failure,
    ) -> TokenError {
        let what = &proof.what;
        if failure.is_refused_auth() {
            if session != AuthSession::Password && !self.has_session(session) {
                return failure.gone(format_args!("{doing}: the session was lost"));
            }
            let count = match self.lockout() {
                Ok(lockout) => format!("; the TPM counts {lockout}"),
                Err(_) => String::new(),
            };
            let again = match self.caller {
                Caller::Agent => proof.take_over.to_string(),
                Caller::Operator => "run the command again".to_owned(),
            };
            let error = TokenError::PinRejected(format!(
                "{doing}: the TPM refused {what} ({failure}{count}); correct it and {again}"
            ));
            self.refused.remember(proof, error.clone());
            return error;
        }
        if failure.is(rc::LOCKOUT) {
            return match self.lockout() {
                Ok(lockout) => lockout.wait(format_args!("{doing}: {failure}")),
                Err(failure) => failure.gone(doing),
            };
        }
        if failure.is_without_answer() && !proof.auth.is_empty() && !proof.is_good {
            let again = match self.caller {
                Caller::Agent => "restart the agent",
                Caller::Operator => "run the command again",
            };
            let error = TokenError::PinRejected(format!(
                "{doing}: {failure}, and that while {what} was tried for the first time: whether it counted \
                 as a wrong one is unknown, so it is not tried again; check it, then {again}"
            ));
            self.refused.remember(proof, error.clone());
            return error;
        }
        failure.while_doing(doing)
    }
}

impl Refused {
    pub(crate) fn find(&self, proof: &Proof) -> Option<TokenError> {
        let same = |(entity, auth, _): &&(Vec<u8>, Auth, _)| {
            *entity == proof.entity && *auth == proof.auth
        };
        self.0.iter().find(same).map(|(.., error)| error.clone())
    }

    fn remember(&mut self, proof: &Proof, error: TokenError) {
        self.0
            .push((proof.entity.clone(), proof.auth.clone(), error));
    }
}
