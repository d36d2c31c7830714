//! CreateSession as it arrives: the request, its signature, its certificates. Who may then have a session is
//! `decision`'s.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use openssl::hash::MessageDigest;
use openssl::sign::Verifier;

use super::arn::Arn;
use super::authorization_header::Authorization;
use super::certificate::{Certificate, KeyType};
use super::decision::{self, Asked, Grant};
use super::explanation::Explanation;
use super::parameters::Parameters;
use super::received::Received;
use super::refusal::Refusal;
use super::registry::Registry;
use super::{canonical, request_date};

/// The most certificates that X-Amz-X509-Chain may hold ("Signing process" in the user guide).
const CHAIN_LENGTH: usize = 5;

/// Grants a session for a request that keeps every rule.
pub(crate) fn judge(
    registry: &Registry,
    request: &Received,
    now: Timestamp,
    explanation: &mut Explanation,
) -> Result<Grant, Refusal> {
    if (request.method.as_str(), request.path.as_str()) != ("POST", "/sessions") {
        return Err(Refusal::unknown_operation(&request.method, &request.path));
    }
    let authorization = authorization(request)?;
    let leaf = leaf(request)?;
    let key_type = leaf.check_leaf(now).map_err(Refusal::unfit_leaf)?;
    check_algorithm(&authorization, key_type)?;
    if authorization.credential_id != leaf.serial_decimal() {
        let reason = format!(
            "Credential is {}, the serial {}",
            authorization.credential_id,
            leaf.serial_decimal()
        );
        return Err(Refusal::denied("Invalid credential", reason));
    }

    let parameters = Parameters::read(request)?;
    decision::check_same_home(
        &parameters.trust_anchor,
        &parameters.profile,
        &parameters.role,
    )?;
    check_scope(request, &authorization, &parameters.trust_anchor, now)?;
    canonical::check_coverage(request, &authorization.signed_headers, &["content-type"])
        .map_err(Refusal::bad_signature)?;
    check_signature(request, &authorization, &leaf)?;

    let asked = Asked {
        leaf: &leaf,
        intermediates: &intermediates(request)?,
        trust_anchor: &parameters.trust_anchor,
        profile: &parameters.profile,
        role: &parameters.role,
        duration_seconds: parameters.duration_seconds,
        session_name: parameters.role_session_name.as_deref(),
        has_instance_properties: parameters.instance_properties.is_some(),
    };
    decision::judge(registry, &asked, now, explanation)
}

fn authorization(request: &Received) -> Result<Authorization, Refusal> {
    let value = request
        .header("authorization")
        .map_err(|reason| Refusal::denied("Missing Authentication Token", reason))?;
    Authorization::parse(value).map_err(Refusal::invalid)
}

fn leaf(request: &Received) -> Result<Certificate, Refusal> {
    let value = request.header("x-amz-x509").map_err(Refusal::invalid)?;
    certificate(value).map_err(|error| Refusal::invalid(format!("X-Amz-X509: {error}")))
}

fn intermediates(request: &Received) -> Result<Vec<Certificate>, Refusal> {
    let Some(value) = request
        .optional_header("x-amz-x509-chain")
        .map_err(Refusal::invalid)?
    else {
        return Ok(Vec::new());
    };
    let certificates: Vec<Certificate> = value
        .split(',')
        .map(certificate)
        .collect::<Result<_, _>>()
        .map_err(|error| Refusal::invalid(format!("X-Amz-X509-Chain: {error}")))?;
    check_intermediates(&certificates)?;
    Ok(certificates)
}

pub(crate) fn check_intermediates(intermediates: &[Certificate]) -> Result<(), Refusal> {
    let count = intermediates.len();
    if count > CHAIN_LENGTH {
        return Err(Refusal::invalid(format!(
            "X-Amz-X509-Chain has {count} certificates; {CHAIN_LENGTH} are allowed"
        )));
    }
    // That the service looks at those that the path does not need is a guess, on the strict side.
    intermediates
        .iter()
        .try_for_each(Certificate::check_intermediate)
        .map_err(Refusal::untrusted)
}

fn certificate(value: &str) -> Result<Certificate, String> {
    let der = STANDARD
        .decode(value)
        .map_err(|error| format!("no base64: {error}"))?;
    Certificate::from_der(&der)
}

fn check_algorithm(authorization: &Authorization, key_type: KeyType) -> Result<(), Refusal> {
    let expected = match key_type {
        KeyType::Rsa => "AWS4-X509-RSA-SHA256",
        KeyType::Ec => "AWS4-X509-ECDSA-SHA256",
    };
    if authorization.algorithm != expected {
        let message = format!(
            "algorithm {} does not fit the certificate's key: {expected}",
            authorization.algorithm
        );
        return Err(Refusal::invalid(message));
    }
    Ok(())
}

fn check_scope(
    request: &Received,
    authorization: &Authorization,
    anchor: &Arn,
    now: Timestamp,
) -> Result<(), Refusal> {
    let scope = &authorization.scope;
    if scope.service != "rolesanywhere" {
        return Err(Refusal::bad_signature(format!(
            "Credential is scoped to service {}",
            scope.service
        )));
    }
    if scope.region != anchor.region {
        let reason = format!(
            "Credential is scoped to {}, the trust anchor is in {}",
            scope.region, anchor.region
        );
        return Err(Refusal::bad_signature(reason));
    }
    let date = request.header("x-amz-date").map_err(Refusal::invalid)?;
    request_date::check(date, &scope.date, now).map_err(Refusal::bad_signature)
}

fn check_signature(
    request: &Received,
    authorization: &Authorization,
    leaf: &Certificate,
) -> Result<(), Refusal> {
    let text = canonical::string_to_sign(request, authorization).map_err(Refusal::invalid)?;
    let key = leaf.public_key().map_err(Refusal::unfit_leaf)?;
    // PKCS#1 v1.5 is OpenSSL's default for RSA; an ECDSA signature has to be strict DER. Anything it cannot even
    // read is an error of OpenSSL's, and just as wrong.
    let verified = Verifier::new(MessageDigest::sha256(), &key)
        .and_then(|mut verifier| verifier.verify_oneshot(&authorization.signature, text.as_bytes()))
        .unwrap_or(false);
    if !verified {
        return Err(Refusal::bad_signature(format!(
            "the signature does not fit this string to sign:\n{text}"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
