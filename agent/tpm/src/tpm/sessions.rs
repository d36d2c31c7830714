//! Sessions in the TPM: started once, when a key is opened that needs them, and kept.

use tss_esapi::attributes::SessionAttributesBuilder;
use tss_esapi::constants::SessionType;
use tss_esapi::handles::ObjectHandle;
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::interface_types::session_handles::{AuthSession, PolicySession};
use tss_esapi::structures::{Auth, MaxBuffer, SymmetricDefinition};

use super::Tpm;
use crate::error::{Code, Failure};
use crate::storage_primary;

impl Tpm {
    /// The session that proves auth values. Started once, where one is needed at all.
    pub(crate) fn hmac_session(&mut self) -> Result<AuthSession, Failure> {
        if let Some(session) = self.hmac_session {
            return Ok(session);
        }
        let session = self.start_session(SessionType::Hmac, HashingAlgorithm::Sha256)?;
        self.hmac_session = Some(session);
        Ok(session)
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

    /// The session for policies of keys with this name algorithm: the TPM compares digests of that one only.
    pub(crate) fn policy_session(
        &mut self,
        hash: HashingAlgorithm,
    ) -> Result<AuthSession, Failure> {
        let started = self.policy_sessions.iter().find(|(own, _)| *own == hash);
        if let Some((_, session)) = started {
            return Ok(*session);
        }
        let session = self.start_session(SessionType::Policy, hash)?;
        self.policy_sessions.push((hash, session));
        Ok(session)
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
    fn start_session(
        &mut self,
        kind: SessionType,
        hash: HashingAlgorithm,
    ) -> Result<AuthSession, Failure> {
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
