//! An answer of AWS that is not a session: what it says, and what it usually means.

use std::fmt;

use jiff::fmt::rfc2822;
use jiff::{SignedDuration, Timestamp};
use secrecy::ExposeSecret;
use serde::Deserialize;

use crate::answer::Answer;

/// AWS's refusal.
#[derive(Debug)]
pub struct AwsRefusal {
    status: u16,
    kind: Option<String>,
    message: Option<String>,
    /// How far this host's clock is ahead of AWS's, where it is too far.
    ahead: Option<SignedDuration>,
}

impl std::error::Error for AwsRefusal {}

impl AwsRefusal {
    pub(crate) fn from_answer(answer: &Answer, now: Timestamp) -> AwsRefusal {
        AwsRefusal {
            status: answer.status,
            kind: answer.error_type.as_deref().map(bare_kind),
            message: message(answer.body.expose_secret()),
            ahead: answer.date.as_deref().and_then(|date| ahead(date, now)),
        }
    }

    /// Whether the same request may succeed in a moment.
    pub fn passing(&self) -> bool {
        self.status == 429 || (500..600).contains(&self.status)
    }

    /// AWS's own words.
    pub fn words(&self) -> String {
        let mut words = format!("HTTP {}", self.status);
        if let Some(kind) = &self.kind {
            words += &format!(" {kind}");
        }
        if let Some(message) = &self.message {
            words += &format!(": {message}");
        }
        words
    }

    /// What it usually means, as far as AWS's words tell. They are known from its guide and from what its
    /// users report; none of them is promised.
    pub fn cause(&self) -> Option<Cause> {
        let message = self.message.as_deref().unwrap_or_default().to_lowercase();
        let about = |words: &[&str]| words.iter().any(|word| message.contains(word));
        let by_words = [
            (Cause::SessionName, &["rolesessionname", "session name"][..]),
            (
                Cause::InstanceProperties,
                &["instanceproperties", "instance properties"],
            ),
            (Cause::Revoked, &["revoked"]),
            (Cause::RoleNotAssumed, &["assume role"]),
            (Cause::ProfileDisabled, &["profile is disabled"]),
            (Cause::AnchorDisabled, &["trust anchor is disabled"]),
            (Cause::Certificate, &["certificate"]),
            (Cause::Signature, &["signature"]),
        ];
        if let Some((cause, _)) = by_words.into_iter().find(|(_, words)| about(words)) {
            return Some(cause);
        }
        match (self.kind.as_deref(), self.status) {
            (Some("AccessDeniedException"), _) => Some(Cause::Denied),
            (Some("ResourceNotFoundException"), _) => Some(Cause::NotFound),
            (Some("ThrottlingException"), _) | (_, 429) => Some(Cause::Throttled),
            (_, 300..400) => Some(Cause::Redirect),
            (_, 500..) => Some(Cause::Service),
            (None, _) => Some(Cause::Stranger),
            _ => None,
        }
    }
}

/// What AWS usually means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each name says it")]
pub enum Cause {
    SessionName,
    InstanceProperties,
    Revoked,
    /// Profile or trust policy: AWS does not say which.
    RoleNotAssumed,
    ProfileDisabled,
    AnchorDisabled,
    Certificate,
    Signature,
    /// No reason is given.
    Denied,
    NotFound,
    Throttled,
    Redirect,
    Service,
    /// It is not AWS that answers.
    Stranger,
}

impl Cause {
    /// What to do.
    pub fn hint(self) -> &'static str {
        match self {
            Cause::SessionName => {
                "The profile does not accept a session name: leave out --role-session-name, or set \
                 acceptRoleSessionName in the profile."
            }
            Cause::InstanceProperties => {
                "The profile requires instance properties: see --instance-property."
            }
            Cause::Revoked => {
                "The certificate is in a revocation list (CRL) of the trust anchor: have a new one issued."
            }
            Cause::Certificate => {
                "Usually: the trust anchor is not the CA of the identity's certificate, an \
                 intermediate certificate is missing from the identity's chain, or the certificate \
                 has expired or was revoked. \"roleseal identities\" shows the certificate."
            }
            Cause::Signature => {
                "Usually: this host's clock is off, or a proxy changed the request on its way."
            }
            Cause::ProfileDisabled => {
                "Have the profile enabled, or use another with --profile-arn."
            }
            Cause::AnchorDisabled => {
                "Have the trust anchor enabled, or use another with --trust-anchor-arn."
            }
            Cause::RoleNotAssumed | Cause::Denied => {
                "Usually: the profile does not list the role or is disabled, or the role's trust \
                 policy does not allow rolesanywhere.amazonaws.com sts:AssumeRole, sts:TagSession \
                 and sts:SetSourceIdentity for this trust anchor and certificate. \"roleseal doctor\" \
                 tells more."
            }
            Cause::NotFound => {
                "Usually: the region or the ID in --profile-arn or --trust-anchor-arn is another, \
                 or it was deleted."
            }
            Cause::Throttled => {
                "The service takes about ten sessions a second and account: try again later."
            }
            Cause::Redirect => "Redirects are not followed: check --endpoint.",
            Cause::Service => "The trouble is on the service's side: try again later.",
            Cause::Stranger => "The answer is not in AWS's form: check --endpoint.",
        }
    }
}

impl fmt::Display for AwsRefusal {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "AWS refused the session: {}", self.words())?;
        if let Some(cause) = self.cause() {
            write!(f, "\n{}", cause.hint())?;
        }
        if let Some(ahead) = self.ahead {
            write!(f, "\n{}", clock(ahead))?;
        }
        Ok(())
    }
}

/// The service adds the kind's URL after a colon.
fn bare_kind(header: &str) -> String {
    header.split(':').next().unwrap_or_default().to_owned()
}

/// More than a person reads.
const MESSAGE_LIMIT: usize = 1000;

/// The message only: the rest of a body of unknown kind might be credentials.
fn message(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(alias = "Message")]
        message: String,
    }
    let body: Body = serde_json::from_slice(body).ok()?;
    Some(body.message.chars().take(MESSAGE_LIMIT).collect())
}

/// What SigV4 tolerates.
const SKEW_LIMIT: SignedDuration = SignedDuration::from_mins(5);

/// How far this host's clock is ahead of the one of a `Date` header, where SigV4 does not bear it.
pub fn ahead(date: &str, now: Timestamp) -> Option<SignedDuration> {
    let theirs = rfc2822::parse(date).ok()?.timestamp();
    let ahead = now.duration_since(theirs);
    (ahead.abs() > SKEW_LIMIT).then_some(ahead)
}

/// What a person should know of a clock that is off.
pub fn clock(ahead: SignedDuration) -> String {
    let seconds = ahead.as_secs().abs();
    let direction = if ahead.is_positive() {
        "ahead of"
    } else {
        "behind"
    };
    format!(
        "This host's clock is {seconds} s {direction} AWS's, which bears {}: set it right.",
        SKEW_LIMIT.as_secs()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16, kind: Option<&str>, date: Option<&str>, body: &str) -> String {
        let answer = Answer {
            status,
            error_type: kind.map(str::to_owned),
            date: date.map(str::to_owned),
            body: body.as_bytes().to_vec().into(),
        };
        AwsRefusal::from_answer(&answer, "2026-01-01T00:00:00Z".parse().unwrap()).to_string()
    }

    #[test]
    fn it_says_what_aws_said() {
        assert_eq!(
            refusal(
                400,
                Some("ValidationException:http://internal.amazon.com/coral/x/"),
                Some("Thu, 01 Jan 2026 00:04:59 GMT"),
                r#"{"message":"durationSeconds is wrong"}"#
            ),
            "AWS refused the session: HTTP 400 ValidationException: durationSeconds is wrong"
        );
        let long = format!(r#"{{"message":"{}"}}"#, "x".repeat(2 * MESSAGE_LIMIT));
        assert!(refusal(400, Some("X"), None, &long).len() < MESSAGE_LIMIT + 100);
    }

    #[test]
    fn what_is_not_aws_form_is_not_shown() {
        for body in ["<html>s3cret", r#"{"secretAccessKey":"s3cret"}"#, ""] {
            for status in [200, 403] {
                let text = refusal(status, None, None, body);
                assert!(
                    !text.contains("s3cret") && text.contains("--endpoint"),
                    "{text}"
                );
            }
        }
    }

    #[test]
    fn common_refusals_say_what_they_usually_mean() {
        let denied = Some("AccessDeniedException");
        let cases = [
            (
                403,
                denied,
                "Untrusted certificate. Insufficient certificate",
                "trust anchor",
            ),
            (403, denied, "Signature expired", "clock"),
            (
                403,
                denied,
                "Unable to assume role for arn:x",
                "trust policy",
            ),
            (
                403,
                denied,
                "Not authorized to set roleSessionName",
                "--role-session-name",
            ),
            (
                400,
                Some("ValidationException"),
                "instanceProperties required",
                "--instance-property",
            ),
            (
                404,
                Some("ResourceNotFoundException"),
                "Trust anchor not found",
                "region",
            ),
            (
                429,
                Some("ThrottlingException"),
                "Rate exceeded",
                "ten sessions",
            ),
            (429, None, "", "ten sessions"),
            (302, None, "", "--endpoint"),
            (503, None, "", "service's side"),
        ];
        for (status, kind, message, hint) in cases {
            let text = refusal(status, kind, None, &format!(r#"{{"message":"{message}"}}"#));
            let (first, rest) = text.split_once('\n').unwrap();
            assert!(first.ends_with(message) || message.is_empty(), "{text}");
            assert!(rest.contains(hint), "{text}");
        }
    }

    #[test]
    fn a_clock_that_is_off_is_named() {
        let at = |date| refusal(400, None, Some(date), "");
        assert!(at("Wed, 31 Dec 2025 23:50:00 GMT").contains("600 s ahead of AWS's"));
        assert!(at("Thu, 01 Jan 2026 01:00:00 GMT").contains("3600 s behind AWS's"));
        for date in ["Thu, 01 Jan 2026 00:05:00 GMT", "yesterday"] {
            assert!(!at(date).contains("clock"));
        }
    }
}
