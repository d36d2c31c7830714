//! A session from AWS, or why there is none.

use client::aws_refusal::{AwsRefusal, Cause};
use client::session::Session;
use client::target::Target;
use jiff::SignedDuration;

use super::finding::{Check, Finding};

/// The outcome of CreateSession.
pub(super) type SessionOutcome = Result<Session, client::Error>;

/// Returns the cause of AWS's refusal, where it refused and the cause is known.
pub(super) fn refusal_cause(outcome: &SessionOutcome) -> Option<Cause> {
    let error = outcome.as_ref().err()?;
    error.aws_refusal().and_then(AwsRefusal::cause)
}

/// Returns AWS's answer, and after a refusal the commands that show its cause.
pub(super) fn finding(target: &Target, outcome: &SessionOutcome) -> Finding {
    let error = match outcome {
        Ok(session) => return granted(target, session),
        Err(error) => error,
    };
    let mut finding = Finding::error(Check::Session, error);
    let commands = refusal_cause(outcome).map(|cause| commands(target, cause));
    for command in commands.unwrap_or_default() {
        let remedy = finding.remedy.get_or_insert_default();
        *remedy += &format!("\n   {command}");
    }
    finding
}

/// The service rounds times to seconds, and needs some to answer.
const SLACK: SignedDuration = SignedDuration::from_secs(60);

fn granted(target: &Target, session: &Session) -> Finding {
    let requested = target.session.duration.seconds();
    let until = session.credentials.expiration;
    let lifetime = until.duration_since(session.issued);
    let role = target.session.target.role();
    let detail = format!("AWS granted one for {role} until {until}, which was discarded");
    if lifetime + SLACK < SignedDuration::from_secs(requested.into()) {
        let seconds = lifetime.as_secs();
        return Finding::warning(
            Check::Session,
            format!("{detail}: {seconds} s of the {requested} s requested"),
            "the profile's durationSeconds limits it: raise that, or request less with session-duration",
        );
    }
    Finding::ok(Check::Session, detail)
}

/// The likely cause first.
fn commands(target: &Target, cause: Cause) -> Vec<String> {
    let arns = &target.session.target;
    let last = |arn: &str| arn.rsplit('/').next().unwrap_or_default().to_owned();
    let rolesanywhere =
        |command: String| format!("aws rolesanywhere --region {} {command}", arns.region());
    let profile = || {
        rolesanywhere(format!(
            "get-profile --profile-id {} --query 'profile.[enabled,roleArns,acceptRoleSessionName]'",
            last(arns.profile().as_ref())
        ))
    };
    let anchor = || {
        let id = last(arns.trust_anchor().as_ref());
        rolesanywhere(format!("get-trust-anchor --trust-anchor-id {id}"))
    };
    let crls = || rolesanywhere("list-crls".to_owned());
    let role = |query: &str| {
        let name = last(arns.role().as_ref());
        format!("aws iam get-role --role-name {name} --query {query}")
    };
    match cause {
        Cause::RoleNotAssumed | Cause::Denied => vec![
            profile(),
            role("Role.AssumeRolePolicyDocument > policy.json"),
            role("'Role.[Arn,MaxSessionDuration]'"),
            anchor(),
        ],
        Cause::Certificate => vec![anchor(), crls()],
        Cause::NotFound => vec![profile(), anchor()],
        Cause::Revoked => vec![crls()],
        Cause::AnchorDisabled => vec![anchor()],
        Cause::ProfileDisabled | Cause::SessionName | Cause::InstanceProperties => vec![profile()],
        Cause::Signature
        | Cause::Throttled
        | Cause::Redirect
        | Cause::Service
        | Cause::Stranger => vec![],
    }
}

#[cfg(test)]
pub(super) mod tests {
    use client::answer::Answer;
    use client::credentials::Credentials;
    use client::exit::Exit;
    use jiff::Timestamp;

    use super::*;
    use crate::doctor::finding::Outcome;
    use crate::test_support::{session, target};

    /// AWS's refusal with this message.
    pub(in crate::doctor) fn refused(message: &str) -> SessionOutcome {
        let answer = Answer {
            status: 403,
            error_type: Some("AccessDeniedException".to_owned()),
            date: None,
            retry_after: None,
            body: format!("{{\"message\":{message:?}}}").into_bytes().into(),
        };
        Err(Credentials::from_answer(&answer, Timestamp::now())
            .unwrap_err()
            .into())
    }

    #[test]
    fn a_session_may_be_shorter_than_requested() {
        let outcome = |until: &str| {
            let until = format!("2026-01-01T{until}Z");
            let session = session("A", "2026-01-01T00:00:00Z", &until);
            finding(&target(""), &Ok(session)).outcome
        };
        assert_eq!(outcome("01:00:00"), Outcome::Ok);
        assert_eq!(outcome("00:59:30"), Outcome::Ok);
        assert_eq!(outcome("00:15:00"), Outcome::Warning);
    }

    #[test]
    fn a_refusal_comes_with_commands_for_its_cause() {
        for (message, command) in [
            (
                "Unable to assume role for arn:x",
                "get-profile --profile-id p ",
            ),
            (
                "Unable to assume role for arn:x",
                "--role-name web --query Role.Assume",
            ),
            ("Profile is disabled", "get-profile"),
            ("Certificate revoked", "list-crls"),
            (
                "Untrusted Signing Certificate",
                "get-trust-anchor --trust-anchor-id a",
            ),
        ] {
            let finding = finding(&target(""), &refused(message));
            assert_eq!(finding.outcome, Outcome::Failed(Exit::RefusedByAws));
            let remedy = finding.remedy.unwrap();
            assert!(remedy.contains(command), "{message}: {remedy}");
        }
    }
}
