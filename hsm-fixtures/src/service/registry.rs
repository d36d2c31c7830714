//! The configuration, validated: what exists on the service's side.

use anyhow::{Context, Result, ensure};
use jiff::SignedDuration;
use trust_policy::TrustPolicy;

use super::arn::Arn;
use super::attribute_mapping::Mapping;
use super::certificate::Certificate;
use super::config::{Profile, Role, ServiceConfig, TrustAnchor};
use super::refusal::Refusal;
use super::revocation::Crl;
use super::session_policy;

/// The limits of a session's duration, in seconds, for a profile as for a request.
pub(crate) const SESSION_SECONDS: std::ops::RangeInclusive<i64> = 900..=43_200;

/// The most certificates of a trust anchor's bundle: the CA's, and the next one while it is rotated.
const BUNDLE: usize = 2;

/// The trust policy of a role that has none of its own ("Role trusts" in the trust model).
const DEFAULT_TRUST_POLICY: &str = r#"{"Version": "2012-10-17", "Statement": {
    "Effect": "Allow",
    "Principal": {"Service": "rolesanywhere.amazonaws.com"},
    "Action": ["sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"]}}"#;

pub(crate) struct Registry {
    anchors: Vec<(Arn, KnownAnchor)>,
    profiles: Vec<(Arn, KnownProfile)>,
    roles: Vec<(Arn, KnownRole)>,
}

pub(crate) struct KnownAnchor {
    pub(crate) enabled: bool,
    pub(crate) bundle: Vec<Certificate>,
    pub(crate) crls: Vec<Crl>,
}

pub(crate) struct KnownProfile {
    pub(crate) profile: Profile,
    pub(crate) mapping: Mapping,
}

pub(crate) struct KnownRole {
    pub(crate) policy: TrustPolicy,
    pub(crate) max_session_seconds: Option<i64>,
}

impl Registry {
    /// Parses every ARN, certificate and policy, so that a mistake shows at the start and not as a refusal.
    pub(crate) fn new(config: &ServiceConfig) -> Result<Registry> {
        ensure!(
            config.clock_offset.abs() < SignedDuration::from_hours(24 * 365 * 100),
            "the clock offset is over a hundred years"
        );
        let registry = Registry {
            anchors: config
                .trust_anchors
                .iter()
                .map(|anchor| {
                    read_anchor(anchor).with_context(|| format!("trust anchor {}", anchor.arn))
                })
                .collect::<Result<_>>()?,
            profiles: config
                .profiles
                .iter()
                .map(|profile| {
                    read_profile(profile).with_context(|| format!("profile {}", profile.arn))
                })
                .collect::<Result<_>>()?,
            roles: config
                .roles
                .iter()
                .map(|role| read_role(role).with_context(|| format!("role {}", role.arn)))
                .collect::<Result<_>>()?,
        };
        ensure_once("trust anchor", &registry.anchors)?;
        ensure_once("profile", &registry.profiles)?;
        ensure_once("role", &registry.roles)?;
        Ok(registry)
    }

    pub(crate) fn anchor(&self, arn: &Arn) -> Result<&KnownAnchor, Refusal> {
        find(&self.anchors, arn).ok_or_else(|| Refusal::not_found(format!("no trust anchor {arn}")))
    }

    pub(crate) fn profile(&self, arn: &Arn) -> Result<&KnownProfile, Refusal> {
        find(&self.profiles, arn).ok_or_else(|| Refusal::not_found(format!("no profile {arn}")))
    }

    pub(crate) fn role(&self, arn: &Arn) -> Option<&KnownRole> {
        find(&self.roles, arn)
    }

    /// Adds a revocation list to a trust anchor.
    pub(crate) fn import_crl(&mut self, anchor: &str, bytes: &[u8]) -> Result<()> {
        let arn = Arn::trust_anchor(anchor).map_err(anyhow::Error::msg)?;
        let known = self.anchors.iter_mut().find(|(known, _)| *known == arn);
        let (_, known) = known.with_context(|| format!("no trust anchor {arn}"))?;
        let crl = read_crl(bytes, &known.bundle)?;
        known.crls.push(crl);
        Ok(())
    }
}

/// Of two that are called the same, one would count for nothing.
fn ensure_once<T>(kind: &str, known: &[(Arn, T)]) -> Result<()> {
    for (at, (arn, _)) in known.iter().enumerate() {
        let before = known.iter().take(at);
        ensure!(
            before.into_iter().all(|(other, _)| other != arn),
            "{kind} {arn} is there twice"
        );
    }
    Ok(())
}

fn find<'r, T>(known: &'r [(Arn, T)], arn: &Arn) -> Option<&'r T> {
    known
        .iter()
        .find(|(known, _)| known == arn)
        .map(|(_, found)| found)
}

fn read_anchor(anchor: &TrustAnchor) -> Result<(Arn, KnownAnchor)> {
    let arn = Arn::trust_anchor(&anchor.arn).map_err(anyhow::Error::msg)?;
    let bundle = Certificate::bundle_from_pem(&anchor.bundle_pem).map_err(anyhow::Error::msg)?;
    ensure!(!bundle.is_empty(), "its bundle has no certificate");
    ensure!(
        bundle.len() <= BUNDLE,
        "its bundle has {} certificates; {BUNDLE} are allowed",
        bundle.len()
    );
    for certificate in &bundle {
        certificate.check_is_ca().map_err(anyhow::Error::msg)?;
    }
    let crls = anchor
        .crls
        .iter()
        .enumerate()
        .map(|(at, bytes)| read_crl(bytes, &bundle).with_context(|| format!("CRL {}", at + 1)))
        .collect::<Result<_>>()?;
    let enabled = anchor.enabled;
    Ok((
        arn,
        KnownAnchor {
            enabled,
            bundle,
            crls,
        },
    ))
}

fn read_crl(bytes: &[u8], bundle: &[Certificate]) -> Result<Crl> {
    let crl = Crl::read(bytes).map_err(anyhow::Error::msg)?;
    crl.check_against(bundle).map_err(anyhow::Error::msg)?;
    Ok(crl)
}

fn read_profile(profile: &Profile) -> Result<(Arn, KnownProfile)> {
    let arn = Arn::profile(&profile.arn).map_err(anyhow::Error::msg)?;
    let seconds = i64::from(profile.duration_seconds);
    ensure!(
        SESSION_SECONDS.contains(&seconds),
        "it has a duration of {seconds} s, not within 900 to 43200"
    );
    session_policy::check(
        profile.session_policy.as_deref(),
        &profile.managed_policy_arns,
    )
    .map_err(anyhow::Error::msg)?;
    let mapping = Mapping::new(&profile.attribute_mappings).map_err(anyhow::Error::msg)?;
    let profile = profile.clone();
    Ok((arn, KnownProfile { profile, mapping }))
}

fn read_role(role: &Role) -> Result<(Arn, KnownRole)> {
    let arn = Arn::role(&role.arn).map_err(anyhow::Error::msg)?;
    let text = role.trust_policy.as_deref().unwrap_or(DEFAULT_TRUST_POLICY);
    let policy = TrustPolicy::parse(text).context("its trust policy")?;
    let max_session_seconds = role.max_session_seconds.map(i64::from);
    Ok((
        arn,
        KnownRole {
            policy,
            max_session_seconds,
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::Pki;

    #[test]
    fn a_mistake_in_the_configuration_shows_at_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::create(dir.path()).unwrap();
        let refused = |edit: fn(&mut ServiceConfig)| {
            let mut config = ServiceConfig::new(pki.tls_identity().unwrap());
            edit(&mut config);
            format!("{:#}", Registry::new(&config).err().unwrap())
        };
        const ANCHOR: &str = "arn:aws:rolesanywhere:eu-central-1:123456789012:trust-anchor/1";
        const PROFILE: &str = "arn:aws:rolesanywhere:eu-central-1:123456789012:profile/1";
        const ROLE: &str = "arn:aws:iam::123456789012:role/web";
        assert!(refused(|config| config.roles.push(Role::new(PROFILE))).contains("IAM role"));
        assert!(
            refused(|config| config.profiles.push(Profile::new(ANCHOR, &[]))).contains("a profile")
        );
        assert!(
            refused(|config| {
                config.profiles.push(Profile {
                    duration_seconds: 60,
                    ..Profile::new(PROFILE, &[])
                });
            })
            .contains("60 s")
        );
        assert!(
            refused(|config| {
                config.trust_anchors.push(TrustAnchor::new(ANCHOR, ""));
            })
            .contains("no certificate")
        );
        let root = pki.root_pem().unwrap();
        let anchor = || TrustAnchor::new(ANCHOR, &root);
        let with_anchors = |anchors: Vec<TrustAnchor>| {
            let mut config = ServiceConfig::new(pki.tls_identity().unwrap());
            config.trust_anchors = anchors;
            format!("{:#}", Registry::new(&config).err().unwrap())
        };
        let said = with_anchors(vec![anchor(), anchor()]);
        assert_eq!(said, format!("trust anchor {ANCHOR} is there twice"));
        let leaf = TrustAnchor::new(ANCHOR, &pki.tls_identity().unwrap().certificate_pem);
        assert!(with_anchors(vec![leaf]).contains("is no CA"));
        let mut unlisted = anchor();
        unlisted.crls = vec![Vec::new(), root.clone().into_bytes()];
        let said = with_anchors(vec![unlisted]);
        assert!(said.contains("CRL 1: no CRL in PEM or DER"), "{said}");
        let twice = |config: &mut ServiceConfig| {
            config.profiles = vec![Profile::new(PROFILE, &[]); 2];
        };
        assert!(refused(twice).contains("profile/1 is there twice"));
        let twice = |config: &mut ServiceConfig| config.roles = vec![Role::new(ROLE); 2];
        assert!(refused(twice).contains("role/web is there twice"));
    }
}
