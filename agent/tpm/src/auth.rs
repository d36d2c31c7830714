//! Proving auth values: in an HMAC session, never in clear on the bus, and never again after the TPM refused them.

use token::TokenError;
use tss_esapi::interface_types::session_handles::AuthSession;

use crate::auth_value::Proof;
use crate::caller::Caller;
use crate::error::{Failure, rc};
use crate::tpm::Tpm;

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
        // Without an answer, the next opening judges by the lockout counter whether the try counted.
        failure.while_doing(doing)
    }
}
