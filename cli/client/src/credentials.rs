//! The credentials in AWS's answer.

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use thiserror::Error;

use crate::answer::Answer;
use crate::aws_refusal::AwsRefusal;
use crate::clock_skew::{self, ClockSkew};
use crate::diagnostic::Diagnostic;
use crate::exit::Exit;

/// A session's credentials: complete and, when they were read, not expired.
#[derive(Debug)]
#[expect(missing_docs, reason = "each name says it")]
pub struct Credentials {
    pub access_key_id: String,
    pub secret_access_key: SecretString,
    pub session_token: SecretString,
    pub expiration: Timestamp,
}

/// Why an answer brings no credentials.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "each message says it")]
pub enum AnswerError {
    #[error(transparent)]
    Refused(AwsRefusal),
    #[error("AWS's answer holds no usable credentials: {0}")]
    Unusable(&'static str),
    #[error("the credentials that AWS sent expired at {expiration}, and here it is {now}")]
    Expired {
        expiration: Timestamp,
        now: Timestamp,
        /// Where AWS does not tolerate it.
        skew: Option<ClockSkew>,
    },
}

impl Diagnostic for AnswerError {
    fn exit(&self) -> Exit {
        Exit::RefusedByAws
    }

    fn hint(&self) -> Option<String> {
        match self {
            AnswerError::Refused(refusal) => refusal.hint(),
            AnswerError::Unusable(_) => {
                Some("check that --endpoint is the IAM Roles Anywhere service".to_owned())
            }
            AnswerError::Expired { skew, .. } => Some(match skew {
                Some(skew) => format!("{skew}: {}", clock_skew::HINT),
                None => clock_skew::HINT.to_owned(),
            }),
        }
    }
}

impl Credentials {
    /// Reads the answer to CreateSession: 201 and a credential set, every member there.
    pub fn from_answer(answer: &Answer, now: Timestamp) -> Result<Credentials, AnswerError> {
        if answer.status != CREATED {
            return Err(AnswerError::Refused(AwsRefusal::from_answer(answer, now)));
        }
        // serde's error would quote the answer, and that holds secrets.
        let sessions: Sessions = serde_json::from_slice(answer.body.expose_secret())
            .map_err(|_| AnswerError::Unusable("it is not the JSON of a session"))?;
        let members = sessions
            .credential_set
            .into_iter()
            .next()
            .ok_or(AnswerError::Unusable("its credentialSet is empty"))?
            .credentials;
        let credentials = members.complete().map_err(AnswerError::Unusable)?;
        let expiration = credentials.expiration;
        if expiration <= now {
            return Err(AnswerError::Expired {
                expiration,
                now,
                skew: ClockSkew::intolerable(answer.date.as_deref(), now),
            });
        }
        Ok(credentials)
    }
}

/// The service answers nothing else where it vends a session.
const CREATED: u16 = 201;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sessions {
    credential_set: Vec<Session>,
}

#[derive(Deserialize)]
struct Session {
    credentials: Members,
}

/// Credentials as they are written, by AWS and by us.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Members {
    access_key_id: Option<String>,
    secret_access_key: Option<String>,
    session_token: Option<String>,
    expiration: Option<String>,
}

impl Members {
    /// The credentials, or what is wrong with them.
    pub(crate) fn complete(self) -> Result<Credentials, &'static str> {
        let expiration = required(self.expiration, "expiration is missing")?;
        Ok(Credentials {
            access_key_id: required(self.access_key_id, "accessKeyId is missing")?,
            secret_access_key: required(self.secret_access_key, "secretAccessKey is missing")?
                .into(),
            session_token: required(self.session_token, "sessionToken is missing")?.into(),
            expiration: whole_seconds(&expiration).ok_or("expiration is not a time")?,
        })
    }
}

/// Reads a time of RFC 3339, with any offset and fraction, as UTC in whole seconds, rounded down: readers such as
/// fluent-bit know no other form.
fn whole_seconds(text: &str) -> Option<Timestamp> {
    let time: Timestamp = text.parse().ok()?;
    let second = time.as_nanosecond().div_euclid(NANOSECONDS);
    Timestamp::from_second(second.try_into().ok()?).ok()
}

/// Of a second.
const NANOSECONDS: i128 = 1_000_000_000;

/// Credentials go into files and environments of line-based formats: only what AWS's consist of.
fn required(member: Option<String>, fault: &'static str) -> Result<String, &'static str> {
    match member {
        Some(text) if text.is_empty() => Err(fault),
        Some(text) if text.bytes().all(|b| b.is_ascii_graphic()) => Ok(text),
        Some(_) => Err("a member has characters that none of AWS's has"),
        None => Err(fault),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"credentialSet":[{"assumedRoleUser":{"arn":"arn","assumedRoleId":"id"},
        "credentials":{"accessKeyId":"ASIA1","secretAccessKey":"s3cret","sessionToken":"t0ken",
        "expiration":"2026-01-01T01:00:00Z"},"packedPolicySize":6,"roleArn":"arn",
        "sourceIdentity":"CN=web"}],"subjectArn":"arn"}"#;

    fn read(body: &str) -> Result<Credentials, AnswerError> {
        let answer = Answer {
            status: 201,
            error_type: None,
            date: None,
            retry_after: None,
            body: body.as_bytes().to_vec().into(),
        };
        Credentials::from_answer(&answer, "2026-01-01T00:00:00Z".parse().unwrap())
    }

    #[test]
    fn a_session_is_read() {
        let credentials = read(GOOD).unwrap();
        assert_eq!(credentials.access_key_id, "ASIA1");
        assert_eq!(credentials.secret_access_key.expose_secret(), "s3cret");
        assert_eq!(credentials.session_token.expose_secret(), "t0ken");
        assert_eq!(credentials.expiration.to_string(), "2026-01-01T01:00:00Z");
        let debug = format!("{credentials:?}");
        assert!(
            !debug.contains("s3cret") && !debug.contains("t0ken"),
            "{debug}"
        );
    }

    #[test]
    fn an_expiration_becomes_utc_in_whole_seconds() {
        for (sent, time) in [
            ("2026-01-01T01:00:00.999999999Z", "2026-01-01T01:00:00Z"),
            ("2026-01-01T01:00:00.5Z", "2026-01-01T01:00:00Z"),
            ("2026-01-01T01:00:00,5Z", "2026-01-01T01:00:00Z"),
            ("2026-01-01T01:00:00+00:00", "2026-01-01T01:00:00Z"),
            ("2026-01-01T03:30:00.25+02:30", "2026-01-01T01:00:00Z"),
            ("2026-01-01T01:00:00-0500", "2026-01-01T06:00:00Z"),
            ("20260101T010000Z", "2026-01-01T01:00:00Z"),
        ] {
            let credentials = read(&GOOD.replace("2026-01-01T01:00:00Z", sent)).unwrap();
            assert_eq!(credentials.expiration.to_string(), time, "{sent}");
        }
        // Without an offset it could be any time zone's.
        assert!(read(&GOOD.replace("01:00:00Z", "01:00:00")).is_err());
    }

    #[test]
    fn an_incomplete_session_is_an_error_that_quotes_no_secret() {
        let cases = [
            (GOOD.replace("ASIA1", ""), "accessKeyId is missing"),
            (GOOD.replace("s3cret", ""), "secretAccessKey is missing"),
            (GOOD.replace("\"t0ken\"", "null"), "sessionToken is missing"),
            (
                GOOD.replace("sessionToken", "token"),
                "sessionToken is missing",
            ),
            (GOOD.replace("expiration", "e"), "expiration is missing"),
            (
                GOOD.replace("2026-01-01T01", "soon"),
                "expiration is not a time",
            ),
            (GOOD.replace("01:00:00Z", "00:00:00Z"), "expired at"),
            (
                GOOD.replace("s3cret", "s3cret\\naws_access_key_id = x"),
                "characters",
            ),
            (GOOD.replace("ASIA1", "ASI A1"), "characters"),
            (
                r#"{"credentialSet":[]}"#.into(),
                "its credentialSet is empty",
            ),
            (GOOD.replace("credentialSet", "x"), "not the JSON"),
            (
                GOOD.replace("\"credentials\":{", "\"s3cret\":{"),
                "not the JSON",
            ),
            (r#"{"credentialSet":"s3cret"}"#.into(), "not the JSON"),
            ("<html>".into(), "not the JSON"),
            (String::new(), "not the JSON"),
        ];
        for (body, fault) in cases {
            let error = read(&body).unwrap_err().to_string();
            assert!(error.contains(fault), "{error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
    }
}
