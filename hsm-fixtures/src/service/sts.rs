//! STS GetCallerIdentity, for the credentials that this service vended.

use jiff::Timestamp;
use openssl::hash::MessageDigest;
use openssl::memcmp;
use openssl::pkey::PKey;
use openssl::sign::Signer;

use super::answer::Answer;
use super::authorization_header::Authorization;
use super::received::Received;
use super::vault::{Session, Vault};
use super::{canonical, query, request_date};

const NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";

/// An error as STS tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StsError {
    pub(crate) status: u16,
    pub(crate) code: &'static str,
    pub(crate) message: String,
}

/// Tells whose session signed the request.
pub(crate) fn caller_identity<'v>(
    vault: &'v Vault,
    request: &Received,
    now: Timestamp,
) -> Result<&'v Session, StsError> {
    let session = authenticate(vault, request, now)?;
    let pairs =
        parameters(request).map_err(|message| error(400, "MalformedQueryString", message))?;
    let parameter = |name: &str| {
        pairs
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    };
    match (parameter("Action"), parameter("Version")) {
        (Some("GetCallerIdentity"), Some("2011-06-15")) => Ok(session),
        (None, _) => Err(error(
            400,
            "MissingAction",
            "Could not find an Action in the request",
        )),
        (Some(action), version) => {
            let message = format!(
                "Could not find operation {action} for version {}",
                version.unwrap_or("NO_VERSION")
            );
            Err(error(400, "InvalidAction", message))
        }
    }
}

/// The answer's document, for a caller or for an error.
pub(crate) fn answer(outcome: Result<&Session, &StsError>, request_id: &str) -> Answer {
    match outcome {
        Ok(Session {
            arn,
            user_id,
            account,
            ..
        }) => Answer::xml(
            200,
            format!(
                "<GetCallerIdentityResponse xmlns=\"{NAMESPACE}\"><GetCallerIdentityResult><Arn>{arn}</Arn>\
                 <UserId>{user_id}</UserId><Account>{account}</Account></GetCallerIdentityResult>\
                 <ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata></GetCallerIdentityResponse>\n"
            ),
        ),
        Err(StsError {
            status,
            code,
            message,
        }) => Answer::xml(
            *status,
            format!(
                "<ErrorResponse xmlns=\"{NAMESPACE}\"><Error><Type>Sender</Type><Code>{code}</Code>\
                 <Message>{}</Message></Error><RequestId>{request_id}</RequestId></ErrorResponse>\n",
                escape(message)
            ),
        ),
    }
}

fn authenticate<'v>(
    vault: &'v Vault,
    request: &Received,
    now: Timestamp,
) -> Result<&'v Session, StsError> {
    let incomplete = |message: String| error(400, "IncompleteSignature", message);
    let mismatch = |message: String| error(403, "SignatureDoesNotMatch", message);
    let invalid = || {
        error(
            403,
            "InvalidClientTokenId",
            "The security token included in the request is invalid.",
        )
    };

    let value = request.header("authorization").map_err(|_| {
        error(
            403,
            "MissingAuthenticationToken",
            "Request is missing Authentication Token",
        )
    })?;
    let authorization = Authorization::parse(value).map_err(incomplete)?;
    if authorization.algorithm != "AWS4-HMAC-SHA256" {
        return Err(incomplete(format!(
            "Unsupported AWS 'algorithm': '{}'",
            authorization.algorithm
        )));
    }
    let session = vault
        .session(&authorization.credential_id)
        .ok_or_else(invalid)?;
    if request.header("x-amz-security-token") != Ok(session.session_token.as_str()) {
        return Err(invalid());
    }
    if now >= session.expires {
        return Err(error(
            403,
            "ExpiredToken",
            "The security token included in the request is expired",
        ));
    }
    let scope = &authorization.scope;
    if scope.service != "sts" {
        return Err(mismatch(
            "Credential should be scoped to correct service: 'sts'.".to_owned(),
        ));
    }
    let date = request.header("x-amz-date").map_err(incomplete)?;
    request_date::check(date, &scope.date, now).map_err(mismatch)?;
    canonical::check_coverage(request, &authorization.signed_headers, &[]).map_err(mismatch)?;
    let text = canonical::string_to_sign(request, &authorization).map_err(incomplete)?;
    let expected = signature(session, &authorization, &text)
        .map_err(|problem| error(500, "InternalFailure", problem.to_string()))?;
    if authorization.signature.len() != expected.len()
        || !memcmp::eq(&authorization.signature, &expected)
    {
        return Err(mismatch(
            "The request signature we calculated does not match the signature you provided."
                .to_owned(),
        ));
    }
    Ok(session)
}

/// SigV4's chain of HMACs, from the secret to the signature.
fn signature(
    session: &Session,
    authorization: &Authorization,
    text: &str,
) -> Result<Vec<u8>, openssl::error::ErrorStack> {
    let scope = &authorization.scope;
    let secret = format!("AWS4{}", session.secret_access_key).into_bytes();
    [
        &scope.date,
        &scope.region,
        &scope.service,
        "aws4_request",
        text,
    ]
    .iter()
    .try_fold(secret, |key, message| hmac(&key, message.as_bytes()))
}

fn hmac(key: &[u8], message: &[u8]) -> Result<Vec<u8>, openssl::error::ErrorStack> {
    Signer::new(MessageDigest::sha256(), PKey::hmac(key)?.as_ref())?.sign_oneshot_to_vec(message)
}

/// STS's query protocol: a form in the body of a POST, or a query.
fn parameters(request: &Received) -> Result<Vec<(String, String)>, String> {
    let mut pairs = query::parse(&request.query)?;
    if request.method == "POST" {
        let body =
            std::str::from_utf8(&request.body).map_err(|_| "the body is no UTF-8".to_owned())?;
        pairs.extend(query::parse_form(body)?);
    }
    Ok(pairs)
}

fn error(status: u16, code: &'static str, message: impl Into<String>) -> StsError {
    StsError {
        status,
        code,
        message: message.into(),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests;
