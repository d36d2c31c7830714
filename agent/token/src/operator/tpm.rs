//! Tasks for `roleseal-tpm`.

use serde::{Deserialize, Serialize};

use super::{Der, KeyType, PublicKeyInfo};
use crate::link::OpenTpmKey;
use crate::{PinSource, Signature, Tcti};

/// A task, and where it is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// How to reach the TPM.
    pub tcti: Tcti,
    /// What to do.
    pub task: Task,
}

/// What `roleseal-tpm` does for an operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Task {
    /// Tells of the TPM and of the keys at its persistent handles. Answer: [`Answer::Tpm`].
    List,
    /// Makes a key for signing alone that cannot leave this TPM (fixedTPM, fixedParent,
    /// sensitiveDataOrigin). Answer: [`Answer::Key`].
    Generate(NewKey),
    /// Loads one key. Answer: [`Answer::Key`].
    Key(OpenTpmKey),
    /// Signs the DER of a `CertificationRequestInfo` (RFC 2986) that has this key's public key and nothing
    /// else. Answer: [`Answer::Signature`].
    SignRequest {
        /// With which key.
        key: OpenTpmKey,
        /// What to sign.
        info: Der,
    },
    /// Has an attestation key, derived in the endorsement hierarchy, certify the key (TPM2_Certify). Answer:
    /// [`Answer::Attestation`].
    Attest {
        /// Which key.
        key: OpenTpmKey,
        /// The auth value of the endorsement hierarchy.
        endorsement_pin: Option<PinSource>,
        /// What the statement is to be about beside the key, such as a SHA-256 of the certificate request: 32
        /// bytes.
        qualifying_data: Der,
    },
    /// Removes the key from a persistent handle (TPM2_EvictControl). Refused where it is not as it was shown.
    /// Answer: [`Answer::Done`].
    Delete {
        /// The handle.
        handle: u32,
        /// What [`Task::List`] said of it, which a person has agreed to.
        shown: Box<KeyReport>,
        /// The auth value of the owner hierarchy.
        owner_pin: Option<PinSource>,
    },
}

/// The key that is to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewKey {
    /// Its kind.
    pub key_type: KeyType,
    /// The persistent handle of the key to store it under; `None` for the owner hierarchy's storage primary,
    /// which is derived anew.
    pub parent: Option<u32>,
    /// The auth value of that parent.
    pub parent_pin: Option<PinSource>,
    /// The auth value of the owner hierarchy.
    pub owner_pin: Option<PinSource>,
    /// The key's own auth value from now on; `None` for none.
    pub pin: Option<PinSource>,
    /// PCRs of the SHA-256 bank whose values, as they are now, are to be the condition of its use.
    pub pcrs: Vec<u8>,
    /// Keep it in the TPM, at this persistent handle, in place of a key file.
    pub persist: Option<u32>,
}

/// What comes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// To [`Task::List`].
    Tpm(TpmReport),
    /// To [`Task::Generate`] and [`Task::Key`].
    Key(KeyReport),
    /// To [`Task::SignRequest`].
    Signature(Signature),
    /// To [`Task::Attest`].
    Attestation(Attestation),
    /// It is done.
    Done,
}

/// A TPM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TpmReport {
    /// Manufacturer, vendor string and firmware version, for people.
    pub model: String,
    /// `TPM_PT_LOCKOUT_COUNTER`: wrong auth values so far.
    pub lockout_counter: u32,
    /// `TPM_PT_MAX_AUTH_FAIL`: so many lock it.
    pub max_auth_fail: u32,
    /// Its persistent keys.
    pub keys: Vec<KeyReport>,
    /// What an operator should look at.
    pub warnings: Vec<String>,
}

/// A key of a TPM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyReport {
    /// Where it is, when it has a persistent handle.
    pub handle: Option<u32>,
    /// Such as `EC-P-256` or `RSA-2048`; for a key that is none for us, what it is.
    pub algorithm: String,
    /// Its `TPMA_OBJECT` attributes, by their names in the TPM 2.0 library, part 2, such as `fixedTPM`.
    pub attributes: Vec<String>,
    /// `None` for what is no key for signing that we know.
    pub public_key: Option<PublicKeyInfo>,
    /// The PEM of its `TSS2 PRIVATE KEY` file, to [`Task::Generate`] without a persistent handle.
    pub key_file: Option<String>,
    /// What an operator should look at.
    pub warnings: Vec<String>,
}

/// What a TPM says of one of its keys. All structures as the TPM marshals them (TPM 2.0 library, part 2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attestation {
    /// `TPMS_ATTEST` of type `TPM_ST_ATTEST_CERTIFY`.
    pub statement: Der,
    /// `TPMT_SIGNATURE` over it.
    pub signature: Der,
    /// `TPMT_PUBLIC` of the attestation key that made the signature.
    pub attestation_key: Der,
    /// `TPMT_PUBLIC` of the key that the statement is about.
    pub public_area: Der,
    /// The endorsement key's certificates from the TPM's NV memory (TCG EK Credential Profile), DER.
    pub endorsement_certificates: Vec<Der>,
}
