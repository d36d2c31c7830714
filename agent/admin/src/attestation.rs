//! What an attestation proves of the key of a certificate request, judged without a TPM.

mod endorsement;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rolesanywhere::certificate::{CertificationRequest, PublicKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use token::operator::Der;
use token::operator::tpm::Attestation;

use crate::tpm_structures::attributes::{
    DECRYPT, FIXED_PARENT, FIXED_TPM, NAMED, RESTRICTED, SENSITIVE_DATA_ORIGIN, SIGN,
};
use crate::tpm_structures::{CertifyStatement, PublicArea, TpmSignature};
pub(crate) use endorsement::EndorsementCas;

/// What was found, in the order of the proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Verdict {
    /// Whether all that was looked at holds.
    pub(crate) proven: bool,
    /// Each thing that was looked at.
    pub(crate) findings: Vec<Finding>,
    /// What none of that proves.
    pub(crate) not_proven: Vec<String>,
    /// The attestation key's name in hex, for whoever knows which one this host's TPM has.
    pub(crate) attestation_key_name: Option<String>,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// Whether it holds.
    pub(crate) holds: bool,
    /// What it is, and why it does not hold.
    pub(crate) text: String,
}

/// The file that carries an attestation.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Document {
    format: String,
    statement: String,
    signature: String,
    attestation_key: String,
    public_area: String,
    endorsement_certificates: Vec<String>,
}

const FORMAT: &str = "roleseal-attestation-1";

/// Returns the qualifying data of a CSR's statement: the SHA-256 of its DER.
pub(crate) fn qualifying_data(request: &CertificationRequest) -> Vec<u8> {
    Sha256::digest(request.der()).to_vec()
}

/// Returns the text of an attestation's file.
pub(crate) fn to_json(attestation: &Attestation) -> serde_json::Result<String> {
    let base64 = |der: &Der| BASE64.encode(&der.0);
    let document = Document {
        format: FORMAT.to_owned(),
        statement: base64(&attestation.statement),
        signature: base64(&attestation.signature),
        attestation_key: base64(&attestation.attestation_key),
        public_area: base64(&attestation.public_area),
        endorsement_certificates: attestation
            .endorsement_certificates
            .iter()
            .map(base64)
            .collect(),
    };
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}

/// Parses the text of an attestation's file.
pub(crate) fn from_json(text: &str) -> Result<Attestation, String> {
    // Without serde's text: it quotes the input, such as the PIN in a file named by mistake.
    let document: Document = serde_json::from_str(text).map_err(|error| {
        format!(
            "not an attestation of `roleseal-admin csr --attest` (line {}, column {})",
            error.line(),
            error.column()
        )
    })?;
    if document.format != FORMAT {
        return Err(format!(
            "its format is {:?}, not {FORMAT:?}",
            document.format
        ));
    }
    let der = |text: &String| {
        BASE64
            .decode(text)
            .map(Der)
            .map_err(|error| format!("not base64: {error}"))
    };
    Ok(Attestation {
        statement: der(&document.statement)?,
        signature: der(&document.signature)?,
        attestation_key: der(&document.attestation_key)?,
        public_area: der(&document.public_area)?,
        endorsement_certificates: document
            .endorsement_certificates
            .iter()
            .map(der)
            .collect::<Result<_, _>>()?,
    })
}

/// Judges the attestation of a request whose signature was checked.
pub(crate) fn judge(
    request: &CertificationRequest,
    attestation: &Attestation,
    cas: Option<&EndorsementCas>,
) -> Verdict {
    let mut verdict = Verdict {
        proven: true,
        findings: Vec::new(),
        not_proven: Vec::new(),
        attestation_key_name: None,
    };
    verdict.note(
        true,
        format!("the CSR for {} is signed by its own key", request.subject()),
    );
    if let Some(parts) = Parts::parse(attestation, &mut verdict) {
        verdict.attestation_key_name = Some(hex::encode(parts.attestation_key.name()));
        parts.judge(request, &mut verdict);
    }
    verdict.judge_endorsement(&attestation.endorsement_certificates, cas);
    verdict
}

struct Parts {
    statement: CertifyStatement,
    statement_bytes: Vec<u8>,
    signature: TpmSignature,
    attestation_key: PublicArea,
    key: PublicArea,
}

impl Parts {
    fn parse(attestation: &Attestation, verdict: &mut Verdict) -> Option<Parts> {
        let parsed = || {
            Ok(Parts {
                statement: CertifyStatement::parse(&attestation.statement.0)?,
                statement_bytes: attestation.statement.0.clone(),
                signature: TpmSignature::parse(&attestation.signature.0)?,
                attestation_key: PublicArea::parse(&attestation.attestation_key.0)?,
                key: PublicArea::parse(&attestation.public_area.0)?,
            })
        };
        match parsed() {
            Ok(parts) => Some(parts),
            Err(error) => {
                let error: crate::tpm_structures::StructureError = error;
                verdict.note(false, format!("the attestation cannot be read: {error}"));
                None
            }
        }
    }

    fn judge(&self, request: &CertificationRequest, verdict: &mut Verdict) {
        let statement = &self.statement;
        verdict.note(
            statement.extra_data == qualifying_data(request),
            "the statement certifies this CSR: its qualifying data is the CSR's SHA-256",
        );
        verdict.note(
            statement.name == self.key.name(),
            "the statement certifies this key: its name is the hash of the key's public area",
        );
        verdict.note(
            statement.qualified_signer == self.attestation_key.qualified_name_in_endorsement_hierarchy(),
            "the statement's signer is this attestation key, a primary key of the endorsement hierarchy",
        );
        verdict.note(
            self.attestation_key
                .has(RESTRICTED | SIGN | FIXED_TPM | FIXED_PARENT | SENSITIVE_DATA_ORIGIN)
                && self.attestation_key.attributes & DECRYPT == 0,
            format!(
                "the attestation key signs only structures made by its TPM: {}",
                named(self.attestation_key.attributes)
            ),
        );
        verdict.note(
            self.is_signed(),
            "the statement is signed by the attestation key",
        );
        verdict.note(
            self.key
                .has(FIXED_TPM | FIXED_PARENT | SENSITIVE_DATA_ORIGIN | SIGN),
            format!(
                "the key was made in that TPM and cannot leave it: {}",
                named(self.key.attributes)
            ),
        );
        verdict.note(
            self.key
                .public_key()
                .is_ok_and(|key| key == request.public_key()),
            "the CSR's public key is that key's",
        );
    }

    fn is_signed(&self) -> bool {
        let verifies = || -> Option<bool> {
            let spki = self.attestation_key.public_key().ok()?;
            let key = PublicKey::from_der(&spki).ok()?;
            let signature = self.signature.to_x509().ok()?;
            Some(key.verifies(&self.statement_bytes, &signature))
        };
        verifies().unwrap_or(false)
    }
}

impl Verdict {
    fn note(&mut self, holds: bool, text: impl Into<String>) {
        self.proven &= holds;
        self.findings.push(Finding {
            holds,
            text: text.into(),
        });
    }

    fn judge_endorsement(&mut self, certificates: &[Der], cas: Option<&EndorsementCas>) {
        match (certificates, cas) {
            ([], None) => self.not_proven.push(
                "the TPM's identity: the attestation has no endorsement certificate".to_owned(),
            ),
            ([], Some(_)) => self.note(
                false,
                "the attestation has an endorsement certificate, as --ek-ca requires",
            ),
            (certificates, None) => self.not_proven.push(format!(
                "the vendor of the {} endorsement certificates: not checked without --ek-ca",
                certificates.len()
            )),
            (certificates, Some(cas)) => {
                for certificate in certificates {
                    match cas.issuer_of(&certificate.0) {
                        Ok(text) => self.note(true, format!("endorsement certificate: {text}")),
                        Err(text) => self.note(false, format!("endorsement certificate: {text}")),
                    }
                }
            }
        }
        self.not_proven.push(
            "the attestation key is in the TPM of an endorsement certificate: this needs a challenge that \
             only this TPM can answer (TPM2_MakeCredential, TPM2_ActivateCredential), or a known \
             attestation key name"
                .to_owned(),
        );
    }
}

/// The attributes that matter, by their names.
fn named(attributes: u32) -> String {
    let names = NAMED.iter().filter(|(bit, _)| attributes & bit != 0);
    let names: Vec<&str> = names.map(|(_, name)| *name).collect();
    names.join(" ")
}

#[cfg(test)]
mod tests;
