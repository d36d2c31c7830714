//! How a request would be decided, without one: for `hsm-fixtures explain`.

use std::fmt;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;

use super::arn::Arn;
use super::authorisation::{self, Asked};
use super::certificate::Certificate;
use super::config::ServiceConfig;
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
        ensure!(!certificates.is_empty(), "there is no certificate");
        let leaf = certificates.remove(0);
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
        .and_then(|_| authorisation::check_same_home(asked.trust_anchor, asked.profile, asked.role))
        .and_then(|()| authorisation::judge(registry, asked, now, &mut explanation));
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
