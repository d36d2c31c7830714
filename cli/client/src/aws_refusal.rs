//! An answer of AWS that is not a session: what it says, and what it usually means.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use secrecy::ExposeSecret;
use serde::Deserialize;

use crate::answer::Answer;
use crate::clock_skew::{self, ClockSkew};

/// AWS's refusal.
#[derive(Debug)]
pub struct AwsRefusal {
    status: u16,
    kind: Option<String>,
    message: Option<String>,
    /// Where AWS does not tolerate it.
    skew: Option<ClockSkew>,
    retry_after: Option<Duration>,
}

/// Throttling, as botocore has it (retries/standard.py), whatever the status.
const THROTTLING: [&str; 14] = [
    "BandwidthLimitExceeded",
    "EC2ThrottledException",
    "LimitExceededException",
    "PriorRequestNotComplete",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "SlowDown",
    "ThrottledException",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
    "TransactionInProgressException",
];

/// Others that pass, as botocore has it.
const TRANSIENT: [&str; 2] = ["RequestTimeout", "RequestTimeoutException"];

impl std::error::Error for AwsRefusal {}

impl AwsRefusal {
    pub(crate) fn from_answer(answer: &Answer, now: Timestamp) -> AwsRefusal {
        AwsRefusal {
            status: answer.status,
            kind: answer.error_type.as_deref().map(bare_kind),
            message: message(answer.body.expose_secret()),
            skew: ClockSkew::intolerable(answer.date.as_deref(), now),
            retry_after: retry_after(answer, now),
        }
    }

    /// Returns whether the same request may succeed in a moment.
    pub fn passing(&self) -> bool {
        self.throttled() || (500..600).contains(&self.status) || self.is_of(&TRANSIENT)
    }

    /// Returns whether the account has used up its quota.
    pub fn throttled(&self) -> bool {
        self.status == 429 || self.is_of(&THROTTLING)
    }

    /// The pause that AWS asks for.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    fn is_of(&self, kinds: &[&str]) -> bool {
        self.kind
            .as_deref()
            .is_some_and(|kind| kinds.contains(&kind))
    }

    /// Returns what to do, about the clock first, where it is off.
    pub(crate) fn hint(&self) -> Option<String> {
        let clock = self
            .skew
            .map(|skew| format!("{skew}: {}", clock_skew::HINT));
        let cause = self.cause().map(|cause| cause.hint().to_owned());
        let hints: Vec<_> = clock.into_iter().chain(cause).collect();
        (!hints.is_empty()).then(|| hints.join("; "))
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
        if self.throttled() {
            return Some(Cause::Throttled);
        }
        match (self.kind.as_deref(), self.status) {
            (Some("AccessDeniedException"), _) => Some(Cause::Denied),
            (Some("ResourceNotFoundException"), _) => Some(Cause::NotFound),
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
    /// Returns what to do.
    pub fn hint(self) -> &'static str {
        match self {
            Cause::SessionName => {
                "the profile does not accept a session name: omit --role-session-name, or set acceptRoleSessionName in \
                 the profile"
            }
            Cause::InstanceProperties => {
                "the profile requires instance properties: see --instance-property"
            }
            Cause::Revoked => {
                "the certificate is in a revocation list (CRL) of the trust anchor: have a new one issued"
            }
            Cause::Certificate => {
                "usually, the trust anchor is not the CA of the identity's certificate, an intermediate certificate is \
                 missing from the identity's certificate file, or the certificate has expired or was revoked; \
                 \"roleseal inspect --identity\" shows it"
            }
            Cause::Signature => "usually, this host's clock is off, or a proxy changed the request",
            Cause::ProfileDisabled => "enable the profile, or use another with --profile-arn",
            Cause::AnchorDisabled => {
                "enable the trust anchor, or use another with --trust-anchor-arn"
            }
            Cause::RoleNotAssumed | Cause::Denied => {
                "usually, the profile does not list the role or is disabled, or the role's trust policy does not allow \
                 rolesanywhere.amazonaws.com sts:AssumeRole, sts:TagSession and sts:SetSourceIdentity for this trust \
                 anchor and certificate; AWS does not say which: \"roleseal doctor --trust-policy\" checks the policy"
            }
            Cause::NotFound => {
                "usually, the region or the ID in --profile-arn or --trust-anchor-arn is wrong, or it was deleted"
            }
            Cause::Throttled => {
                "the service creates about ten sessions a second for an account: try again later"
            }
            Cause::Redirect => "redirects are not followed: check --endpoint",
            Cause::Service => "the fault is on the service's side: try again later",
            Cause::Stranger => "the answer is not in AWS's form: check --endpoint",
        }
    }
}

impl fmt::Display for AwsRefusal {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "AWS refused the session: {}", self.words())
    }
}

/// Seconds, or a date, which is compared with that of the answer (RFC 9110, section 10.2.3).
fn retry_after(answer: &Answer, now: Timestamp) -> Option<Duration> {
    let value = answer.retry_after.as_deref()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let time = |date: &str| Some(rfc2822::parse(date).ok()?.timestamp());
    let sent = answer.date.as_deref().and_then(time).unwrap_or(now);
    Duration::try_from(time(value)?.duration_since(sent)).ok()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16, kind: Option<&str>, date: Option<&str>, body: &str) -> AwsRefusal {
        let answer = Answer {
            status,
            error_type: kind.map(str::to_owned),
            date: date.map(str::to_owned),
            retry_after: None,
            body: body.as_bytes().to_vec().into(),
        };
        AwsRefusal::from_answer(&answer, "2026-01-01T00:00:00Z".parse().unwrap())
    }

    #[test]
    fn aws_words_are_shown() {
        let kind = "ValidationException:http://internal.amazon.com/coral/x/";
        let body = r#"{"message":"durationSeconds is wrong"}"#;
        let words = refusal(400, Some(kind), None, body).words();
        assert_eq!(
            words,
            "HTTP 400 ValidationException: durationSeconds is wrong"
        );
        let long = format!(r#"{{"message":"{}"}}"#, "x".repeat(2 * MESSAGE_LIMIT));
        assert!(refusal(400, Some("X"), None, &long).words().len() < MESSAGE_LIMIT + 100);
    }

    #[test]
    fn another_form_than_aws_is_not_shown() {
        for body in ["<html>s3cret", r#"{"secretAccessKey":"s3cret"}"#, ""] {
            for status in [200, 403] {
                let refusal = refusal(status, None, None, body);
                assert_eq!(refusal.cause(), Some(Cause::Stranger));
                assert!(!refusal.to_string().contains("s3cret"));
            }
        }
    }

    #[test]
    fn known_refusals_have_a_cause() {
        let denied = Some("AccessDeniedException");
        let invalid = Some("ValidationException");
        let not_found = Some("ResourceNotFoundException");
        let throttled = Some("ThrottlingException");
        for (status, kind, message, cause) in [
            (
                403,
                denied,
                "Untrusted certificate. Insufficient certificate",
                Cause::Certificate,
            ),
            (
                403,
                denied,
                "Untrusted Signing Certificate",
                Cause::Certificate,
            ),
            (403, denied, "Certificate revoked", Cause::Revoked),
            (403, denied, "Signature expired", Cause::Signature),
            (
                403,
                denied,
                "Unable to assume role for arn:x",
                Cause::RoleNotAssumed,
            ),
            (
                403,
                denied,
                "Not authorized to set roleSessionName",
                Cause::SessionName,
            ),
            (403, denied, "Profile is disabled", Cause::ProfileDisabled),
            (403, denied, "odd", Cause::Denied),
            (
                400,
                invalid,
                "instanceProperties required",
                Cause::InstanceProperties,
            ),
            (404, not_found, "Trust anchor not found", Cause::NotFound),
            (429, throttled, "Rate exceeded", Cause::Throttled),
            (429, None, "", Cause::Throttled),
            (302, None, "", Cause::Redirect),
            (503, None, "", Cause::Service),
        ] {
            let refusal = refusal(status, kind, None, &format!(r#"{{"message":"{message}"}}"#));
            assert_eq!(refusal.cause(), Some(cause), "{message}");
            assert!(refusal.to_string().contains(message));
            assert!(!refusal.to_string().contains('\n') && refusal.hint().is_some());
        }
        assert_eq!(
            refusal(400, invalid, None, r#"{"message":"odd"}"#).hint(),
            None
        );
    }

    #[test]
    fn throttling_is_recognized_by_its_kind_whatever_the_status() {
        for (status, kind) in THROTTLING
            .into_iter()
            .flat_map(|kind| [(400, kind), (503, kind)])
        {
            let refusal = refusal(status, Some(kind), None, "");
            assert!(refusal.throttled() && refusal.passing(), "{status} {kind}");
        }
        assert!(refusal(429, None, None, "").throttled());
        let timeout = refusal(400, Some("RequestTimeout"), None, "");
        assert!(timeout.passing() && !timeout.throttled());
        let invalid = refusal(400, Some("ValidationException"), None, "");
        assert!(!invalid.passing());
    }

    #[test]
    fn retry_after_is_in_seconds_or_a_date() {
        let pause = |value: &str, date: Option<&str>| {
            let answer = Answer {
                status: 429,
                error_type: None,
                date: date.map(str::to_owned),
                retry_after: Some(value.to_owned()),
                body: Vec::new().into(),
            };
            let now = "2026-01-01T00:00:00Z".parse().unwrap();
            AwsRefusal::from_answer(&answer, now).retry_after()
        };
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(pause(" 20", None), seconds(20));
        let at = "Thu, 01 Jan 2026 00:01:00 GMT";
        assert_eq!(pause(at, None), seconds(60));
        assert_eq!(
            pause(at, Some("Thu, 01 Jan 2026 00:00:50 GMT")),
            seconds(10)
        );
        assert_eq!(pause("Wed, 31 Dec 2025 00:00:00 GMT", None), None);
        for odd in ["-1", "1.5", "soon", ""] {
            assert_eq!(pause(odd, None), None, "{odd}");
        }
    }

    #[test]
    fn a_clock_that_is_off_is_in_the_hint() {
        let hint = |date| refusal(400, Some("ValidationException"), Some(date), "").hint();
        let ahead = hint("Wed, 31 Dec 2025 23:50:00 GMT").unwrap();
        assert!(ahead.contains("600 s ahead of AWS's"), "{ahead}");
        assert_eq!(hint("Thu, 01 Jan 2026 00:05:00 GMT"), None);
    }
}
