//! The configuration, validated: what exists on the service's side.

use anyhow::{Result, ensure};
use jiff::SignedDuration;

use super::arn::Arn;
use super::certificate::Certificate;
use super::config::{Profile, ServiceConfig};
use super::refusal::Refusal;

/// The limits of a session's duration, in seconds, for a profile as for a request.
pub(crate) const SESSION_SECONDS: std::ops::RangeInclusive<i64> = 900..=43_200;

pub(crate) struct Registry {
    anchors: Vec<(Arn, Vec<Certificate>)>,
    profiles: Vec<(Arn, Profile)>,
    roles: Vec<Arn>,
}

impl Registry {
    /// Parses every ARN and certificate, so that a test's mistake shows at the start and not as a refusal.
    pub(crate) fn new(config: &ServiceConfig) -> Result<Registry> {
        let mut anchors = Vec::new();
        for anchor in &config.trust_anchors {
            let bundle =
                Certificate::bundle_from_pem(&anchor.bundle_pem).map_err(anyhow::Error::msg)?;
            ensure!(
                !bundle.is_empty(),
                "trust anchor {} has no certificate",
                anchor.arn
            );
            anchors.push((
                Arn::trust_anchor(&anchor.arn).map_err(anyhow::Error::msg)?,
                bundle,
            ));
        }
        let mut profiles = Vec::new();
        for profile in &config.profiles {
            let seconds = i64::from(profile.duration_seconds);
            ensure!(
                SESSION_SECONDS.contains(&seconds),
                "profile {} has a duration of {seconds} s",
                profile.arn
            );
            profiles.push((
                Arn::profile(&profile.arn).map_err(anyhow::Error::msg)?,
                profile.clone(),
            ));
        }
        let roles = config
            .roles
            .iter()
            .map(|role| Arn::role(role).map_err(anyhow::Error::msg))
            .collect::<Result<_>>()?;
        ensure!(
            config.clock_offset.abs() < SignedDuration::from_hours(24 * 365 * 100),
            "the clock offset is over a hundred years"
        );
        Ok(Registry {
            anchors,
            profiles,
            roles,
        })
    }

    pub(crate) fn anchor(&self, arn: &Arn) -> Result<&[Certificate], Refusal> {
        let found = self.anchors.iter().find(|(known, _)| known == arn);
        found
            .map(|(_, bundle)| bundle.as_slice())
            .ok_or_else(|| Refusal::not_found(format!("no trust anchor {arn}")))
    }

    pub(crate) fn profile(&self, arn: &Arn) -> Result<&Profile, Refusal> {
        let found = self.profiles.iter().find(|(known, _)| known == arn);
        found
            .map(|(_, profile)| profile)
            .ok_or_else(|| Refusal::not_found(format!("no profile {arn}")))
    }

    pub(crate) fn has_role(&self, arn: &Arn) -> bool {
        self.roles.contains(arn)
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::TrustAnchor;
    use super::*;
    use crate::pki::Pki;

    #[test]
    fn a_mistake_in_the_configuration_shows_at_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::create(dir.path()).unwrap();
        let refused = |edit: fn(&mut ServiceConfig)| {
            let mut config = ServiceConfig::new(pki.tls_identity().unwrap());
            edit(&mut config);
            Registry::new(&config).err().unwrap().to_string()
        };
        const ANCHOR: &str = "arn:aws:rolesanywhere:eu-central-1:123456789012:trust-anchor/1";
        const PROFILE: &str = "arn:aws:rolesanywhere:eu-central-1:123456789012:profile/1";
        assert!(refused(|config| config.roles.push(PROFILE.to_owned())).contains("IAM role"));
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
                config.trust_anchors.push(TrustAnchor {
                    arn: ANCHOR.to_owned(),
                    bundle_pem: String::new(),
                });
            })
            .contains("no certificate")
        );
    }
}
