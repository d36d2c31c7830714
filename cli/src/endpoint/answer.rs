//! Answers as AWS tools read them.

use client::session::Session;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::{Response, StatusCode};
use jiff::Timestamp;
use secrecy::ExposeSecret;
use serde::Serialize;

pub(super) type Answer = Response<Full<Bytes>>;

/// An answer's mark: the token that the request showed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Authorized {
    /// A target's own.
    Owner,
    /// One of a service account.
    Account(String),
}

pub(super) fn text(text: impl Into<String>) -> Answer {
    answer(StatusCode::OK, "text/plain", text.into().into_bytes())
}

/// Metrics, in the text format of OpenMetrics 1.0.
pub(super) fn open_metrics(text: String) -> Answer {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    answer(StatusCode::OK, content_type, text.into_bytes())
}

pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(json) => answer(status, "application/json", json),
        Err(_) => answer(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", Vec::new()),
    }
}

/// In the form that SDKs quote from.
pub(super) fn refusal(status: StatusCode, message: &str) -> Answer {
    #[derive(Serialize)]
    struct Refusal<'m> {
        code: &'m str,
        message: &'m str,
    }
    let code = status.canonical_reason().unwrap_or("Error");
    json(status, &Refusal { code, message })
}

/// A session in the form of ECS and EKS.
pub(super) fn credentials(session: &Session) -> Answer {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Credentials<'s> {
        access_key_id: &'s str,
        secret_access_key: &'s str,
        token: &'s str,
        expiration: String,
    }
    let credentials = &session.credentials;
    json(
        StatusCode::OK,
        &Credentials {
            access_key_id: &credentials.access_key_id,
            secret_access_key: credentials.secret_access_key.expose_secret(),
            token: credentials.session_token.expose_secret(),
            expiration: time(credentials.expiration),
        },
    )
}

pub(super) fn not_found() -> Answer {
    refusal(StatusCode::NOT_FOUND, "there is no such document")
}

pub(super) fn method_not_allowed() -> Answer {
    let message = "this document takes another method";
    refusal(StatusCode::METHOD_NOT_ALLOWED, message)
}

/// Whole seconds in UTC: some readers know no other form. A fraction is cut off, never added.
pub(super) fn time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn answer(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}
