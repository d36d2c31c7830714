//! A session from AWS: what it comes to, and why there is none.

use client::answer::Answer;
use client::aws_refusal::{AwsRefusal, Cause};
use client::credentials::{AnswerError, Credentials};
use client::exit::Exit;
use client::http::HttpError;
use client::target::Target;
use jiff::{SignedDuration, Timestamp};

use super::finding::{Check, Finding};

/// What became of CreateSession.
pub(super) enum Ended {
    /// A session until then, asked for at that time.
    Granted {
        asked: Timestamp,
        until: Timestamp,
    },
    Refused(AwsRefusal),
    Unusable(String),
    Lost(HttpError),
}

impl Ended {
    /// Reads an answer. The credentials in it are for nobody.
    pub(super) fn of(answer: Result<Answer, HttpError>, asked: Timestamp) -> Ended {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => return Ended::Lost(error),
        };
        match Credentials::from_answer(&answer, Timestamp::now()) {
            Ok(credentials) => Ended::Granted {
                asked,
                until: credentials.expiration,
            },
            Err(AnswerError::Refused(refusal)) => Ended::Refused(refusal),
            Err(error) => Ended::Unusable(error.to_string()),
        }
    }

    /// Whether it may be the trust policy that said no.
    pub(super) fn may_be_the_policy(&self) -> bool {
        let Ended::Refused(refusal) = self else {
            return false;
        };
        matches!(refusal.cause(), Some(Cause::RoleNotAssumed | Cause::Denied))
    }
}

/// What there is to say of it.
pub(super) fn judge(target: &Target, ended: &Ended) -> Finding {
    match ended {
        Ended::Granted { asked, until } => judge_length(target, *asked, *until),
        Ended::Refused(refusal) => Finding::failed(
            Check::Session,
            Exit::RefusedByAws,
            format!("AWS refused it: {}", refusal.words()),
            remedy(target, refusal.cause()),
        ),
        Ended::Unusable(error) => {
            Finding::told(Check::Session, Exit::RefusedByAws, error, ENDPOINT)
        }
        Ended::Lost(error) => {
            Finding::told(Check::Session, error.exit(), &error.to_string(), ENDPOINT)
        }
    }
}

const ENDPOINT: &str = "Is the endpoint the right one?";

/// The service says times in seconds, and takes some to answer.
const SLACK: SignedDuration = SignedDuration::from_secs(60);

fn judge_length(target: &Target, asked: Timestamp, until: Timestamp) -> Finding {
    let wanted = target.session.duration.seconds();
    let got = until.duration_since(asked);
    let role = target.session.target.role();
    let detail = format!("AWS gave one for {role} until {until}, and it was thrown away");
    if got + SLACK < SignedDuration::from_secs(wanted.into()) {
        return Finding::warning(
            Check::Session,
            format!(
                "{detail}: {} s of the {wanted} s that were asked for",
                got.as_secs()
            ),
            "The profile's durationSeconds caps it: have that raised, or ask for less with session-duration.",
        );
    }
    Finding::ok(Check::Session, detail)
}

fn remedy(target: &Target, cause: Option<Cause>) -> String {
    let Commands {
        profile,
        anchor,
        crls,
        role,
        trust_policy,
    } = Commands::of(target);
    match cause {
        Some(Cause::RoleNotAssumed | Cause::Denied) => format!(
            "AWS does not say which of these it was; the likely first:\n\
             1. The profile does not list the role, or is disabled:\n   {profile}\n\
             2. The role's trust policy does not allow rolesanywhere.amazonaws.com sts:AssumeRole, \
             sts:TagSession and sts:SetSourceIdentity for this trust anchor and certificate. Let doctor \
             look, with --trust-policy policy.json:\n   {trust_policy} > policy.json\n\
             3. There is no such role, or its MaxSessionDuration is shorter than what is asked for:\n   {role}\n\
             4. The trust anchor is disabled:\n   {anchor}"
        ),
        Some(Cause::Revoked) => format!(
            "The certificate's serial is in a revocation list of the trust anchor: have a new one issued. \
             The lists:\n   {crls}"
        ),
        Some(Cause::ProfileDisabled) => format!("Have the profile enabled:\n   {profile}"),
        Some(Cause::AnchorDisabled) => format!("Have the trust anchor enabled:\n   {anchor}"),
        Some(Cause::Certificate) => format!(
            "The identity's certificate does not lead to this trust anchor, or is not as AWS wants it:\n\
             1. The trust anchor is not that of its CA, or its bundle has ended:\n   {anchor}\n\
             2. An intermediate is missing: put it behind the leaf in the identity's certificate file\n\
             3. The certificate itself: roleseal inspect shows it, as does the check \"certificate\"\n\
             4. It was revoked:\n   {crls}"
        ),
        Some(Cause::SessionName) => format!(
            "Leave role-session-name out, or have acceptRoleSessionName set in the profile:\n   {profile}"
        ),
        Some(Cause::InstanceProperties) => format!(
            "The profile wants instance properties: instance-properties of the target, or \
             --instance-property:\n   {profile}"
        ),
        Some(Cause::NotFound) => format!(
            "Profile or trust anchor is not there, in this region and account:\n   {profile}\n   {anchor}"
        ),
        Some(cause) => cause.hint().to_owned(),
        None => "AWS's words are all that is known.".to_owned(),
    }
}

/// What shows an operator of the AWS account how it stands.
struct Commands {
    profile: String,
    anchor: String,
    crls: String,
    role: String,
    trust_policy: String,
}

impl Commands {
    fn of(target: &Target) -> Commands {
        let arns = &target.session.target;
        let region = arns.region();
        let last = |arn: &str| arn.rsplit('/').next().unwrap_or_default().to_owned();
        let ours = |command: &str| format!("aws rolesanywhere --region {region} {command}");
        let role = last(arns.role().as_ref());
        let profile = last(arns.profile().as_ref());
        let anchor = last(arns.trust_anchor().as_ref());
        Commands {
            profile: ours(&format!(
                "get-profile --profile-id {profile} --query \
                 'profile.[enabled,roleArns,acceptRoleSessionName]'"
            )),
            anchor: ours(&format!("get-trust-anchor --trust-anchor-id {anchor}")),
            crls: ours("list-crls"),
            role: format!(
                "aws iam get-role --role-name {role} --query 'Role.[Arn,MaxSessionDuration]'"
            ),
            trust_policy: format!(
                "aws iam get-role --role-name {role} --query Role.AssumeRolePolicyDocument"
            ),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::doctor::finding::Outcome;
    use crate::test_support::target;

    /// AWS's refusal in these words.
    pub(in crate::doctor) fn refused(status: u16, kind: &str, message: &str) -> Ended {
        let answer = Answer {
            status,
            error_type: Some(kind.to_owned()),
            date: None,
            body: format!("{{\"message\":{message:?}}}").into_bytes().into(),
        };
        Ended::of(Ok(answer), Timestamp::now())
    }

    #[test]
    fn a_session_may_be_shorter_than_it_was_asked_for() {
        let judged = |until: &str| {
            let ended = Ended::Granted {
                asked: "2026-01-01T00:00:00Z".parse().unwrap(),
                until: format!("2026-01-01T{until}Z").parse().unwrap(),
            };
            judge(&target(""), &ended)
        };
        assert_eq!(judged("01:00:00").outcome, Outcome::Ok);
        assert_eq!(judged("00:59:30").outcome, Outcome::Ok);
        let short = judged("00:15:00");
        assert_eq!(short.outcome, Outcome::Warning);
        assert!(
            short
                .detail
                .ends_with("900 s of the 3600 s that were asked for")
        );
    }

    #[test]
    fn a_refusal_says_what_it_was_and_how_to_see() {
        let denied = "AccessDeniedException";
        for (status, kind, message, expected) in [
            (
                403,
                denied,
                "Unable to assume role for arn:x",
                "get-profile --profile-id p ",
            ),
            (
                403,
                denied,
                "Unable to assume role for arn:x",
                "--role-name web --query Role.Assume",
            ),
            (
                403,
                denied,
                "Profile is disabled",
                "Have the profile enabled",
            ),
            (403, denied, "Certificate revoked", "list-crls"),
            (
                403,
                denied,
                "Untrusted Signing Certificate",
                "get-trust-anchor --trust-anchor-id a",
            ),
            (403, denied, "Invalid signature", "clock"),
            (
                403,
                denied,
                "Not authorized to set roleSessionName.",
                "acceptRoleSessionName",
            ),
            (
                400,
                "ValidationException",
                "instanceProperties is missing",
                "--instance-property",
            ),
            (
                404,
                "ResourceNotFoundException",
                "no profile",
                "in this region",
            ),
            (429, "ThrottlingException", "Rate exceeded", "ten sessions"),
            (503, "ServiceUnavailable", "", "service's side"),
            (400, "ValidationException", "odd", "all that is known"),
        ] {
            let finding = judge(&target(""), &refused(status, kind, message));
            assert_eq!(finding.outcome, Outcome::Failed(Exit::RefusedByAws));
            assert!(finding.detail.contains(message), "{}", finding.detail);
            let remedy = finding.remedy.unwrap();
            assert!(remedy.contains(expected), "{message}: {remedy}");
        }
    }

    #[test]
    fn what_is_no_session_is_no_success() {
        let answer = |status, body: &str| Answer {
            status,
            error_type: None,
            date: None,
            body: body.as_bytes().to_vec().into(),
        };
        for (status, body) in [(201, "{}"), (200, "{}"), (301, ""), (403, "<html>s3cret")] {
            let ended = Ended::of(Ok(answer(status, body)), Timestamp::now());
            let finding = judge(&target(""), &ended);
            assert_eq!(finding.outcome, Outcome::Failed(Exit::RefusedByAws));
            assert!(!finding.detail.contains("s3cret"));
        }
    }
}
