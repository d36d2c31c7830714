//! A key that signs: one TPM command, TPM2_Sign, and those of its policy before it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use token::{Key, Signature, StringToSign, TokenError};
use tss_esapi::constants::tss::{TPM2_RH_NULL, TPM2_ST_HASHCHECK};
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{Digest, HashcheckTicket, Public};
use tss_esapi::tss2_esys::{TPM2B_DIGEST, TPMT_TK_HASHCHECK};
use tss_esapi::{Error, structures};

use crate::auth_value::Proof;
use crate::error::{Failure, rc};
use crate::policy::Policy;
use crate::scheme::Scheme;
use crate::tpm::{ObjectId, Tpm};

/// A private key in the TPM.
pub(crate) struct TpmKey {
    /// Shared with the other keys; there is one worker.
    pub(crate) tpm: Arc<Mutex<Tpm>>,
    pub(crate) found: FoundKey,
    /// Until then the TPM is in lockout.
    pub(crate) locked_until: Option<Instant>,
    /// When it last signed, or was opened.
    pub(crate) used_at: Instant,
}

/// A key that was found.
pub(crate) struct FoundKey {
    /// As the configuration writes it.
    pub(crate) name: String,
    pub(crate) object: ObjectId,
    pub(crate) public: Public,
    pub(crate) scheme: Scheme,
    pub(crate) proof: Proof,
    pub(crate) policy: Option<Policy>,
    pub(crate) warnings: Vec<String>,
}

const SIGN: &str = "TPM2_Sign";

/// After so long without a signature, the key at a handle is looked at before its auth value is proved: for another
/// key the TPM would count the proof as a failure. Between two signatures of a busy host nobody replaces a key.
const LOOK_AFTER: Duration = Duration::from_secs(2);

impl Key for TpmKey {
    fn sign(&mut self, text: &StringToSign) -> Result<Signature, TokenError> {
        let FoundKey { name, scheme, .. } = &self.found;
        if text.algorithm != scheme.algorithm {
            return Err(TokenError::Broken(format!(
                "{name} signs {}, but was asked for {}: the certificate is another key's",
                scheme.algorithm, text.algorithm
            )));
        }
        self.check_lockout()?;
        let mut tpm = lock(&self.tpm);
        let look = self.used_at.elapsed() >= LOOK_AFTER;
        let result = self.found.sign_if_there(&mut tpm, text, look);
        match &result {
            Ok(_) => self.used_at = Instant::now(),
            // The agent starts this program anew, and may kill this one before.
            Err(TokenError::Gone(text)) => {
                tpm.close();
                if let Some(remedy) = tpm.remedy() {
                    return Err(TokenError::Gone(format!("{text}; {remedy}")));
                }
            }
            Err(TokenError::Wait { seconds, .. }) => {
                self.locked_until = Some(Instant::now() + Duration::from_secs(*seconds));
            }
            _ => {}
        }
        result
    }
}

impl TpmKey {
    fn check_lockout(&self) -> Result<(), TokenError> {
        let until = self.locked_until.unwrap_or_else(Instant::now);
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        let seconds = left.as_secs() + 1;
        Err(TokenError::Wait {
            text: format!(
                "{} is not tried: the TPM is in lockout; wait {seconds} s",
                self.found.name
            ),
            seconds,
        })
    }
}

impl FoundKey {
    /// Signs, unless another key is at its handle: that one has to be opened first. `look`: before its auth value is
    /// proved, where a failure would count.
    fn sign_if_there(
        &self,
        tpm: &mut Tpm,
        text: &StringToSign,
        look: bool,
    ) -> Result<Signature, TokenError> {
        if look && !self.public.object_attributes().no_da() {
            self.check_handle(tpm)?;
        }
        let result = self.sign(tpm, text.to_string().as_bytes());
        if let Err(TokenError::PinRejected(_)) = result {
            self.check_handle(tpm)?;
        }
        result
    }

    /// What has no auth value is proved to be there by its signature.
    fn check_handle(&self, tpm: &mut Tpm) -> Result<(), TokenError> {
        if self.proof.auth.is_empty() || !tpm.is_persistent(self.object) {
            return Ok(());
        }
        let replaced = tpm.is_replaced(self.object, &self.proof.entity);
        match replaced.map_err(|failure| failure.gone(&self.name))? {
            false => Ok(()),
            true => Err(TokenError::Gone(format!(
                "{}: another key is at this handle than when it was opened",
                self.name
            ))),
        }
    }

    /// Signs what its caller has looked at: the daemon a string to sign, a command a certificate request.
    pub(crate) fn sign(&self, tpm: &mut Tpm, message: &[u8]) -> Result<Signature, TokenError> {
        let name = &self.name;
        let digest = self.scheme.digest(message);
        let digest = digest.map_err(|error| TokenError::Broken(format!("{name}: {error}")))?;
        let signature = match &self.policy {
            None => self.sign_with_auth(tpm, &digest)?,
            Some(policy) => self.sign_with_policy(tpm, policy, &digest)?,
        };
        self.scheme
            .signature(&signature)
            .map(Signature)
            .ok_or_else(|| {
                TokenError::Broken(format!("{name}: TPM2_Sign made another kind of signature"))
            })
    }

    fn sign_with_auth(
        &self,
        tpm: &mut Tpm,
        digest: &Digest,
    ) -> Result<structures::Signature, TokenError> {
        let session = tpm.session_for(&self.proof)?;
        let doing = format!("cannot sign with {}", self.name);
        tpm.run_proving(&self.proof, &doing, session, |tpm, session| {
            self.command(tpm, session, digest)
        })
    }

    /// A PCR that is extended between the assertion and the signature fails the first try. So does a TPM
    /// that keeps what a session has asserted after its use: most forget it, which saves a command.
    fn sign_with_policy(
        &self,
        tpm: &mut Tpm,
        policy: &Policy,
        digest: &Digest,
    ) -> Result<structures::Signature, TokenError> {
        let gone =
            |failure: Failure| failure.while_doing(format_args!("cannot sign with {}", self.name));
        let session = tpm.policy_session(policy.hash).map_err(gone)?;
        if tpm.last_policy != Some(self.object) {
            tpm.restart_policy(session).map_err(gone)?;
        }
        let mut again = true;
        loop {
            tpm.last_policy = None;
            if let Err(failure) = policy.assert(tpm, session) {
                return Err(policy.explain(tpm, failure).about(&self.name));
            }
            let doing = format!("cannot sign with {}", self.name);
            let mut stale = false;
            let result = tpm.run_proving(&self.proof, &doing, session, |tpm, session| {
                let result = self.command(tpm, session, digest);
                stale = matches!(result, Err(failure)
                    if failure.is(rc::PCR_CHANGED) || failure.is(rc::POLICY_FAIL));
                result
            });
            if !(stale && again) {
                if result.is_ok() {
                    tpm.last_policy = Some(self.object);
                }
                return result;
            }
            again = false;
            tpm.restart_policy(session).map_err(gone)?;
        }
    }

    fn command(
        &self,
        tpm: &mut Tpm,
        session: Option<AuthSession>,
        digest: &Digest,
    ) -> Result<structures::Signature, Failure> {
        let handle = tpm.handle(self.object)?;
        let ticket = null_ticket().map_err(|error| Failure::new(SIGN, error))?;
        tpm.run_in_room(session, SIGN, Some(self.object), |context| {
            context.sign(
                handle,
                digest.clone(),
                self.scheme.parameter,
                ticket.clone(),
            )
        })
    }
}

/// The digest was not made in the TPM: only restricted keys ask for that.
fn null_ticket() -> Result<HashcheckTicket, Error> {
    HashcheckTicket::try_from(TPMT_TK_HASHCHECK {
        tag: TPM2_ST_HASHCHECK,
        hierarchy: TPM2_RH_NULL,
        digest: TPM2B_DIGEST::default(),
    })
}

/// One thread at a time is in there, and what a panic left is flushed by the next drop.
fn lock(tpm: &Mutex<Tpm>) -> MutexGuard<'_, Tpm> {
    tpm.lock().unwrap_or_else(PoisonError::into_inner)
}
