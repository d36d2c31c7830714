//! Sessions in the TPM: started when a key needs them, and kept. Where the TPM has fewer places than keys need, the
//! sessions take turns.

use tss_esapi::attributes::SessionAttributesBuilder;
use tss_esapi::constants::SessionType;
use tss_esapi::handles::{ObjectHandle, SessionHandle};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::interface_types::session_handles::{AuthSession, PolicySession};
use tss_esapi::structures::{Auth, MaxBuffer, SymmetricDefinition};

use super::Tpm;
use crate::error::{Code, Failure};
use crate::storage_primary;

/// What a session is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// To prove auth values.
    Proof,
    /// For policies of keys with this name algorithm.
    Policy(HashingAlgorithm),
}

/// A session of ours.
#[derive(Debug, Clone, Copy)]
pub(super) struct Session {
    purpose: Purpose,
    session: AuthSession,
    /// Its handle in a TPM without a resource manager, as far as that is known.
    pub(super) handle: Option<u32>,
}

impl Tpm {
    /// The session that proves auth values.
    pub(crate) fn hmac_session(&mut self) -> Result<AuthSession, Failure> {
        self.session(Purpose::Proof)
    }

    /// The session for policies of keys with this name algorithm: the TPM compares digests of that one only.
    pub(crate) fn policy_session(
        &mut self,
        hash: HashingAlgorithm,
    ) -> Result<AuthSession, Failure> {
        self.session(Purpose::Policy(hash))
    }

    /// The one used last is at the end.
    fn session(&mut self, purpose: Purpose) -> Result<AuthSession, Failure> {
        let started = self.sessions.iter().position(|own| own.purpose == purpose);
        let session = match started {
            Some(at) => self.sessions.remove(at),
            None => self.start_in_turn(purpose)?,
        };
        self.sessions.push(session);
        Ok(session.session)
    }

    /// Ends the session that was not used for longest, where there is no place for another one.
    fn start_in_turn(&mut self, purpose: Purpose) -> Result<Session, Failure> {
        loop {
            let before = self.loaded_sessions()?;
            match self.start_session(purpose) {
                Ok(session) => {
                    let started = self.loaded_sessions()?;
                    let mut started = started.iter().filter(|handle| !before.contains(handle));
                    let handle = match (started.next(), started.next()) {
                        (Some(handle), None) => Some(*handle),
                        _ => None, // another program has started one, too
                    };
                    return Ok(Session {
                        purpose,
                        session,
                        handle,
                    });
                }
                Err(failure) if failure.is_lack_of_sessions() && !self.sessions.is_empty() => {
                    let oldest = self.sessions.remove(0);
                    self.last_policy = None;
                    self.end_session(oldest)?;
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    pub(super) fn end_session(&mut self, session: Session) -> Result<(), Failure> {
        self.run("TPM2_FlushContext", |context| {
            context.flush_context(SessionHandle::from(session.session).into())
        })
    }

    /// Whether a session is still ours. After a restart of the TPM it is gone, or its handle may be
    /// another program's session, which refuses every auth value, the right one too.
    pub(crate) fn has_session(&mut self, session: AuthSession) -> bool {
        // libtss2 takes that back where a command has no such parameter, and leaves it so when the command
        // fails; the TPM wants a reason for each session.
        if self.encrypt_parameters(session).is_err() {
            return false;
        }
        // Any command that takes a session and needs no auth value.
        let hash = self.run_with(Some(session), "TPM2_Hash", |context| {
            let sha256 = HashingAlgorithm::Sha256;
            context.hash(MaxBuffer::default(), sha256, Hierarchy::Null)
        });
        hash.is_ok()
    }

    /// Lets a policy session begin anew.
    pub(crate) fn restart_policy(&mut self, session: AuthSession) -> Result<(), Failure> {
        let command = "TPM2_PolicyRestart";
        let code = Code::Nonsense;
        let session = PolicySession::try_from(session).map_err(|_| Failure { command, code })?;
        self.run(command, |context| context.policy_restart(session))
    }

    /// Salted with a primary key of the null hierarchy, which every TPM derives without asking for an auth
    /// value: who listens on the bus cannot guess auth values from what the session proves.
    fn start_session(&mut self, purpose: Purpose) -> Result<AuthSession, Failure> {
        let (kind, hash) = match purpose {
            Purpose::Proof => (SessionType::Hmac, HashingAlgorithm::Sha256),
            Purpose::Policy(hash) => (SessionType::Policy, hash),
        };
        let create = "TPM2_CreatePrimary";
        let start = "TPM2_StartAuthSession";
        let template = storage_primary::template().map_err(|error| Failure::new(create, error))?;
        // Whatever else the hierarchy was given to authorise, nothing of it goes over the bus here.
        self.run("Esys_TR_SetAuth", |context| {
            context.tr_set_auth(ObjectHandle::Null, Auth::default())
        })?;
        let salt = self.add_loaded(
            Some(AuthSession::Password),
            create,
            None,
            Auth::default(),
            |context, _| {
                context
                    .create_primary(Hierarchy::Null, template.clone(), None, None, None, None)
                    .map(|primary| primary.key_handle)
            },
        )?;
        let salt_handle = self.handle(salt)?;
        let session = self.run(start, |context| {
            let cipher = SymmetricDefinition::AES_128_CFB;
            context.start_auth_session(Some(salt_handle), None, None, kind, cipher, hash)
        });
        self.forget(salt)?;
        let session = session?.ok_or(Failure {
            command: start,
            code: Code::Nonsense,
        })?;
        self.encrypt_parameters(session)?;
        Ok(session)
    }

    /// Has the session encrypt each command's first parameter: what is secret in a command is there.
    fn encrypt_parameters(&mut self, session: AuthSession) -> Result<(), Failure> {
        self.run("Esys_TRSess_SetAttributes", |context| {
            let (attributes, mask) = SessionAttributesBuilder::new()
                .with_continue_session(true)
                .with_decrypt(true)
                .build();
            context.tr_sess_set_attributes(session, attributes, mask)
        })
    }
}
