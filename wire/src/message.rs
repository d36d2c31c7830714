//! The messages of the protocol, as types. Their text is the [`codec`](crate::codec)'s affair.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A call as it arrived: what is asked, and how the caller wants it answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The method and its parameters.
    pub call: Call,
    /// The caller accepts several replies (Varlink's `more`).
    pub more: bool,
    /// The caller wants no reply (Varlink's `oneway`).
    pub oneway: bool,
}

/// A method and its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// `org.varlink.service.GetInfo`
    GetInfo,
    /// `org.varlink.service.GetInterfaceDescription`
    GetInterfaceDescription {
        /// The interface's name.
        interface: String,
    },
    /// `org.roleseal.Agent.ListIdentities`
    ListIdentities,
    /// `org.roleseal.Agent.GetCertificate`
    GetCertificate {
        /// The identity; may be left out where the caller may use just one.
        identity: Option<String>,
    },
    /// `org.roleseal.Agent.SignCreateSession`
    SignCreateSession(UnsignedRequest),
    /// `org.roleseal.Agent.MayCreateSession`
    MayCreateSession(UnsignedRequest),
}

/// A `POST /sessions` request before it is signed, as the caller will send it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UnsignedRequest {
    /// The identity to sign with; may be left out where the caller may use just one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// The AWS region that is called, such as `eu-central-1`.
    pub region: String,
    /// The `Host` header, with the port where it is not 443.
    pub host: String,
    /// The query string, percent-encoded, without its question mark.
    pub query: String,
    /// The `Content-Type` header.
    pub content_type: String,
    /// The body, a JSON object.
    pub body: String,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// To [`Call::GetInfo`].
    Info(ServiceInfo),
    /// To [`Call::GetInterfaceDescription`]: the interface's definition.
    Description(String),
    /// To [`Call::ListIdentities`].
    Identities {
        /// One batch of them.
        identities: Vec<Identity>,
        /// Another reply follows.
        continues: bool,
    },
    /// To [`Call::GetCertificate`]: base64 of DER, the leaf first.
    Certificate(Vec<String>),
    /// To [`Call::SignCreateSession`]: the headers to add, by name.
    Signed(BTreeMap<String, String>),
    /// To [`Call::MayCreateSession`]: the policy permits it.
    Permitted,
    /// To any call: no, and why.
    Refused(Refusal),
}

/// Who answers, for `org.varlink.service.GetInfo`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // the members' names are Varlink's, and say it
pub struct ServiceInfo {
    pub vendor: String,
    pub product: String,
    pub version: String,
    pub url: String,
    pub interfaces: Vec<String>,
}

/// One identity of the agent, as it shows it. What only the certificate can tell is `None` while
/// there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// The name in the agent's configuration.
    pub name: String,
    /// Such as `RSA-2048` or `EC-P-256`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_algorithm: Option<String>,
    /// The certificate's subject, RFC 4514.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The certificate's issuer, RFC 4514.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// The certificate's serial number, decimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// RFC 3339, UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<String>,
    /// RFC 3339, UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_after: Option<String>,
    /// The key's URI, without any PIN.
    pub key_uri: String,
    /// Whether it can sign.
    pub state: State,
    /// Why it cannot, and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What works, but should not stay so.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Where its PIN or auth value comes from; `None` where it has none, and from an agent that does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pin_source: Option<PinSource>,
    /// How many requests were signed for it, whoever asked, since the agent started; `None` from an
    /// agent that does not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signatures: Option<u64>,
    /// When the last one was, RFC 3339, UTC; `None` before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_signed: Option<String>,
}

/// Where a PIN comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PinSource {
    /// A file, which a reload reads again.
    File,
    /// A systemd credential, which is copied when the service starts: only a restart brings a corrected one.
    Credential,
    /// The key's URI, in the configuration.
    Uri,
}

/// Whether an identity can sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// Its token is being opened.
    Opening,
    /// It signs.
    Ready,
    /// Its token is gone or does not answer; the agent goes on trying.
    Unavailable,
    /// Its token refused the PIN, which is not tried again.
    PinRejected,
    /// Its key, certificate or configuration must be mended first.
    Unusable,
}

/// Why a call was not answered with what it asked for. `Display` is a sentence for a person; the
/// variant is for a program.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
#[serde(tag = "error", content = "parameters", rename_all_fields = "camelCase")]
#[allow(missing_docs)] // the interface definition documents each error and its members
pub enum Refusal {
    #[error("{message}")]
    #[serde(rename = "org.roleseal.Agent.IdentityNotFound")]
    IdentityNotFound { identity: String, message: String },
    #[error("{message}")]
    #[serde(rename = "org.roleseal.Agent.IdentityAmbiguous")]
    IdentityAmbiguous {
        identities: Vec<String>,
        message: String,
    },
    #[error("{message}")]
    #[serde(rename = "org.roleseal.Agent.IdentityUnusable")]
    IdentityUnusable { identity: String, message: String },
    #[error("{message}")]
    #[serde(rename = "org.roleseal.Agent.NotPermitted")]
    NotPermitted { rule: Rule, message: String },
    #[error("{message}")]
    #[serde(rename = "org.roleseal.Agent.RequestRefused")]
    RequestRefused {
        fault: RequestFault,
        message: String,
    },
    #[error("{message}")]
    #[serde(rename = "org.roleseal.Agent.TokenUnavailable")]
    TokenUnavailable {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after_seconds: Option<u64>,
        message: String,
    },
    #[error("{message}")]
    #[serde(rename = "org.roleseal.Agent.PinRejected")]
    PinRejected { message: String },
    #[error("{message}")]
    #[serde(rename = "org.roleseal.Agent.SignatureInvalid")]
    SignatureInvalid { message: String },
    #[error("{message}")]
    #[serde(rename = "org.roleseal.Agent.Busy")]
    Busy { message: String },
    #[error("{message}")]
    #[serde(rename = "org.roleseal.Agent.NotConfigured")]
    NotConfigured { message: String },
    #[error("{message}")]
    #[serde(rename = "org.roleseal.Agent.DeadlineExceeded")]
    DeadlineExceeded { message: String },
    #[error("{message}")]
    #[serde(rename = "org.roleseal.Agent.MalformedMessage")]
    MalformedMessage { message: String },
    #[error("{message}")]
    #[serde(rename = "org.roleseal.Agent.MessageTooLarge")]
    MessageTooLarge { limit: usize, message: String },
    #[error("the agent has no interface {interface:?}")]
    #[serde(rename = "org.varlink.service.InterfaceNotFound")]
    InterfaceNotFound { interface: String },
    #[error("the agent has no method {method:?}")]
    #[serde(rename = "org.varlink.service.MethodNotFound")]
    MethodNotFound { method: String },
    #[error("parameter {parameter:?} is missing, unknown, repeated or of another type")]
    #[serde(rename = "org.varlink.service.InvalidParameter")]
    InvalidParameter { parameter: String },
    #[error("the answer does not fit into one message: call with \"more\"")]
    #[serde(rename = "org.varlink.service.ExpectedMore")]
    ExpectedMore {},
}

impl Refusal {
    /// The error's name without its interface, such as `NotPermitted`.
    pub fn name(&self) -> &'static str {
        match self {
            Refusal::IdentityNotFound { .. } => "IdentityNotFound",
            Refusal::IdentityAmbiguous { .. } => "IdentityAmbiguous",
            Refusal::IdentityUnusable { .. } => "IdentityUnusable",
            Refusal::NotPermitted { .. } => "NotPermitted",
            Refusal::RequestRefused { .. } => "RequestRefused",
            Refusal::TokenUnavailable { .. } => "TokenUnavailable",
            Refusal::PinRejected { .. } => "PinRejected",
            Refusal::SignatureInvalid { .. } => "SignatureInvalid",
            Refusal::Busy { .. } => "Busy",
            Refusal::NotConfigured { .. } => "NotConfigured",
            Refusal::DeadlineExceeded { .. } => "DeadlineExceeded",
            Refusal::MalformedMessage { .. } => "MalformedMessage",
            Refusal::MessageTooLarge { .. } => "MessageTooLarge",
            Refusal::InterfaceNotFound { .. } => "InterfaceNotFound",
            Refusal::MethodNotFound { .. } => "MethodNotFound",
            Refusal::InvalidParameter { .. } => "InvalidParameter",
            Refusal::ExpectedMore {} => "ExpectedMore",
        }
    }
}

/// Which part of a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)] // named as the parts are
pub enum RequestFault {
    Region,
    Host,
    ContentType,
    MissingParameter,
    RepeatedParameter,
    UnknownParameter,
    InvalidParameter,
}

/// Which part of the policy said no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)] // named as the parts are
pub enum Rule {
    Caller,
    Role,
    Profile,
    TrustAnchor,
    Duration,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_refusal_is_named_as_on_the_wire() {
        let ours = crate::INTERFACE
            .lines()
            .filter_map(|line| line.strip_prefix("error "))
            .map(|error| {
                let name = error.split(' ').next().unwrap();
                format!("{}.{name}", crate::INTERFACE_NAME)
            });
        let varlinks = [
            "InterfaceNotFound",
            "MethodNotFound",
            "InvalidParameter",
            "ExpectedMore",
        ]
        .map(|name| format!("org.varlink.service.{name}"));
        let errors: Vec<String> = ours.chain(varlinks).collect();
        assert_eq!(errors.len(), 17, "{errors:?}");
        for error in errors {
            let parameters = json!({
                "identity": "", "identities": [], "message": "", "rule": "caller", "fault": "host",
                "limit": 1, "interface": "", "method": "", "parameter": "",
            });
            let refusal: Refusal =
                serde_json::from_value(json!({ "error": error, "parameters": parameters }))
                    .unwrap();
            assert_eq!(Some(refusal.name()), error.rsplit('.').next());
        }
    }
}
