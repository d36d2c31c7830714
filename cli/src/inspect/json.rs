//! An inspection for programs. What reads the output of `aws_signing_helper read-certificate-data` finds its
//! members here, of the same names, types and meanings; the others are ours.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rolesanywhere::certificate::{Certificate, CertificateRef, Severity, Violation};
use serde::Serialize;

use super::Inspection;

pub(super) fn render(inspection: &Inspection) -> serde_json::Result<String> {
    let leaf = inspection.chain.leaf();
    let document = Document {
        key_type: leaf.key_type(),
        supported_algorithms: supported_algorithms(leaf.key_type()),
        leaf: Facts::of(leaf),
        key_algorithm: leaf.public_key().ok().map(|key| key.kind().to_string()),
        subject_alternative_names: leaf
            .alternative_names()
            .iter()
            .map(ToString::to_string)
            .collect(),
        intermediates: inspection.chain.intermediates().map(Facts::of).collect(),
        role_session_name: &inspection.facts.session_name,
        source_identity: &inspection.facts.source_identity,
        principal_tags: inspection
            .facts
            .tags
            .iter()
            .map(|tag| (&*tag.name, &*tag.value))
            .collect(),
        trust_anchor_checked: inspection.anchored,
        accepted: !inspection.objections.iter().any(Violation::is_refusal),
        objections: inspection.objections.iter().map(Doubt::of).collect(),
    };
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}

/// In the words of AWS's helper, which lists more than the service takes: SigV4-X509 is over SHA-256.
fn supported_algorithms(key_type: &str) -> Vec<String> {
    match key_type.starts_with("ML-DSA") {
        true => vec![key_type.to_owned()],
        false => ["SHA256", "SHA384", "SHA512"]
            .map(|hash| format!("{key_type}{hash}"))
            .to_vec(),
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'i> {
    key_type: &'static str,
    supported_algorithms: Vec<String>,
    #[serde(flatten)]
    leaf: Facts,
    /// Such as `EC-P-256`, where it is one that AWS takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    key_algorithm: Option<String>,
    subject_alternative_names: Vec<String>,
    intermediates: Vec<Facts>,
    role_session_name: &'i str,
    source_identity: &'i str,
    principal_tags: BTreeMap<&'i str, &'i str>,
    trust_anchor_checked: bool,
    accepted: bool,
    objections: Vec<Doubt>,
}

/// What is said of each certificate.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Facts {
    /// Base64 of the DER.
    certificate_data: String,
    /// Decimal.
    serial_number: String,
    serial_number_hex: String,
    subject: String,
    issuer: String,
    not_before: String,
    not_after: String,
    signature_algorithm: String,
}

impl Facts {
    fn of(certificate: &Certificate) -> Facts {
        Facts {
            certificate_data: BASE64.encode(certificate.der()),
            serial_number: certificate.serial().decimal(),
            serial_number_hex: certificate.serial().hex(),
            subject: certificate.subject(),
            issuer: certificate.issuer(),
            not_before: certificate.not_before().to_string(),
            not_after: certificate.not_after().to_string(),
            signature_algorithm: certificate.signature_algorithm(),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Doubt {
    /// `leaf`, `intermediate`, `trustAnchor` or `chain`.
    certificate: &'static str,
    /// Its place behind the leaf, or in the trust anchor's file, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    number: Option<usize>,
    /// `refused` or `warning`.
    severity: &'static str,
    what: String,
    remedy: String,
}

impl Doubt {
    fn of(objection: &Violation) -> Doubt {
        let (certificate, number) = match objection.whose {
            CertificateRef::Leaf => ("leaf", None),
            CertificateRef::Intermediate(number, _) => ("intermediate", Some(number)),
            CertificateRef::Anchor(number, _) => ("trustAnchor", Some(number)),
            CertificateRef::Chain => ("chain", None),
        };
        Doubt {
            certificate,
            number,
            severity: match objection.severity {
                Severity::Refused => "refused",
                Severity::Warning => "warning",
            },
            what: objection.what.clone(),
            remedy: objection.remedy.clone(),
        }
    }
}
