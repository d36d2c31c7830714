//! Policies of key files: prepared once, when the key is opened, and asserted before each signature.

pub(crate) mod statement;

use sha2::{Digest as _, Sha256, Sha384, Sha512};
use token::TokenError;
use tss_esapi::Context;
use tss_esapi::constants::CommandCode;
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::interface_types::session_handles::{AuthSession, PolicySession};
use tss_esapi::structures::{
    Auth, Digest, DigestList, Name, Nonce, Public, Signature, VerifiedTicket,
};
use tss_esapi::tss2_esys::TPMT_TK_VERIFIED;

use self::statement::{Statement, statement, unusable};
use crate::error::{Code, Failure, rc};
use crate::key_file::{KeyFile, PolicyCommand};
use crate::pcr::{Pcrs, Snapshot};
use crate::tpm::Tpm;

/// A policy that has led to its key's authPolicy.
pub(crate) struct Policy {
    /// The key's name algorithm, in which the TPM computes policies.
    pub(crate) hash: HashingAlgorithm,
    steps: Vec<Step>,
    /// The PCRs as they were then.
    snapshot: Snapshot,
}

/// One policy command, ready to be sent.
enum Step {
    Pcr(Digest, Pcrs),
    /// For TPM2_PolicyPassword too: both lead to the same digest, and this one keeps the auth value from
    /// the bus.
    AuthValue,
    Or(DigestList),
    CommandCode(CommandCode),
    Authorize {
        approved: Digest,
        reference: Nonce,
        signer: Name,
        ticket: TPMT_TK_VERIFIED,
    },
}

impl Policy {
    /// The first policy of the file that holds now.
    pub(crate) fn prepare(
        tpm: &mut Tpm,
        file: &KeyFile,
        key: &Public,
    ) -> Result<Policy, TokenError> {
        let hash = key.name_hashing_algorithm();
        let session = tpm
            .policy_session(hash)
            .map_err(|failure| failure.while_doing("no session for its policy"))?;
        let mut refusal = None;
        for commands in candidates(file)? {
            match prepare_one(tpm, session, &commands, key) {
                Ok(policy) => return Ok(policy),
                Err(error @ TokenError::Unusable(_)) => refusal = refusal.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        Err(refusal.unwrap_or_else(|| unusable("it has no signed policy")))
    }

    /// Reads all commands that the file has, of its own policy and of the signed ones.
    pub(crate) fn read(file: &KeyFile) -> Result<(), TokenError> {
        let signed = file.signed_policies.iter().flatten();
        let mut commands = file.policy.iter().chain(signed);
        commands.try_for_each(|command| statement(command).map(drop))
    }

    /// Does in the session what the policy demands.
    pub(crate) fn assert(&self, tpm: &mut Tpm, session: AuthSession) -> Result<(), Failure> {
        for step in &self.steps {
            step.assert(tpm, session)?;
        }
        Ok(())
    }

    /// Whether the key's auth value is part of it.
    pub(crate) fn proves_auth(&self) -> bool {
        self.steps
            .iter()
            .any(|step| matches!(step, Step::AuthValue))
    }

    /// The error of a failed assertion: which PCRs changed, where it was one of them.
    pub(crate) fn explain(&self, tpm: &mut Tpm, failure: Failure) -> TokenError {
        if failure.command == PCR && failure.is(rc::VALUE) {
            return unusable(&self.snapshot.compare(tpm));
        }
        failure.while_doing("its policy does not hold")
    }
}

/// The file's own policy; or, where that begins with an authorization that is signed elsewhere, each signed
/// policy with the rest of the file's own behind it.
fn candidates(file: &KeyFile) -> Result<Vec<Vec<PolicyCommand>>, TokenError> {
    let signed_elsewhere = match file.policy.first() {
        Some(first) => matches!(
            statement(first)?,
            Statement::Authorize {
                signature: None,
                ..
            }
        ),
        None => false,
    };
    if !signed_elsewhere {
        return Ok(vec![file.policy.clone()]);
    }
    let rest = file.policy.iter().skip(1);
    let with_rest = |signed: &Vec<_>| signed.iter().chain(rest.clone()).cloned().collect();
    Ok(file.signed_policies.iter().map(with_rest).collect())
}

fn prepare_one(
    tpm: &mut Tpm,
    session: AuthSession,
    commands: &[PolicyCommand],
    key: &Public,
) -> Result<Policy, TokenError> {
    let hash = key.name_hashing_algorithm();
    let failed = |failure: Failure| failure.while_doing("its policy does not hold");
    tpm.restart_policy(session).map_err(failed)?;
    let mut steps = Vec::new();
    let mut snapshot = Snapshot::default();
    for command in commands {
        let step = match statement(command)? {
            Statement::Ready(step) => step,
            Statement::Authorize {
                signer,
                reference,
                signature: Some(signature),
            } => authorization(tpm, session, signer, reference, signature)?,
            Statement::Authorize { .. } => {
                return Err(unusable(
                    "its policy has a TPM2_PolicyAuthorize without a signature",
                ));
            }
        };
        if let Step::Pcr(_, pcrs) = &step {
            snapshot.add(tpm, pcrs).map_err(failed)?;
        }
        step.assert(tpm, session).map_err(|failure| match &step {
            Step::Pcr(_, pcrs) if failure.is(rc::VALUE) => unusable(&snapshot.mismatch(pcrs)),
            _ => failed(failure),
        })?;
        steps.push(step);
    }
    let reached = policy_digest(tpm, session).map_err(failed)?;
    if reached != *key.auth_policy() {
        return Err(unusable(
            "the policy in its file is not the one that the key was made with: make the file again",
        ));
    }
    Ok(Policy {
        hash,
        steps,
        snapshot,
    })
}

/// The TPM checks the signature once; its ticket is good for as long as it runs.
fn authorization(
    tpm: &mut Tpm,
    session: AuthSession,
    signer: Public,
    reference: Nonce,
    signature: Signature,
) -> Result<Step, TokenError> {
    let failed = |failure: Failure| failure.while_doing("its policy's signature does not hold");
    let approved = policy_digest(tpm, session).map_err(failed)?;
    let signed = signed_digest(signer.name_hashing_algorithm(), &approved, &reference)
        .ok_or_else(|| unusable("its policy is signed by a key with an old name algorithm"))?;
    let signer = tpm
        .add_loaded(
            None,
            "TPM2_LoadExternal",
            None,
            Auth::default(),
            |context, _| context.load_external_public(signer.clone(), Hierarchy::Owner),
        )
        .map_err(failed)?;
    let handle = tpm.handle(signer).map_err(failed)?;
    let result = tpm
        .run("Esys_TR_GetName", |context| {
            context.tr_get_name(handle.into())
        })
        .and_then(|name| {
            let ticket = tpm.run("TPM2_VerifySignature", |context| {
                let ticket = context.verify_signature(handle, signed.clone(), signature.clone());
                TPMT_TK_VERIFIED::try_from(ticket?)
            })?;
            Ok((name, ticket))
        });
    tpm.forget(signer).map_err(failed)?;
    let (signer, ticket) = result.map_err(failed)?;
    Ok(Step::Authorize {
        approved,
        reference,
        signer,
        ticket,
    })
}

/// What the policy's signer signs, in the hash of its own name.
fn signed_digest(hash: HashingAlgorithm, approved: &Digest, reference: &Nonce) -> Option<Digest> {
    let message = [approved.value(), reference.value()].concat();
    let digest = match hash {
        HashingAlgorithm::Sha256 => Sha256::digest(message).to_vec(),
        HashingAlgorithm::Sha384 => Sha384::digest(message).to_vec(),
        HashingAlgorithm::Sha512 => Sha512::digest(message).to_vec(),
        _ => return None,
    };
    digest.try_into().ok()
}

fn policy_digest(tpm: &mut Tpm, session: AuthSession) -> Result<Digest, Failure> {
    run(tpm, session, "TPM2_PolicyGetDigest", |context, session| {
        context.policy_get_digest(session)
    })
}

const PCR: &str = "TPM2_PolicyPCR";

impl Step {
    fn assert(&self, tpm: &mut Tpm, session: AuthSession) -> Result<(), Failure> {
        match self {
            Step::Pcr(digest, pcrs) => run(tpm, session, PCR, |context, session| {
                context.policy_pcr(session, digest.clone(), pcrs.selection.clone())
            }),
            Step::AuthValue => run(tpm, session, "TPM2_PolicyAuthValue", |context, session| {
                context.policy_auth_value(session)
            }),
            Step::Or(digests) => run(tpm, session, "TPM2_PolicyOR", |context, session| {
                context.policy_or(session, digests.clone())
            }),
            Step::CommandCode(code) => run(
                tpm,
                session,
                "TPM2_PolicyCommandCode",
                |context, session| context.policy_command_code(session, *code),
            ),
            Step::Authorize {
                approved,
                reference,
                signer,
                ticket,
            } => run(tpm, session, "TPM2_PolicyAuthorize", |context, session| {
                let (approved, reference) = (approved.clone(), reference.clone());
                let ticket = VerifiedTicket::try_from(*ticket)?;
                context.policy_authorize(session, approved, reference, signer, ticket)
            }),
        }
    }
}

fn run<T>(
    tpm: &mut Tpm,
    session: AuthSession,
    command: &'static str,
    call: impl Fn(&mut Context, PolicySession) -> tss_esapi::Result<T>,
) -> Result<T, Failure> {
    let session = PolicySession::try_from(session).map_err(|_| Failure {
        command,
        code: Code::Nonsense,
    })?;
    tpm.run(command, |context| call(context, session))
}
