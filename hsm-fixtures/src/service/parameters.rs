//! CreateSession's parameters, from query and body.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::arn::Arn;
use super::query;
use super::received::Received;
use super::refusal::Refusal;
use super::registry::SESSION_SECONDS;

/// Limits of `instanceProperties` in the service's API model: entries, and characters of a key or a value.
const PROPERTIES: usize = 50;
const PROPERTY_CHARS: usize = 200;

pub(crate) struct Parameters {
    pub(crate) trust_anchor: Arn,
    pub(crate) profile: Arn,
    pub(crate) role: Arn,
    /// Seconds, within [`SESSION_SECONDS`].
    pub(crate) duration_seconds: Option<i64>,
    pub(crate) role_session_name: Option<String>,
    pub(crate) instance_properties: Option<BTreeMap<String, String>>,
}

impl Parameters {
    /// AWS's helper sends the three ARNs in the query, awslabs' Python client in the body; each may come once.
    pub(crate) fn read(request: &Received) -> Result<Parameters, Refusal> {
        let mut body = Body::read(request)?;
        for (name, value) in query::parse(&request.query).map_err(Refusal::invalid)? {
            let place = match name.as_str() {
                "trustAnchorArn" => &mut body.trust_anchor_arn,
                "profileArn" => &mut body.profile_arn,
                "roleArn" => &mut body.role_arn,
                _ => {
                    return Err(Refusal::invalid(format!(
                        "unknown parameter {name} in the query"
                    )));
                }
            };
            if place.replace(value).is_some() {
                return Err(Refusal::invalid(format!("{name} is given more than once")));
            }
        }
        let parameters = Parameters {
            trust_anchor: arn("trustAnchorArn", body.trust_anchor_arn, Arn::trust_anchor)?,
            profile: arn("profileArn", body.profile_arn, Arn::profile)?,
            role: arn("roleArn", body.role_arn, Arn::role)?,
            duration_seconds: body.duration_seconds,
            role_session_name: body.role_session_name,
            instance_properties: body.instance_properties,
        };
        parameters.check_values()?;
        Ok(parameters)
    }

    fn check_values(&self) -> Result<(), Refusal> {
        if let Some(seconds) = self
            .duration_seconds
            .filter(|seconds| !SESSION_SECONDS.contains(seconds))
        {
            return Err(Refusal::invalid(format!(
                "durationSeconds is {seconds}, not within 900 to 43200"
            )));
        }
        if let Some(name) = self
            .role_session_name
            .as_ref()
            .filter(|name| !is_session_name(name))
        {
            return Err(Refusal::invalid(format!(
                "roleSessionName is not [\\w+=,.@-]{{2,64}}: {name}"
            )));
        }
        for (key, value) in self.instance_properties.iter().flatten() {
            let fits = |text: &str| (1..=PROPERTY_CHARS).contains(&text.chars().count());
            if !fits(key) || !fits(value) {
                return Err(Refusal::invalid(
                    "instanceProperties has a key or value not of 1 to 200 characters",
                ));
            }
        }
        if self
            .instance_properties
            .as_ref()
            .is_some_and(|map| map.len() > PROPERTIES)
        {
            return Err(Refusal::invalid(
                "instanceProperties has more than 50 entries",
            ));
        }
        Ok(())
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body {
    trust_anchor_arn: Option<String>,
    profile_arn: Option<String>,
    role_arn: Option<String>,
    duration_seconds: Option<i64>,
    role_session_name: Option<String>,
    instance_properties: Option<BTreeMap<String, String>>,
}

impl Body {
    fn read(request: &Received) -> Result<Body, Refusal> {
        if let Some(content_type) = request
            .optional_header("content-type")
            .map_err(Refusal::invalid)?
        {
            let media_type = content_type.split(';').next().unwrap_or_default().trim();
            if media_type != "application/json" {
                return Err(Refusal::invalid(format!(
                    "content-type is {content_type}, not application/json"
                )));
            }
        }
        if request.body.is_empty() {
            return Ok(Body::default());
        }
        serde_json::from_slice(&request.body)
            .map_err(|error| Refusal::invalid(format!("in the body: {error}")))
    }
}

fn arn(
    name: &str,
    value: Option<String>,
    parse: fn(&str) -> Result<Arn, String>,
) -> Result<Arn, Refusal> {
    let value = value.ok_or_else(|| Refusal::invalid(format!("{name} is missing")))?;
    parse(&value).map_err(|error| Refusal::invalid(format!("{name}: {error}")))
}

fn is_session_name(name: &str) -> bool {
    (2..=64).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_+=,.@-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUERY: &str = "profileArn=arn%3Aaws%3Arolesanywhere%3Aeu-central-1%3A123456789012%3Aprofile%2F1\
        &roleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Fweb\
        &trustAnchorArn=arn%3Aaws%3Arolesanywhere%3Aeu-central-1%3A123456789012%3Atrust-anchor%2F1";

    fn read(query: &str, body: &str) -> Result<Parameters, String> {
        let request = Received {
            method: "POST".to_owned(),
            path: "/sessions".to_owned(),
            query: query.to_owned(),
            headers: vec![("content-type".to_owned(), "application/json".to_owned())],
            body: body.as_bytes().to_vec(),
        };
        Parameters::read(&request).map_err(|refusal| refusal.message)
    }

    #[test]
    fn arns_may_come_in_the_query_or_in_the_body() {
        let from_query = read(QUERY, r#"{"durationSeconds":900}"#).unwrap();
        assert_eq!(from_query.duration_seconds, Some(900));
        let body = r#"{"trustAnchorArn":"arn:aws:rolesanywhere:eu-central-1:123456789012:trust-anchor/1",
            "profileArn":"arn:aws:rolesanywhere:eu-central-1:123456789012:profile/1",
            "roleArn":"arn:aws:iam::123456789012:role/web","instanceProperties":{"rack":"7"}}"#;
        let from_body = read("", body).unwrap();
        assert_eq!(from_body.role, from_query.role);
        assert_eq!(from_body.instance_properties.unwrap()["rack"], "7");
        assert!(read(QUERY, "").is_ok());
    }

    #[test]
    fn each_wrong_parameter_is_refused_by_name() {
        let role = "arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Fweb";
        let again = format!("{QUERY}&roleArn={role}");
        let without = QUERY.replace("roleArn", "durationSeconds");
        let long = format!(r#"{{"roleSessionName":"{}"}}"#, "a".repeat(65));
        let cases = [
            (again.as_str(), "{}", "roleArn is given more than once"),
            (
                QUERY,
                r#"{"roleArn":"arn:aws:iam::123456789012:role/web"}"#,
                "roleArn is given more than once",
            ),
            (
                QUERY,
                r#"{"durationSeconds":900,"durationSeconds":900}"#,
                "duplicate field",
            ),
            (without.as_str(), "{}", "unknown parameter durationSeconds"),
            ("", "{}", "trustAnchorArn is missing"),
            (
                &QUERY.replace("role%2F", "user%2F"),
                "{}",
                "roleArn: no ARN of an IAM role",
            ),
            (QUERY, "[]", "in the body"),
            (QUERY, "{", "in the body"),
            (
                QUERY,
                r#"{"sessionName":"web"}"#,
                "unknown field `sessionName`",
            ),
            (QUERY, r#"{"durationSeconds":"900"}"#, "in the body"),
            (QUERY, r#"{"durationSeconds":899}"#, "899, not within"),
            (QUERY, r#"{"durationSeconds":43201}"#, "43201, not within"),
            (QUERY, r#"{"roleSessionName":"a"}"#, "roleSessionName"),
            (QUERY, r#"{"roleSessionName":"a b"}"#, "roleSessionName"),
            (QUERY, &long, "roleSessionName"),
            (QUERY, r#"{"instanceProperties":{"rack":7}}"#, "in the body"),
            (QUERY, r#"{"instanceProperties":{"":"7"}}"#, "1 to 200"),
        ];
        for (query, body, message) in cases {
            let error = read(query, body).err().unwrap();
            assert!(error.contains(message), "{message}: {error}");
        }
    }
}
