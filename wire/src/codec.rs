//! Bytes to message and back. A frame is a message without its NUL byte.
//!
//! Calls are read strictly: no unknown, repeated or missing member, no other type. Replies are read
//! as Varlink asks, unknown members ignored, so that an older `roleseal` understands a newer agent.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Map, Value, from_value, json};

use crate::{Call, JsonObject, Refusal, Reply, Request, UnsignedRequest};

/// The interface's name, the prefix of its methods and errors.
pub const INTERFACE_NAME: &str = "org.roleseal.Agent";

const GET_INFO: &str = "org.varlink.service.GetInfo";
const GET_INTERFACE_DESCRIPTION: &str = "org.varlink.service.GetInterfaceDescription";
const LIST_IDENTITIES: &str = "org.roleseal.Agent.ListIdentities";
const GET_CERTIFICATE: &str = "org.roleseal.Agent.GetCertificate";
const SIGN_CREATE_SESSION: &str = "org.roleseal.Agent.SignCreateSession";
const MAY_CREATE_SESSION: &str = "org.roleseal.Agent.MayCreateSession";

/// Reads a call. The error is the reply to send: [`Refusal::MalformedMessage`],
/// [`Refusal::InterfaceNotFound`], [`Refusal::MethodNotFound`] or [`Refusal::InvalidParameter`].
pub fn decode_request(frame: &[u8]) -> Result<Request, Refusal> {
    let mut message: Members = serde_json::from_slice(frame).map_err(|error| malformed(&error))?;
    let method: String = message.required("method")?;
    let more = message.flag("more")?;
    let oneway = message.flag("oneway")?;
    if message.flag("upgrade")? {
        return Err(invalid("upgrade")); // no other protocol to upgrade to
    }
    let parameters = message.optional("parameters")?.unwrap_or_default();
    message.end()?;
    Ok(Request {
        call: decode_call(method, parameters)?,
        more,
        oneway,
    })
}

fn decode_call(method: String, mut parameters: Members) -> Result<Call, Refusal> {
    let call = match method.as_str() {
        GET_INFO => Call::GetInfo,
        GET_INTERFACE_DESCRIPTION => Call::GetInterfaceDescription {
            interface: parameters.required("interface")?,
        },
        LIST_IDENTITIES => Call::ListIdentities,
        GET_CERTIFICATE => Call::GetCertificate {
            identity: parameters.optional("identity")?,
        },
        SIGN_CREATE_SESSION => Call::SignCreateSession(decode_unsigned(&mut parameters)?),
        MAY_CREATE_SESSION => Call::MayCreateSession(decode_unsigned(&mut parameters)?),
        _ => return Err(no_such_method(method)),
    };
    parameters.end()?;
    Ok(call)
}

fn decode_unsigned(parameters: &mut Members) -> Result<UnsignedRequest, Refusal> {
    Ok(UnsignedRequest {
        identity: parameters.optional("identity")?,
        region: parameters.required("region")?,
        host: parameters.required("host")?,
        query: parameters.required("query")?,
        content_type: parameters.required("contentType")?,
        body: parameters.required("body")?,
    })
}

fn no_such_method(method: String) -> Refusal {
    let method = shown(&method);
    match method.rsplit_once('.') {
        Some((interface, _))
            if interface != INTERFACE_NAME && interface != "org.varlink.service" =>
        {
            Refusal::InterfaceNotFound {
                interface: interface.to_owned(),
            }
        }
        _ => Refusal::MethodNotFound { method },
    }
}

/// Writes a call.
pub fn encode_request(request: &Request) -> Vec<u8> {
    let (method, parameters) = match &request.call {
        Call::GetInfo => (GET_INFO, json!({})),
        Call::GetInterfaceDescription { interface } => {
            (GET_INTERFACE_DESCRIPTION, json!({ "interface": interface }))
        }
        Call::ListIdentities => (LIST_IDENTITIES, json!({})),
        Call::GetCertificate { identity: None } => (GET_CERTIFICATE, json!({})),
        Call::GetCertificate { identity } => (GET_CERTIFICATE, json!({ "identity": identity })),
        Call::SignCreateSession(unsigned) => (SIGN_CREATE_SESSION, json!(unsigned)),
        Call::MayCreateSession(unsigned) => (MAY_CREATE_SESSION, json!(unsigned)),
    };
    let mut message = Map::new();
    message.insert("method".into(), method.into());
    message.insert("parameters".into(), parameters);
    if request.more {
        message.insert("more".into(), true.into());
    }
    if request.oneway {
        message.insert("oneway".into(), true.into());
    }
    Value::Object(message).to_string().into_bytes()
}

/// Writes a reply.
pub fn encode_reply(reply: &Reply) -> Vec<u8> {
    let message = match reply {
        Reply::Info(info) => json!({ "parameters": info }),
        Reply::Description(description) => {
            json!({ "parameters": { "description": description } })
        }
        Reply::Identities {
            identities,
            continues: true,
        } => json!({ "parameters": { "identities": identities }, "continues": true }),
        Reply::Identities { identities, .. } => {
            json!({ "parameters": { "identities": identities } })
        }
        Reply::Certificate(chain) => json!({ "parameters": { "chain": chain } }),
        Reply::Signed(headers) => json!({ "parameters": { "headers": headers } }),
        Reply::Permitted => json!({ "parameters": {} }),
        Reply::Refused(refusal) => json!(refusal),
    };
    message.to_string().into_bytes()
}

/// The bytes that `value` takes in a message.
pub fn encoded_len(value: &impl Serialize) -> usize {
    serde_json::to_vec(value).map_or(usize::MAX, |text| text.len())
}

/// Reads the reply to `call`. A reply that is none, or none to this call, is an error for a person.
pub fn decode_reply(call: &Call, frame: &[u8]) -> Result<Reply, String> {
    let message: Value = serde_json::from_slice(frame).map_err(|error| error.to_string())?;
    if let Some(name) = message.get("error") {
        let name = name.to_string();
        return Ok(Reply::Refused(
            from_value(message).map_err(|_| format!("unknown error {name}"))?,
        ));
    }
    let continues = message.get("continues").and_then(Value::as_bool) == Some(true);
    let parameters = message.get("parameters").cloned().unwrap_or_default();
    let member = |name: &str| parameters.get(name).cloned().unwrap_or_default();
    let reply = match call {
        Call::GetInfo => from_value(parameters).map(Reply::Info),
        Call::GetInterfaceDescription { .. } => {
            from_value(member("description")).map(Reply::Description)
        }
        Call::ListIdentities => {
            from_value(member("identities")).map(|identities| Reply::Identities {
                identities,
                continues,
            })
        }
        Call::GetCertificate { .. } => from_value(member("chain")).map(Reply::Certificate),
        Call::SignCreateSession(_) => from_value(member("headers")).map(Reply::Signed),
        Call::MayCreateSession(_) => {
            from_value::<Map<String, Value>>(message).map(|_| Reply::Permitted)
        }
    };
    reply.map_err(|error| error.to_string())
}

/// The members that nobody has taken out yet.
type Members = JsonObject<Box<RawValue>>;

impl Members {
    /// Takes the member out; `None` where it is absent or null.
    fn optional<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, Refusal> {
        let Some(at) = self.0.iter().position(|(member, _)| member == name) else {
            return Ok(None);
        };
        let (_, value) = self.0.remove(at);
        if self.0.iter().any(|(member, _)| member == name) {
            return Err(invalid(name));
        }
        serde_json::from_str(value.get()).map_err(|_| invalid(name))
    }

    fn required<T: DeserializeOwned>(&mut self, name: &str) -> Result<T, Refusal> {
        self.optional(name)?.ok_or_else(|| invalid(name))
    }

    fn flag(&mut self, name: &str) -> Result<bool, Refusal> {
        Ok(self.optional(name)?.unwrap_or(false))
    }

    fn end(self) -> Result<(), Refusal> {
        match self.0.first() {
            None => Ok(()),
            Some((unknown, _)) => Err(invalid(unknown)),
        }
    }
}

fn invalid(parameter: &str) -> Refusal {
    Refusal::InvalidParameter {
        parameter: shown(parameter),
    }
}

/// What a caller sent, short enough for any answer.
fn shown(text: &str) -> String {
    text.chars().take(160).collect()
}

fn malformed(error: &serde_json::Error) -> Refusal {
    Refusal::MalformedMessage {
        message: format!("not a Varlink call: {error}; send one JSON object and a NUL byte"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Identity, RequestFault, State};

    const SIGN: &str = r#"{"method":"org.roleseal.Agent.SignCreateSession","parameters":{"body":"{}","contentType":"application/json","host":"h","identity":"web","query":"q","region":"r"}}"#;

    fn unsigned() -> UnsignedRequest {
        UnsignedRequest {
            identity: Some("web".into()),
            region: "r".into(),
            host: "h".into(),
            query: "q".into(),
            content_type: "application/json".into(),
            body: "{}".into(),
        }
    }

    #[test]
    fn calls_have_one_text() {
        let cases = [
            (
                Call::GetInfo,
                r#"{"method":"org.varlink.service.GetInfo","parameters":{}}"#,
            ),
            (
                Call::GetInterfaceDescription {
                    interface: "x.y".into(),
                },
                r#"{"method":"org.varlink.service.GetInterfaceDescription","parameters":{"interface":"x.y"}}"#,
            ),
            (
                Call::ListIdentities,
                r#"{"method":"org.roleseal.Agent.ListIdentities","parameters":{}}"#,
            ),
            (
                Call::GetCertificate { identity: None },
                r#"{"method":"org.roleseal.Agent.GetCertificate","parameters":{}}"#,
            ),
            (
                Call::GetCertificate {
                    identity: Some("web".into()),
                },
                r#"{"method":"org.roleseal.Agent.GetCertificate","parameters":{"identity":"web"}}"#,
            ),
            (Call::SignCreateSession(unsigned()), SIGN),
            (
                Call::MayCreateSession(unsigned()),
                &SIGN.replace("Sign", "May"),
            ),
        ];
        for (call, text) in cases {
            let request = Request {
                call,
                more: false,
                oneway: false,
            };
            assert_eq!(String::from_utf8(encode_request(&request)).unwrap(), text);
            assert_eq!(decode_request(text.as_bytes()), Ok(request));
        }
    }

    #[test]
    fn flags_are_read_and_parameters_may_be_absent() {
        let text = br#"{"method":"org.roleseal.Agent.ListIdentities","more":true,"oneway":true}"#;
        let request = Request {
            call: Call::ListIdentities,
            more: true,
            oneway: true,
        };
        assert_eq!(decode_request(text).as_ref(), Ok(&request));
        assert_eq!(decode_request(&encode_request(&request)), Ok(request));
    }

    #[test]
    fn every_deviation_is_named() {
        let invalid_names = [
            (SIGN.replace(r#""region":"r""#, r#""region":7"#), "region"),
            (SIGN.replace(r#","region":"r""#, ""), "region"),
            (
                SIGN.replace(r#""region":"r""#, r#""region":"r","region":"s""#),
                "region",
            ),
            (
                SIGN.replace(r#""region":"r""#, r#""region":"r","path":"/x""#),
                "path",
            ),
            (
                SIGN.replace(r#""region":"r""#, r#""region":"r","headers":{}"#),
                "headers",
            ),
            (
                SIGN.replace(r#""parameters":{"#, r#""parameters":[],"x":{"#),
                "parameters",
            ),
            (
                SIGN.replace(r#""parameters""#, r#""upgrade":true,"parameters""#),
                "upgrade",
            ),
            (
                SIGN.replace(r#""parameters""#, r#""extra":1,"parameters""#),
                "extra",
            ),
            (SIGN.replace(r#""method""#, r#""more":1,"method""#), "more"),
            (SIGN.replace(r#""method""#, r#""m""#), "method"),
        ];
        for (text, name) in invalid_names {
            let refusal = decode_request(text.as_bytes()).unwrap_err();
            assert_eq!(refusal, invalid(name), "{text}");
        }
        for text in [
            "",
            "{",
            "[]",
            "7",
            "\u{1}",
            &"[".repeat(10_000),
            "{} {}",
            "\"method\"",
        ] {
            let refusal = decode_request(text.as_bytes()).unwrap_err();
            assert!(
                matches!(refusal, Refusal::MalformedMessage { .. }),
                "{text:.20}"
            );
        }
        assert!(matches!(
            decode_request(b"\xff\xfe").unwrap_err(),
            Refusal::MalformedMessage { .. }
        ));
    }

    #[test]
    fn unknown_methods_and_interfaces_differ() {
        let call =
            |method: &str| decode_request(json!({ "method": method }).to_string().as_bytes());
        let no_method = |method: &str| {
            Err(Refusal::MethodNotFound {
                method: method.into(),
            })
        };
        assert_eq!(
            call("org.roleseal.Agent.Sign"),
            no_method("org.roleseal.Agent.Sign")
        );
        assert_eq!(
            call("org.varlink.service.X"),
            no_method("org.varlink.service.X")
        );
        assert_eq!(call("nodots"), no_method("nodots"));
        assert_eq!(
            call("org.example.Other.X"),
            Err(Refusal::InterfaceNotFound {
                interface: "org.example.Other".into()
            })
        );
    }

    #[test]
    fn replies_survive_the_wire() {
        let identity = Identity {
            name: "web".into(),
            key_algorithm: Some("EC-P-256".into()),
            subject: Some("CN=web".into()),
            issuer: None,
            serial: Some("42".into()),
            not_before: None,
            not_after: None,
            key_uri: "pkcs11:token=lab;object=web".into(),
            state: State::PinRejected,
            message: Some("change the PIN".into()),
            warnings: vec!["extractable".into()],
            pin_source: None,
            signatures: Some(3),
            last_signed: Some("2026-01-01T00:00:00Z".into()),
        };
        let refusal = Refusal::TokenUnavailable {
            retry_after_seconds: Some(3),
            message: "gone".into(),
        };
        let cases = [
            (
                Call::ListIdentities,
                Reply::Identities {
                    identities: vec![identity.clone()],
                    continues: true,
                },
            ),
            (
                Call::ListIdentities,
                Reply::Identities {
                    identities: vec![],
                    continues: false,
                },
            ),
            (
                Call::GetInterfaceDescription {
                    interface: "i".into(),
                },
                Reply::Description("d".into()),
            ),
            (
                Call::GetCertificate { identity: None },
                Reply::Certificate(vec!["TUlJ".into(), "QUJD".into()]),
            ),
            (
                Call::SignCreateSession(unsigned()),
                Reply::Signed([("A".into(), "b".into())].into()),
            ),
            (Call::GetInfo, Reply::Refused(refusal)),
            (
                Call::ListIdentities,
                Reply::Refused(Refusal::ExpectedMore {}),
            ),
        ];
        for (call, reply) in cases {
            assert_eq!(decode_reply(&call, &encode_reply(&reply)), Ok(reply));
        }
    }

    #[test]
    fn older_and_newer_agents_are_understood() {
        let identity = |more: &str| {
            let text = format!(
                r#"{{"parameters":{{"identities":[{{"name":"web","keyUri":"k","state":"ready"{more}}}]}}}}"#
            );
            match decode_reply(&Call::ListIdentities, text.as_bytes()) {
                Ok(Reply::Identities { mut identities, .. }) => identities.remove(0),
                other => panic!("{other:?}"),
            }
        };
        let old = identity("");
        assert_eq!((old.signatures, &old.last_signed), (None, &None));
        let new = identity(r#","signatures":7,"added":{"later":[]}"#);
        assert_eq!(new.signatures, Some(7));
    }

    #[test]
    fn a_refusal_is_a_varlink_error() {
        let refusal = Refusal::RequestRefused {
            fault: RequestFault::MissingParameter,
            message: "no roleArn".into(),
        };
        assert_eq!(
            String::from_utf8(encode_reply(&Reply::Refused(refusal))).unwrap(),
            r#"{"error":"org.roleseal.Agent.RequestRefused","parameters":{"fault":"missingParameter","message":"no roleArn"}}"#
        );
    }

    #[test]
    fn a_reply_that_is_none_is_an_error() {
        for text in [
            "",
            "[]",
            "{}",
            r#"{"error":"org.example.New","parameters":{}}"#,
            r#"{"error":7}"#,
        ] {
            assert!(
                decode_reply(&Call::SignCreateSession(unsigned()), text.as_bytes()).is_err(),
                "{text}"
            );
        }
    }

    #[test]
    fn every_error_and_method_of_the_code_is_in_the_interface() {
        for method in [LIST_IDENTITIES, GET_CERTIFICATE, SIGN_CREATE_SESSION] {
            let name = method.rsplit('.').next().unwrap();
            assert!(crate::INTERFACE.contains(&format!("method {name}(")));
        }
        for line in include_str!("message.rs").lines() {
            if let Some((_, name)) = line.split_once("rename = \"org.roleseal.Agent.") {
                let name = name.trim_end_matches("\")]");
                assert!(
                    crate::INTERFACE.contains(&format!("error {name} (")),
                    "{name}"
                );
            }
        }
    }
}
