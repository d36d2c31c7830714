//! The role's trust policy, from a file, evaluated for this certificate: AWS does not say which part denies.

use std::path::Path;

use client::aws_refusal::Cause;
use client::exit::Exit;
use client::input;
use client::target::Target;
use rolesanywhere::certificate::{Chain, SessionFacts};
use trust_policy::{SessionRequest, TrustPolicy};

use super::finding::{Check, Finding};
use super::session::{SessionOutcome, refusal_cause};

/// IAM stores far less; more is another file.
const FILE_LIMIT: u64 = 64 * 1024;

/// The document, or what is wrong with the file.
pub(super) fn read(path: &Path) -> Result<TrustPolicy, String> {
    let shown = path.display();
    let text = input::read_text(path, FILE_LIMIT)
        .map_err(|error| format!("cannot read {shown}: {error}"))?;
    TrustPolicy::parse(&text).map_err(|error| format!("{shown}: {error}"))
}

const FORM: &str = "give the output of: aws iam get-role --role-name NAME --query \
                    Role.AssumeRolePolicyDocument";

/// Returns the request that Roles Anywhere makes of this certificate to assume the role.
fn request(target: &Target, chain: &Chain) -> SessionRequest {
    let arns = &target.session.target;
    let facts = SessionFacts::of(chain.leaf());
    let tags = facts.tags.into_iter().map(|tag| (tag.name, tag.value));
    let name = target.session.session_name.as_ref();
    SessionRequest {
        trust_anchor_arn: arns.trust_anchor().to_string(),
        account: arns.account().to_owned(),
        tags: tags.collect(),
        source_identity: Some(facts.source_identity),
        session_name: name.map_or(facts.session_name, ToString::to_string),
    }
}

/// Evaluates the document for this certificate.
pub(super) fn finding(
    target: &Target,
    policy: &Result<TrustPolicy, String>,
    chain: Option<&Chain>,
    outcome: Option<&SessionOutcome>,
) -> Finding {
    let policy = match policy {
        Ok(policy) => policy,
        Err(fault) => return Finding::failed(Check::TrustPolicy, Exit::Usage, fault, FORM),
    };
    let Some(chain) = chain else {
        let why = "the identity's certificate is not known";
        return Finding::skipped(Check::TrustPolicy, why);
    };
    let decision = policy.for_roles_anywhere(&request(target, chain).context());
    let granted = matches!(outcome, Some(Ok(_)));
    if decision.allowed() {
        return match outcome.is_some_and(may_be_the_policy) {
            true => Finding::warning(
                Check::TrustPolicy,
                "the document allows this certificate all three actions: AWS refused for another reason",
                "check the profile first, as above, then that the document is the role's current one; attribute \
                 mappings of the profile change the tags, too",
            ),
            false => Finding::ok(
                Check::TrustPolicy,
                "the document allows this certificate sts:AssumeRole, sts:TagSession and \
                 sts:SetSourceIdentity",
            ),
        };
    }
    let detail = decision.reason();
    match granted {
        true if decision.undecided() => Finding::skipped(
            Check::TrustPolicy,
            format!("AWS granted a session, and the document cannot be evaluated here: {detail}"),
        ),
        true => Finding::warning(
            Check::TrustPolicy,
            format!("AWS granted a session, but by this document: {detail}"),
            "check that the document is the role's current one; attribute mappings of the profile change the tags, \
             too",
        ),
        false => Finding::failed(
            Check::TrustPolicy,
            Exit::RefusedByAws,
            detail,
            change(target),
        ),
    }
}

/// Returns whether the policy may be AWS's reason.
fn may_be_the_policy(outcome: &SessionOutcome) -> bool {
    matches!(
        refusal_cause(outcome),
        Some(Cause::RoleNotAssumed | Cause::Denied)
    )
}

/// Returns the commands that install a matching policy.
fn change(target: &Target) -> String {
    let role = target.session.target.role();
    let role = role.as_ref().rsplit('/').next().unwrap_or_default();
    format!(
        "use another certificate, trust anchor or role, or change the role's trust policy (docs/inspect.md), with the \
         options of this command for the first:\n\
         roleseal trust-policy --target … > policy.json\n\
         aws iam update-assume-role-policy --role-name {role} --policy-document file://policy.json"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::certificate::tests::chain;
    use crate::doctor::finding::Outcome;
    use crate::doctor::session::tests::refused;
    use crate::test_support::{session, target};

    const ALL: &str = r#"["sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"]"#;

    fn policy(actions: &str, condition: &str) -> Result<TrustPolicy, String> {
        let text = format!(
            r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Principal":{{"Service":
            "rolesanywhere.amazonaws.com"}},"Action":{actions},"Condition":{{{condition}}}}}]}}"#
        );
        Ok(TrustPolicy::parse(&text).unwrap())
    }

    fn denied() -> SessionOutcome {
        refused("Unable to assume role for arn:x")
    }

    fn granted() -> SessionOutcome {
        Ok(session("A", "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z"))
    }

    fn judged(policy: &Result<TrustPolicy, String>, outcome: &SessionOutcome) -> Finding {
        let chain = chain("web", 12, 31).unwrap();
        finding(&target(""), policy, Some(&chain), Some(outcome))
    }

    #[test]
    fn what_of_the_document_says_no_is_named() {
        let anchor = |id: &str| {
            let arn = format!("arn:aws:rolesanywhere:eu-central-1:123456789012:trust-anchor/{id}");
            format!(r#""ArnEquals":{{"aws:SourceArn":"{arn}"}}"#)
        };
        let cn =
            |cn: &str| format!(r#""StringEquals":{{"aws:PrincipalTag/x509Subject/CN":"{cn}"}}"#);
        let two = r#"["sts:AssumeRole", "sts:SetSourceIdentity"]"#;
        for (policy, expected) in [
            (policy(ALL, &cn("db")), &["x509Subject/CN", "db", "web"][..]),
            (
                policy(ALL, &anchor("b")),
                &["aws:SourceArn", "trust-anchor/b", "trust-anchor/a"],
            ),
            (policy(two, ""), &["sts:TagSession"]),
        ] {
            let finding = judged(&policy, &denied());
            assert_eq!(finding.outcome, Outcome::Failed(Exit::RefusedByAws));
            for part in expected {
                assert!(finding.detail.contains(part), "{part}: {}", finding.detail);
            }
            assert_eq!(judged(&policy, &granted()).outcome, Outcome::Warning);
        }
        for fine in [policy(ALL, &cn("web")), policy(ALL, &anchor("a"))] {
            assert_eq!(judged(&fine, &granted()).outcome, Outcome::Ok);
            // Something else said no.
            assert_eq!(judged(&fine, &denied()).outcome, Outcome::Warning);
        }
    }

    #[test]
    fn what_is_not_known_here_contradicts_no_session() {
        let region = r#""StringEquals":{"aws:RequestedRegion":"eu-central-1""#;
        let unknown = policy(ALL, &format!("{region}}}"));
        let finding = judged(&unknown, &granted());
        assert_eq!(finding.outcome, Outcome::Skipped);
        assert!(finding.detail.contains("aws:RequestedRegion"));
        // It may be what said no.
        let refused = Outcome::Failed(Exit::RefusedByAws);
        assert_eq!(judged(&unknown, &denied()).outcome, refused);
        // What is known says no as well.
        let cn = r#","aws:PrincipalTag/x509Subject/CN":"db"}"#;
        let wrong = policy(ALL, &format!("{region}{cn}"));
        assert_eq!(judged(&wrong, &granted()).outcome, Outcome::Warning);
    }

    #[test]
    fn the_document_is_told_what_roles_anywhere_tells() {
        let request = request(
            &target("role-session-name = \"ci\""),
            &chain("web", 12, 31).unwrap(),
        );
        assert_eq!(request.session_name, "ci");
        assert_eq!(request.account, "123456789012");
        assert_eq!(request.source_identity.as_deref(), Some("CN=web"));
        let cn = ("x509Subject/CN".to_owned(), "web".to_owned());
        assert!(request.tags.contains(&cn), "{:?}", request.tags);
    }

    #[test]
    fn a_file_that_is_no_document_is_a_usage_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("policy.json");
        let fault = |text: Option<&str>| {
            if let Some(text) = text {
                std::fs::write(&path, text).unwrap();
            }
            let finding = judged(&read(&path), &denied());
            assert_eq!(finding.outcome, Outcome::Failed(Exit::Usage));
            finding.detail
        };
        assert!(fault(None).contains("cannot read"));
        for text in ["", "{}", "[]", "{\"Version\":\"2012-10-17\"}"] {
            assert!(fault(Some(text)).contains("policy.json: "), "{text}");
        }
    }
}
