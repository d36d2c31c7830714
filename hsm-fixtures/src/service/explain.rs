//! How a request would be decided, without one: for `hsm-fixtures explain`.

use std::fmt;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;

use super::arn::Arn;
use super::certificate::Certificate;
use super::config::ServiceConfig;
use super::create_session;
use super::decision::{self, Asked};
use super::explanation::Explanation;
use super::registry::Registry;

/// Who would ask, and for what.
#[derive(Clone, Debug)]
pub struct Question {
    /// The leaf, then its intermediates, PEM.
    pub certificates_pem: String,
    /// `trustAnchorArn`.
    pub trust_anchor_arn: String,
    /// `profileArn`.
    pub profile_arn: String,
    /// `roleArn`.
    pub role_arn: String,
    /// `roleSessionName`.
    pub session_name: Option<String>,
    /// Whether there are `instanceProperties`.
    pub has_instance_properties: bool,
}

/// A table, and whether there would be a session.
pub struct Explained {
    explanation: Explanation,
    granted: bool,
}

impl Explained {
    /// Lays a question before a service that was started with `config`; no key and no signature take part.
    ///
    /// # Errors
    ///
    /// Where the configuration, the certificates or an ARN cannot be read. That there would be no session is no error.
    pub fn new(config: &ServiceConfig, question: &Question) -> Result<Explained> {
        let registry = Registry::new(config)?;
        let mut certificates =
            Certificate::bundle_from_pem(&question.certificates_pem).map_err(anyhow::Error::msg)?;
        ensure!(
            !certificates.is_empty(),
            "the client's certificate: there is none in PEM form"
        );
        let leaf = certificates.remove(0);
        // The agent does not send roots either.
        certificates.retain(|certificate| !certificate.is_issued_by(certificate));
        let arn = |text: &str, parse: fn(&str) -> Result<Arn, String>| {
            parse(text).map_err(anyhow::Error::msg).context("an ARN")
        };
        let trust_anchor = arn(&question.trust_anchor_arn, Arn::trust_anchor)?;
        let profile = arn(&question.profile_arn, Arn::profile)?;
        let role = arn(&question.role_arn, Arn::role)?;
        let asked = Asked {
            leaf: &leaf,
            intermediates: &certificates,
            trust_anchor: &trust_anchor,
            profile: &profile,
            role: &role,
            duration_seconds: None,
            session_name: question.session_name.as_deref(),
            has_instance_properties: question.has_instance_properties,
        };
        Ok(explain(
            &registry,
            &asked,
            Timestamp::now() + config.clock_offset,
        ))
    }

    /// Whether there would be a session.
    #[must_use]
    pub fn granted(&self) -> bool {
        self.granted
    }
}

fn explain(registry: &Registry, asked: &Asked<'_>, now: Timestamp) -> Explained {
    let mut explanation = Explanation::default();
    let outcome = asked
        .leaf
        .check_leaf(now)
        .map_err(super::refusal::Refusal::unfit_leaf)
        .and_then(|_| create_session::check_intermediates(asked.intermediates))
        .and_then(|()| decision::check_same_home(asked.trust_anchor, asked.profile, asked.role))
        .and_then(|()| decision::judge(registry, asked, now, &mut explanation));
    match &outcome {
        Ok(grant) => explanation.verdict(format!("a session of {} s", grant.seconds)),
        Err(refusal) => explanation.verdict(format!(
            "{} {}: {}; because {}",
            refusal.kind.status(),
            refusal.kind.name(),
            refusal.message,
            refusal.reason
        )),
    }
    Explained {
        explanation,
        granted: outcome.is_ok(),
    }
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.explanation.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::{Profile, Role, TrustAnchor};
    use super::super::test_client::{p256, spki};
    use super::*;
    use crate::pki::{LeafSpec, Pki};
    use crate::{PROFILE_ARN, TRUST_ANCHOR_ARN, WEB_ROLE_ARN};

    #[test]
    fn no_more_intermediates_are_taken_than_by_the_service() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::create(&dir.path().join("pki")).unwrap();
        let root = pki.root_pem().unwrap();
        let mut config = ServiceConfig::new(pki.tls_identity().unwrap());
        config.trust_anchors = vec![TrustAnchor::new(TRUST_ANCHOR_ARN, &root)];
        config.profiles = vec![Profile::new(PROFILE_ARN, &[WEB_ROLE_ARN])];
        config.roles = vec![Role::new(WEB_ROLE_ARN)];
        let leaf = pki.leaf(&spki(&p256()), &LeafSpec::new("web")).unwrap();
        let explained = |count| {
            let intermediate = pki.intermediate_pem().unwrap();
            let question = Question {
                certificates_pem: leaf.pem.clone() + &intermediate.repeat(count) + &root,
                trust_anchor_arn: TRUST_ANCHOR_ARN.to_owned(),
                profile_arn: PROFILE_ARN.to_owned(),
                role_arn: WEB_ROLE_ARN.to_owned(),
                session_name: None,
                has_instance_properties: false,
            };
            Explained::new(&config, &question).unwrap()
        };
        assert!(explained(5).granted(), "{}", explained(5));
        assert!(!explained(6).granted());
        assert!(explained(6).to_string().contains("5 are allowed"));
    }
}
