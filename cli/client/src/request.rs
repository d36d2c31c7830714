//! The CreateSession request, before anybody signed it.

use std::collections::BTreeMap;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rolesanywhere::{Endpoint, SessionDuration, SessionName, Target};
use serde_json::{Map, Value};
use wire::UnsignedRequest;

/// A session that somebody wants.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each name says it")]
pub struct CreateSession {
    /// The agent's identity; may be left out where the caller may use just one.
    pub identity: Option<String>,
    pub target: Target,
    pub endpoint: Endpoint,
    pub duration: SessionDuration,
    pub session_name: Option<SessionName>,
    pub instance_properties: BTreeMap<String, String>,
}

impl CreateSession {
    /// The request as it will be sent, for the agent to sign.
    pub fn unsigned(&self) -> UnsignedRequest {
        UnsignedRequest {
            identity: self.identity.clone(),
            region: self.target.region().to_string(),
            host: self.endpoint.host().to_owned(),
            query: self.query(),
            content_type: "application/json".to_owned(),
            body: self.body(),
        }
    }

    /// Sorted and encoded as SigV4 canonicalises it: nobody on the way has a reason to rewrite it.
    fn query(&self) -> String {
        let encoded = |arn| utf8_percent_encode(arn, RESERVED);
        format!(
            "profileArn={}&roleArn={}&trustAnchorArn={}",
            encoded(self.target.profile().as_ref()),
            encoded(self.target.role().as_ref()),
            encoded(self.target.trust_anchor().as_ref()),
        )
    }

    /// The duration is always said: the service's default and ours may part one day.
    fn body(&self) -> String {
        let mut body = Map::new();
        body.insert("durationSeconds".into(), self.duration.seconds().into());
        if !self.instance_properties.is_empty() {
            let properties = self.instance_properties.clone();
            body.insert(
                "instanceProperties".into(),
                properties.into_iter().collect(),
            );
        }
        if let Some(name) = &self.session_name {
            body.insert("roleSessionName".into(), name.to_string().into());
        }
        Value::Object(body).to_string()
    }
}

/// All but RFC 3986's unreserved characters.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

#[cfg(test)]
mod tests {
    use super::*;

    fn plain() -> CreateSession {
        let target = Target::new(
            "arn:aws:iam::123456789012:role/path/web_1=x+"
                .parse()
                .unwrap(),
            "arn:aws:rolesanywhere:eu-central-1:123456789012:profile/0a-1b"
                .parse()
                .unwrap(),
            "arn:aws:rolesanywhere:eu-central-1:123456789012:trust-anchor/2c-3d"
                .parse()
                .unwrap(),
        );
        CreateSession {
            identity: None,
            target: target.unwrap(),
            endpoint: "https://localhost:8443".parse().unwrap(),
            duration: 900.try_into().unwrap(),
            session_name: None,
            instance_properties: BTreeMap::new(),
        }
    }

    #[test]
    fn a_plain_request_has_one_text() {
        let unsigned = UnsignedRequest {
            identity: None,
            region: "eu-central-1".into(),
            host: "localhost:8443".into(),
            query: "profileArn=arn%3Aaws%3Arolesanywhere%3Aeu-central-1%3A123456789012%3Aprofile%2F0a-1b\
                    &roleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Fpath%2Fweb_1%3Dx%2B\
                    &trustAnchorArn=arn%3Aaws%3Arolesanywhere%3Aeu-central-1%3A123456789012%3Atrust-anchor%2F2c-3d"
                .into(),
            content_type: "application/json".into(),
            body: r#"{"durationSeconds":900}"#.into(),
        };
        assert_eq!(plain().unsigned(), unsigned);
    }

    #[test]
    fn what_was_asked_for_is_in_the_body() {
        let mut request = plain();
        request.identity = Some("web".into());
        request.session_name = Some("ci@build-7".parse().unwrap());
        request.instance_properties = [("zone", "b"), ("host", "ä \"1\"")]
            .map(|(key, value)| (key.into(), value.into()))
            .into();
        let unsigned = request.unsigned();
        assert_eq!(unsigned.identity.as_deref(), Some("web"));
        assert_eq!(
            unsigned.body,
            r#"{"durationSeconds":900,"instanceProperties":{"host":"ä \"1\"","zone":"b"},"roleSessionName":"ci@build-7"}"#
        );
    }
}
