//! What the TPM itself says of a key, signed by a key that signs nothing else: TPM2_Certify.

use token::link::OpenTpmKey;
use token::operator::tpm::Attestation;
use token::operator::{Der, Outcome};
use token::{PinSource, TokenError};
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{Attest, Data, Signature, SignatureScheme};
use tss_esapi::traits::Marshall;

use super::endorsement_certificates;
use super::load::load;
use crate::attestation_key;
use crate::auth_value::Proof;
use crate::error::Failure;
use crate::key::FoundKey;
use crate::parent::derive;
use crate::tpm::{ObjectId, Tpm};

/// A SHA-256: what every reader of the statement can compare.
const QUALIFYING_DATA: usize = 32;

const CERTIFY: &str = "TPM2_Certify";

pub(super) fn attest(
    tpm: &mut Tpm,
    key: &OpenTpmKey,
    endorsement_pin: Option<&PinSource>,
    qualifying_data: &Der,
) -> Outcome<Attestation> {
    let Der(data) = qualifying_data;
    if data.len() != QUALIFYING_DATA {
        return Err(TokenError::Broken(format!(
            "qualifying data of {} bytes, not of {QUALIFYING_DATA}",
            data.len()
        )));
    }
    let option = "--endorsement-pin-file";
    let endorsement = Proof::of_hierarchy(Hierarchy::Endorsement, endorsement_pin, option)?;
    let found = load(tpm, key)?;
    let doing = format!("cannot attest {}", found.name);
    let failed = |failure: Failure| failure.while_doing(&doing);
    let marshalling = |error| failed(Failure::new(CERTIFY, error));
    // Its auth value is needed even where signatures are authorised by a policy without it.
    if !found.public.object_attributes().no_da() {
        let lockout = tpm.lockout().map_err(failed)?;
        lockout.check(&found.proof.what)?;
    }
    let template = attestation_key::template().map_err(marshalling)?;
    let derivation = "cannot derive the attestation key";
    let attester = derive(
        tpm,
        Hierarchy::Endorsement,
        &template,
        &endorsement,
        derivation,
    )?;
    let (statement, signature) = certify(tpm, &found, attester, data, &doing)?;
    let attestation_key = tpm
        .handle(attester)
        .and_then(|handle| tpm.run("TPM2_ReadPublic", |context| context.read_public(handle)));
    let (attestation_key, ..) = attestation_key.map_err(failed)?;
    Ok(Attestation {
        statement: Der(statement.marshall().map_err(marshalling)?),
        signature: Der(signature.marshall().map_err(marshalling)?),
        attestation_key: Der(attestation_key.marshall().map_err(marshalling)?),
        public_area: Der(found.public.marshall().map_err(marshalling)?),
        endorsement_certificates: endorsement_certificates::read(tpm).map_err(failed)?,
    })
}

/// The ADMIN role: by the key's auth value, also where userWithAuth is clear, unless adminWithPolicy is set.
fn certify(
    tpm: &mut Tpm,
    found: &FoundKey,
    attester: ObjectId,
    data: &[u8],
    doing: &str,
) -> Outcome<(Attest, Signature)> {
    let session = tpm.session_for(&found.proof)?;
    tpm.run_proving(&found.proof, doing, session, |tpm, session| {
        let (key, attester) = (tpm.handle(found.object)?, tpm.handle(attester)?);
        let sessions = (session, Some(AuthSession::Password), None); // the attester's auth value is empty
        tpm.run(CERTIFY, |context| {
            let data = Data::try_from(data)?;
            context.execute_with_sessions(sessions, |context| {
                context.certify(key.into(), attester, data, SignatureScheme::Null)
            })
        })
    })
}
