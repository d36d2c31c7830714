//! What IAM Roles Anywhere asks of a role's trust policy.

use std::fmt;

use serde::Serialize;

use crate::context::Context;
use crate::decision::Decision;
use crate::policy::TrustPolicy;
use crate::principal::SERVICE_PRINCIPAL;

/// What the policy must allow: the role, the session's tags, its source identity (the same page).
pub const ACTIONS: [&str; 3] = ["sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"];

/// The decisions on all of [`ACTIONS`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RolesAnywhereDecision {
    /// In the order of [`ACTIONS`].
    pub decisions: Vec<Decision>,
}

/// What Roles Anywhere knows when it assumes a role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRequest {
    /// The trust anchor that the certificate leads to.
    pub trust_anchor_arn: String,
    /// The trust anchor's account.
    pub account: String,
    /// Session tags by name, such as `x509Subject/CN`.
    pub tags: Vec<(String, String)>,
    /// What [`source_identity`] makes of the certificate.
    pub source_identity: Option<String>,
    /// The certificate's serial in hex, or what the client asked for where the profile accepts that.
    pub session_name: String,
}

/// The source identity of a session ("Source identity rules" in the trust model): `CN=` and the subject's common name of
/// at most 61 characters; the common name alone where it has 62 to 64; without one, `ID=` and the certificate's serial
/// in hex, padded to an even length.
#[must_use]
pub fn source_identity(common_name: Option<&str>, serial_hex: &str) -> String {
    match common_name {
        Some(name) if name.chars().count() <= 61 => format!("CN={name}"),
        Some(name) => name.to_owned(),
        None if serial_hex.len() % 2 == 1 => format!("ID=0{serial_hex}"),
        None => format!("ID={serial_hex}"),
    }
}

impl SessionRequest {
    /// The condition keys of the request: `aws:SourceArn`, `aws:SourceAccount`, `aws:PrincipalIsAWSService`,
    /// `aws:PrincipalServiceName`, each tag as `aws:PrincipalTag/…` and
    /// `aws:RequestTag/…`, `aws:TagKeys`, `sts:SourceIdentity`, `sts:RoleSessionName`.
    #[must_use]
    pub fn context(&self) -> Context {
        let mut context = Context::new()
            .with("aws:SourceArn", &self.trust_anchor_arn)
            .with("aws:SourceAccount", &self.account)
            .with("aws:PrincipalIsAWSService", "true")
            .with("aws:PrincipalServiceName", SERVICE_PRINCIPAL)
            .with("sts:RoleSessionName", &self.session_name);
        if let Some(identity) = &self.source_identity {
            context = context.with("sts:SourceIdentity", identity);
        }
        for (name, value) in &self.tags {
            context = context
                .with(&format!("aws:PrincipalTag/{name}"), value)
                .with(&format!("aws:RequestTag/{name}"), value);
        }
        let names = self.tags.iter().map(|(name, _)| name.clone()).collect();
        context.set("aws:TagKeys", names);
        context
    }
}

impl TrustPolicy {
    /// Whether IAM Roles Anywhere may assume the role: all of [`ACTIONS`] must be allowed.
    #[must_use]
    pub fn for_roles_anywhere(&self, context: &Context) -> RolesAnywhereDecision {
        let decisions = ACTIONS
            .iter()
            .map(|action| self.decide(action, context))
            .collect();
        RolesAnywhereDecision { decisions }
    }
}

impl RolesAnywhereDecision {
    /// Whether all three are allowed.
    #[must_use]
    pub fn allowed(&self) -> bool {
        self.decisions.iter().all(Decision::allowed)
    }

    /// Whether nothing but what AWS does not document stands against it.
    #[must_use]
    pub fn undecided(&self) -> bool {
        !self.allowed() && self.failing().all(Decision::undecided)
    }

    /// Those that are not allowed.
    pub fn failing(&self) -> impl Iterator<Item = &Decision> {
        self.decisions.iter().filter(|decision| !decision.allowed())
    }

    /// One line: what decided. Where several actions fail for the same reason, it is told once.
    #[must_use]
    pub fn reason(&self) -> String {
        let deciding: Vec<&Decision> = if self.allowed() {
            self.decisions.iter().collect()
        } else {
            self.failing().collect()
        };
        let mut told: Vec<(Vec<&str>, String)> = Vec::new();
        for decision in deciding {
            let outcome = decision.outcome();
            match told.iter_mut().find(|(_, known)| *known == outcome) {
                Some((actions, _)) => actions.push(&decision.action),
                None => told.push((vec![&decision.action], outcome)),
            }
        }
        let lines: Vec<String> = told
            .iter()
            .map(|(actions, outcome)| match actions[..] {
                [action] => format!("{action} is {outcome}"),
                _ => format!("{} are {outcome}", actions.join(", ")),
            })
            .collect();
        lines.join("; ")
    }
}

impl fmt::Display for RolesAnywhereDecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for decision in &self.decisions {
            write!(f, "{decision}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(actions: &str, condition: &str) -> TrustPolicy {
        let text = format!(
            r#"{{"Version": "2012-10-17", "Statement": {{"Sid": "web", "Effect": "Allow",
                "Principal": {{"Service": "rolesanywhere.amazonaws.com"}}, "Action": {actions}, "Condition": {condition}}}}}"#
        );
        TrustPolicy::parse(&text).unwrap()
    }

    fn context() -> Context {
        SessionRequest {
            trust_anchor_arn: "arn:aws:rolesanywhere:eu-central-1:123456789012:trust-anchor/1"
                .to_owned(),
            account: "123456789012".to_owned(),
            tags: vec![
                ("x509Subject/CN".to_owned(), "web".to_owned()),
                ("x509SAN/DNS".to_owned(), "web.test".to_owned()),
            ],
            source_identity: Some("CN=web".to_owned()),
            session_name: "ff01".to_owned(),
        }
        .context()
    }

    #[test]
    fn the_context_has_every_key_that_a_policy_may_ask_for() {
        let context = context();
        let keys: Vec<&str> = context.iter().map(|(key, _)| key).collect();
        assert_eq!(
            keys,
            [
                "aws:PrincipalIsAWSService",
                "aws:PrincipalServiceName",
                "aws:PrincipalTag/x509SAN/DNS",
                "aws:PrincipalTag/x509Subject/CN",
                "aws:RequestTag/x509SAN/DNS",
                "aws:RequestTag/x509Subject/CN",
                "aws:SourceAccount",
                "aws:SourceArn",
                "aws:TagKeys",
                "sts:RoleSessionName",
                "sts:SourceIdentity",
            ]
        );
        assert_eq!(
            context.values("AWS:tagkeys"),
            ["x509Subject/CN", "x509SAN/DNS"]
        );
    }

    #[test]
    fn a_source_identity_is_the_common_name_or_the_serial() {
        assert_eq!(source_identity(Some("web"), "ff01"), "CN=web");
        assert_eq!(
            source_identity(Some(&"a".repeat(61)), "1"),
            format!("CN={}", "a".repeat(61))
        );
        assert_eq!(source_identity(Some(&"a".repeat(62)), "1"), "a".repeat(62));
        // The two examples of the page: 291 and 17767.
        assert_eq!(source_identity(None, "123"), "ID=0123");
        assert_eq!(source_identity(None, "4567"), "ID=4567");
    }

    #[test]
    fn a_deny_of_all_but_services_is_not_for_roles_anywhere() {
        let deny = |condition: &str| {
            let text = format!(
                r#"{{"Version": "2012-10-17", "Statement": [
                    {{"Effect": "Allow", "Principal": {{"Service": "rolesanywhere.amazonaws.com"}}, "Action": "sts:*"}},
                    {{"Effect": "Deny", "Principal": "*", "Action": "sts:*", "Condition": {condition}}}]}}"#
            );
            TrustPolicy::parse(&text).unwrap()
        };
        for condition in [
            r#"{"Bool": {"aws:PrincipalIsAWSService": "false"}}"#,
            r#"{"StringNotEquals": {"aws:PrincipalServiceName": "rolesanywhere.amazonaws.com"}}"#,
        ] {
            let decision = deny(condition).for_roles_anywhere(&context());
            assert!(decision.allowed(), "{}", decision.reason());
        }
    }

    #[test]
    fn what_is_not_known_decides_only_where_nothing_else_does() {
        let undecided = |more: &str| {
            let text = format!(
                r#"{{"Version": "2012-10-17", "Statement": [{{"Effect": "Allow", "Principal": {{"Service":
                "rolesanywhere.amazonaws.com"}}, {more}}}]}}"#
            );
            let policy = TrustPolicy::parse(&text).unwrap();
            policy.for_roles_anywhere(&context()).undecided()
        };
        let region = r#""Condition": {"StringEquals": {"aws:RequestedRegion": "eu-central-1""#;
        let all = format!(r#""Action": "sts:*", {region}"#);
        assert!(undecided(&format!("{all}}}}}")));
        let tag = r#""aws:PrincipalTag/x509Subject/CN": "batch""#;
        assert!(!undecided(&format!("{all}, {tag}}}}}")));
        assert!(!undecided(r#""Action": "sts:*""#), "it is allowed");
        let one = r#""Action": "sts:AssumeRole""#;
        assert!(!undecided(&format!("{one}, {region}}}}}")));
        let deny = r#"{"Effect": "Deny", "Principal": "*", "Action": "sts:*""#;
        assert!(!undecided(&format!("{all}}}}}}}, {deny}")));
        assert!(undecided(&format!(
            r#""Action": "sts:*"}}, {deny}, {region}}}}}"#
        )));
    }

    #[test]
    fn a_missing_action_is_told_by_name() {
        let decision = policy(r#"["sts:AssumeRole", "sts:SetSourceIdentity"]"#, "{}")
            .for_roles_anywhere(&context());
        assert!(!decision.allowed());
        let failing: Vec<&str> = decision
            .failing()
            .map(|decision| decision.action.as_str())
            .collect();
        assert_eq!(failing, ["sts:TagSession"]);
        assert_eq!(
            decision.reason(),
            "sts:TagSession is allowed by no statement: Statement[0] \"web\": Action sts:AssumeRole | \
             sts:SetSourceIdentity, not sts:TagSession"
        );
    }

    #[test]
    fn a_reason_common_to_all_three_is_told_once() {
        let decision = policy(
            r#""sts:*""#,
            r#"{"StringEquals": {"aws:PrincipalTag/x509Subject/CN": "batch"}}"#,
        )
        .for_roles_anywhere(&context());
        assert_eq!(
            decision.reason(),
            "sts:AssumeRole, sts:TagSession, sts:SetSourceIdentity are allowed by no statement: Statement[0] \"web\": \
             StringEquals aws:PrincipalTag/x509Subject/CN \"batch\", the request has \"web\""
        );
    }
}
