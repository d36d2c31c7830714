//! What the service knows: trust anchors, profiles and roles, from code or from a TOML file.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use jiff::SignedDuration;
use serde::Deserialize;

use crate::pki::TlsIdentity;

/// The session duration of a profile that names none, in seconds: AWS's own default.
pub const DEFAULT_PROFILE_SECONDS: u32 = 3600;

/// Everything a [`super::Service`] is started with.
#[derive(Clone)]
pub struct ServiceConfig {
    /// TCP port on 127.0.0.1; 0 for any free one.
    pub port: u16,
    /// The server's certificate and key.
    pub tls: TlsIdentity,
    /// Where paths of certificates may end.
    pub trust_anchors: Vec<TrustAnchor>,
    /// What a session may be asked through.
    pub profiles: Vec<Profile>,
    /// ARNs of the roles that exist and trust Roles Anywhere.
    pub roles: Vec<String>,
    /// How far the service's clock is ahead of this machine's; negative for behind.
    pub clock_offset: SignedDuration,
    /// How long every session lasts, whatever it was asked for and the profile says; in seconds.
    pub session_seconds: Option<u32>,
    /// Write one line for each decision to stderr.
    pub verbose: bool,
}

/// A trust anchor with a certificate bundle.
#[derive(Clone, Debug)]
pub struct TrustAnchor {
    /// `arn:PARTITION:rolesanywhere:REGION:ACCOUNT:trust-anchor/ID`.
    pub arn: String,
    /// One or two CA certificates, PEM.
    pub bundle_pem: String,
}

/// A profile.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Profile {
    /// `arn:PARTITION:rolesanywhere:REGION:ACCOUNT:profile/ID`.
    pub arn: String,
    /// A disabled profile gives no sessions.
    #[serde(default = "enabled")]
    pub enabled: bool,
    /// ARNs of the roles that may be assumed through it.
    pub roles: Vec<String>,
    /// The longest session, and the length of one that asks for nothing; in seconds.
    #[serde(default = "default_seconds")]
    pub duration_seconds: u32,
    /// Whether a client may set `roleSessionName`.
    #[serde(default)]
    pub accept_role_session_name: bool,
    /// Whether a client must send `instanceProperties`.
    #[serde(default)]
    pub require_instance_properties: bool,
}

impl Profile {
    /// An enabled profile for `roles`, with AWS's defaults.
    #[must_use]
    pub fn new(arn: &str, roles: &[&str]) -> Profile {
        Profile {
            arn: arn.to_owned(),
            enabled: true,
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            duration_seconds: DEFAULT_PROFILE_SECONDS,
            accept_role_session_name: false,
            require_instance_properties: false,
        }
    }
}

impl ServiceConfig {
    /// A service on a free port that knows nobody yet.
    #[must_use]
    pub fn new(tls: TlsIdentity) -> ServiceConfig {
        ServiceConfig {
            port: 0,
            tls,
            trust_anchors: Vec::new(),
            profiles: Vec::new(),
            roles: Vec::new(),
            clock_offset: SignedDuration::ZERO,
            session_seconds: None,
            verbose: false,
        }
    }

    /// Reads a TOML file; the paths in it are relative to its directory.
    ///
    /// ```toml
    /// port = 8443
    /// tls-certificate = "tls.pem"
    /// tls-key = "tls.key"
    /// roles = ["arn:aws:iam::123456789012:role/web"]
    ///
    /// [[trust-anchor]]
    /// arn = "arn:aws:rolesanywhere:eu-central-1:123456789012:trust-anchor/1"
    /// bundle = "root.pem"
    ///
    /// [[profile]]
    /// arn = "arn:aws:rolesanywhere:eu-central-1:123456789012:profile/1"
    /// roles = ["arn:aws:iam::123456789012:role/web"]
    /// enabled = true                      # these four lines are the defaults
    /// duration-seconds = 3600
    /// accept-role-session-name = false
    /// require-instance-properties = false
    /// ```
    ///
    /// # Errors
    ///
    /// Where the file, or one that it names, cannot be read or has an unknown key.
    pub fn from_toml_file(path: &Path) -> Result<ServiceConfig> {
        let text =
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let file: File = toml::from_str(&text).with_context(|| format!("in {}", path.display()))?;
        let dir = path.parent().unwrap_or(Path::new("."));
        let read = |name: &Path| {
            let path = dir.join(name);
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let trust_anchors = file
            .trust_anchor
            .iter()
            .map(|anchor| {
                Ok(TrustAnchor {
                    arn: anchor.arn.clone(),
                    bundle_pem: read(&anchor.bundle)?,
                })
            })
            .collect::<Result<_>>()?;
        let tls = TlsIdentity {
            certificate_pem: read(&file.tls_certificate)?,
            key_pem: read(&file.tls_key)?,
        };
        Ok(ServiceConfig {
            port: file.port,
            trust_anchors,
            profiles: file.profile,
            roles: file.roles,
            ..ServiceConfig::new(tls)
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    port: u16,
    tls_certificate: PathBuf,
    tls_key: PathBuf,
    roles: Vec<String>,
    trust_anchor: Vec<FileTrustAnchor>,
    profile: Vec<Profile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct FileTrustAnchor {
    arn: String,
    bundle: PathBuf,
}

fn enabled() -> bool {
    true
}

fn default_seconds() -> u32 {
    DEFAULT_PROFILE_SECONDS
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
        port = 8443
        tls-certificate = "tls.pem"
        tls-key = "tls.key"
        roles = ["arn:aws:iam::123456789012:role/web"]
        [[trust-anchor]]
        arn = "arn:aws:rolesanywhere:eu-central-1:123456789012:trust-anchor/1"
        bundle = "root.pem"
        [[profile]]
        arn = "arn:aws:rolesanywhere:eu-central-1:123456789012:profile/1"
        roles = ["arn:aws:iam::123456789012:role/web"]
    "#;

    #[test]
    fn a_file_names_its_neighbours() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["tls.pem", "tls.key", "root.pem"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        let path = dir.path().join("service.toml");
        fs::write(&path, TEXT).unwrap();
        let config = ServiceConfig::from_toml_file(&path).unwrap();
        assert_eq!(
            (config.port, config.tls.key_pem.as_str()),
            (8443, "tls.key")
        );
        assert_eq!(config.trust_anchors[0].bundle_pem, "root.pem");
        assert!(config.profiles[0].enabled && !config.profiles[0].accept_role_session_name);
        assert_eq!(config.profiles[0].duration_seconds, 3600);

        fs::write(&path, format!("{TEXT}\nenable = true")).unwrap();
        let error = format!("{:#}", ServiceConfig::from_toml_file(&path).err().unwrap());
        assert!(
            error.contains("service.toml") && error.contains("enable"),
            "{error}"
        );
    }
}
