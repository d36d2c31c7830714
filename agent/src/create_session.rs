//! The strict reading of an unsigned request. What is signed later is what was read here, so nothing
//! may pass that this agent and AWS could read differently.

use std::collections::BTreeSet;
use std::fmt;

use percent_encoding::percent_decode_str;
use rolesanywhere::{Endpoint, Region, SessionDuration, SessionName, Target};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use wire::{JsonObject, Refusal, RequestFault, UnsignedRequest};

/// A CreateSession request, unsigned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateSession {
    target: Target,
    host: String,
    duration: Option<SessionDuration>,
    session_name: Option<SessionName>,
    body: String,
}

/// The only content type that is signed.
pub const CONTENT_TYPE: &str = "application/json";

impl CreateSession {
    /// Reads the request. `endpoints` are those that may be called beside AWS's own.
    pub fn parse(
        unsigned: UnsignedRequest,
        endpoints: &[Endpoint],
    ) -> Result<CreateSession, Refusal> {
        if unsigned.content_type != CONTENT_TYPE {
            let fault = format!("the content type must be {CONTENT_TYPE}");
            return Err(refused(RequestFault::ContentType, fault));
        }
        let target = parse_query(&unsigned.query)?;
        let region: Region = unsigned
            .region
            .parse()
            .map_err(|fault: String| refused(RequestFault::Region, fault))?;
        if region != *target.region() {
            return Err(refused(
                RequestFault::Region,
                format!(
                    "region {region} is called for a trust anchor in {}: they must be the same",
                    target.region()
                ),
            ));
        }
        let own = target.partition().serves(&unsigned.host, &region);
        if !own
            && !endpoints
                .iter()
                .any(|endpoint| endpoint.host() == unsigned.host)
        {
            return Err(foreign_host(&unsigned.host, &region));
        }
        let Body {
            duration,
            session_name,
        } = parse_body(&unsigned.body)?;
        Ok(CreateSession {
            target,
            host: unsigned.host,
            duration,
            session_name,
            body: unsigned.body,
        })
    }

    /// Role, profile and trust anchor.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The `Host` header.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// `durationSeconds`; `None` leaves it to AWS.
    pub fn duration(&self) -> Option<SessionDuration> {
        self.duration
    }

    /// `roleSessionName`; `None` leaves it to AWS.
    pub fn session_name(&self) -> Option<&SessionName> {
        self.session_name.as_ref()
    }

    /// The body, byte for byte as it will be sent.
    pub fn body(&self) -> &str {
        &self.body
    }
}

/// Reads `profileArn=…&roleArn=…&trustAnchorArn=…`, each once, in any order.
fn parse_query(query: &str) -> Result<Target, Refusal> {
    let (mut profile, mut role, mut trust_anchor) = (None, None, None);
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let place = match name {
            "profileArn" => &mut profile,
            "roleArn" => &mut role,
            "trustAnchorArn" => &mut trust_anchor,
            _ => return Err(unknown(name)),
        };
        if place.replace(decode(name, value)?).is_some() {
            return Err(repeated(name));
        }
    }
    let profile = profile.ok_or_else(|| missing("profileArn"))?;
    let role = role.ok_or_else(|| missing("roleArn"))?;
    let trust_anchor = trust_anchor.ok_or_else(|| missing("trustAnchorArn"))?;
    let target = || Target::new(role.parse()?, profile.parse()?, trust_anchor.parse()?);
    target().map_err(|fault: rolesanywhere::ArnError| invalid(fault.to_string()))
}

/// Percent-decodes. A `+` is refused: some read it as a space.
fn decode(name: &str, value: &str) -> Result<String, Refusal> {
    let malformed = || invalid(format!("{name} is not percent-encoded UTF-8 (RFC 3986)"));
    if value.contains('+') {
        return Err(malformed());
    }
    let text = percent_decode_str(value)
        .decode_utf8()
        .map_err(|_| malformed())?;
    Ok(text.into_owned())
}

/// What the policy and the log need of the body. `instanceProperties` are checked and travel in it.
#[derive(Default)]
struct Body {
    duration: Option<SessionDuration>,
    session_name: Option<SessionName>,
}

fn parse_body(body: &str) -> Result<Body, Refusal> {
    let fault = |kind, what: &str| {
        let text = format!("the body is not a CreateSession body: {}", shown(what));
        refused(kind, text)
    };
    let members: Members = serde_json::from_str(body)
        .map_err(|error| fault(RequestFault::InvalidParameter, &error.to_string()))?;
    if let Some((kind, name)) = members.fault {
        let what = match kind {
            RequestFault::RepeatedParameter => format!("{name:?} is repeated"),
            _ => format!("unknown member {name:?}"),
        };
        return Err(fault(kind, &what));
    }
    Ok(Body {
        duration: members
            .duration_seconds
            .map(SessionDuration::try_from)
            .transpose()
            .map_err(invalid)?,
        session_name: members
            .role_session_name
            .map(|name| name.parse())
            .transpose()
            .map_err(invalid)?,
    })
}

/// A body's members as JSON types, each of them null or absent where it may be.
#[derive(Default)]
struct Members {
    duration_seconds: Option<u64>,
    role_session_name: Option<String>,
    /// The first name that is unknown or repeated.
    fault: Option<(RequestFault, String)>,
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Members, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Members::default();
                let mut seen = BTreeSet::new();
                while let Some(name) = map.next_key::<String>()? {
                    let mut fault = None;
                    match name.as_str() {
                        "durationSeconds" => members.duration_seconds = map.next_value()?,
                        "roleSessionName" => members.role_session_name = map.next_value()?,
                        "instanceProperties" => {
                            let properties: Option<JsonObject<String>> = map.next_value()?;
                            let repeated = properties.as_ref().and_then(JsonObject::repeated);
                            fault = repeated
                                .map(|name| (RequestFault::RepeatedParameter, name.to_owned()));
                        }
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            fault = Some((RequestFault::UnknownParameter, name.clone()));
                        }
                    }
                    if !seen.insert(name.clone()) {
                        fault = Some((RequestFault::RepeatedParameter, name));
                    }
                    members.fault = members.fault.or(fault);
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// What a caller sent, short enough for an answer and a log line.
fn shown(text: &str) -> String {
    text.chars().take(160).collect()
}

fn foreign_host(host: &str, region: &Region) -> Refusal {
    let seen = shown(host);
    let remedy = match format!("https://{host}").parse::<Endpoint>() {
        Ok(endpoint) if endpoint.host() == seen => {
            format!("to permit it, add \"{endpoint}\" to the identity's endpoints")
        }
        _ => "it must be a name in lower case, with a port only where that is not 443".to_owned(),
    };
    let fault = format!("host {seen:?} is not the endpoint of {region}: {remedy}");
    refused(RequestFault::Host, fault)
}

fn unknown(name: &str) -> Refusal {
    let fault = format!("parameter {:?} is not one of CreateSession", shown(name));
    refused(RequestFault::UnknownParameter, fault)
}

fn repeated(name: &str) -> Refusal {
    let fault = format!("parameter {name} is given more than once");
    refused(RequestFault::RepeatedParameter, fault)
}

fn missing(name: &str) -> Refusal {
    let fault = format!("parameter {name} is missing from the query");
    refused(RequestFault::MissingParameter, fault)
}

fn invalid(message: String) -> Refusal {
    refused(RequestFault::InvalidParameter, message)
}

fn refused(fault: RequestFault, message: String) -> Refusal {
    Refusal::RequestRefused { fault, message }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const QUERY: &str = "profileArn=arn%3Aaws%3Arolesanywhere%3Aeu-central-1%3A123456789012%3Aprofile%2F0a&roleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Fweb-1&trustAnchorArn=arn%3Aaws%3Arolesanywhere%3Aeu-central-1%3A123456789012%3Atrust-anchor%2F1b";

    pub(crate) fn unsigned(body: &str) -> UnsignedRequest {
        UnsignedRequest {
            identity: None,
            region: "eu-central-1".into(),
            host: "rolesanywhere.eu-central-1.amazonaws.com".into(),
            query: QUERY.into(),
            content_type: "application/json".into(),
            body: body.into(),
        }
    }

    fn parse(
        adapt: impl Fn(&mut UnsignedRequest),
    ) -> Result<CreateSession, (RequestFault, String)> {
        let mut request = unsigned("{}");
        adapt(&mut request);
        let endpoints = ["https://localhost:8443".parse().unwrap()];
        CreateSession::parse(request, &endpoints).map_err(|refusal| match refusal {
            Refusal::RequestRefused { fault, message } => (fault, message),
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn a_request_is_read() {
        let body = r#"{"durationSeconds":900,"roleSessionName":"web@host","instanceProperties":{"a":"b"}}"#;
        let request = parse(|request| request.body = body.into()).unwrap();
        assert_eq!(
            request.target().role().as_ref(),
            "arn:aws:iam::123456789012:role/web-1"
        );
        assert_eq!(request.duration().unwrap().seconds(), 900);
        assert_eq!(request.session_name().unwrap().to_string(), "web@host");
        assert_eq!(request.body(), body);
    }

    #[test]
    fn order_and_encoding_of_the_query_are_free() {
        let plain = percent_decode_str(QUERY)
            .decode_utf8()
            .unwrap()
            .into_owned();
        let turned: Vec<&str> = plain.rsplit('&').collect();
        let request = parse(|request| request.query = turned.join("&")).unwrap();
        assert_eq!(request, parse(|_| {}).unwrap());
    }

    #[test]
    fn own_endpoints_and_configured_ones_may_be_called() {
        for host in [
            "rolesanywhere-fips.eu-central-1.amazonaws.com",
            "rolesanywhere.eu-central-1.api.aws",
            "localhost:8443",
        ] {
            assert!(
                parse(|request| request.host = host.into()).is_ok(),
                "{host}"
            );
        }
    }

    #[test]
    fn every_deviation_is_named() {
        use RequestFault::*;
        let query = |change: &dyn Fn(&str) -> String| {
            parse(|request| request.query = change(QUERY))
                .unwrap_err()
                .0
        };
        assert_eq!(query(&|_| String::new()), UnknownParameter);
        assert_eq!(
            query(&|q| q.replace("roleArn=", "roleArn2=")),
            UnknownParameter
        );
        assert_eq!(
            query(&|q| q.replace("roleArn=", "rolearn=")),
            UnknownParameter
        );
        assert_eq!(query(&|q| format!("{q}&X-Amz-Date=1")), UnknownParameter);
        assert_eq!(query(&|q| format!("{q}&")), UnknownParameter);
        assert_eq!(
            query(&|q| q[..q.rfind('&').unwrap()].to_owned()),
            MissingParameter
        );
        assert_eq!(
            query(&|q| format!("{q}&{}", q.split('&').next().unwrap())),
            RepeatedParameter
        );
        assert_eq!(query(&|q| q.replace("web-1", "web+1")), InvalidParameter);
        assert_eq!(query(&|q| q.replace("web-1", "web%ff")), InvalidParameter);
        assert_eq!(query(&|q| q.replace("web-1", "web%0a")), InvalidParameter);
        assert_eq!(query(&|q| q.replace("web-1", "")), InvalidParameter);
        assert_eq!(
            query(&|q| q.replacen("eu-central-1", "eu-west-1", 1)),
            InvalidParameter
        );
        assert_eq!(
            query(&|q| q.replace("aws%3Aiam", "aws-cn%3Aiam")),
            InvalidParameter
        );

        let host = |host: &str| parse(|request| request.host = host.into()).unwrap_err().0;
        for other in [
            "",
            "localhost",
            "localhost:8444",
            "rolesanywhere.eu-west-1.amazonaws.com",
            "rolesanywhere.eu-central-1.amazonaws.com.evil.example",
            "rolesanywhere.eu-central-1.amazonaws.com/sessions",
            "rolesanywhere.eu-central-1.amazonaws.com\nx-evil:1",
            "sts.eu-central-1.amazonaws.com",
            "ROLESANYWHERE.eu-central-1.amazonaws.com",
        ] {
            assert_eq!(host(other), Host, "{other}");
        }
        let remedy = |host: &str| {
            let refused = parse(|request| request.host = host.into()).unwrap_err().1;
            let (fault, remedy) = refused.split_once(": ").unwrap();
            assert_eq!(
                fault,
                format!("host {host:?} is not the endpoint of eu-central-1")
            );
            remedy.to_owned()
        };
        for host in ["localhost:8444", "[::1]", "sts.eu-central-1.amazonaws.com"] {
            assert_eq!(
                remedy(host),
                format!("to permit it, add \"https://{host}\" to the identity's endpoints")
            );
        }
        for host in ["", "LOCALHOST", "localhost:443", "localhost/sessions"] {
            assert!(remedy(host).contains("in lower case"), "{host}");
        }
        let long = parse(|request| request.host = "a".repeat(10_000));
        assert!(long.unwrap_err().1.len() < 400);
        for region in ["", "eu-west-1", "EU-CENTRAL-1", "eu-central-1 "] {
            assert_eq!(
                parse(|request| request.region = region.into())
                    .unwrap_err()
                    .0,
                Region
            );
        }
        for content_type in [
            "",
            "text/plain",
            "application/json; charset=utf-8",
            "Application/json",
        ] {
            let error = parse(|request| request.content_type = content_type.into()).unwrap_err();
            assert_eq!(error.0, ContentType);
        }
        for (body, fault) in [
            ("", InvalidParameter),
            ("[]", InvalidParameter),
            (r#"[900,"ab",null]"#, InvalidParameter),
            (r#"[900,null,{"a":"b"}]"#, InvalidParameter),
            ("{} {}", InvalidParameter),
            ("null", InvalidParameter),
            (r#"{"roleArn":"x"}"#, UnknownParameter),
            (r#"{"durationseconds":900}"#, UnknownParameter),
            (
                r#"{"durationSeconds":900,"durationSeconds":43200}"#,
                RepeatedParameter,
            ),
            (
                r#"{"durationSeconds":900,"duration\u0053econds":43200}"#,
                RepeatedParameter,
            ),
            (r#"{"durationSeconds":899}"#, InvalidParameter),
            (r#"{"durationSeconds":43201}"#, InvalidParameter),
            (r#"{"durationSeconds":900.0}"#, InvalidParameter),
            (r#"{"durationSeconds":"900"}"#, InvalidParameter),
            (r#"{"durationSeconds":-900}"#, InvalidParameter),
            (r#"{"roleSessionName":"a b"}"#, InvalidParameter),
            (r#"{"roleSessionName":7}"#, InvalidParameter),
            (r#"{"instanceProperties":{"a":1}}"#, InvalidParameter),
            (
                r#"{"instanceProperties":{"a":"1","a":"2"}}"#,
                RepeatedParameter,
            ),
            (r#"{"instanceProperties":[]}"#, InvalidParameter),
        ] {
            let error = parse(|request| request.body = body.into()).unwrap_err();
            assert_eq!(error.0, fault, "{body}: {}", error.1);
        }
    }
}
