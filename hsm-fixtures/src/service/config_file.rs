//! The service's configuration as a file, TOML or JSON.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::attribute_mapping::AttributeMapping;
use super::config::{DEFAULT_PROFILE_SECONDS, Profile, Role, ServiceConfig, TrustAnchor};
use crate::pki::TlsIdentity;

impl ServiceConfig {
    /// Reads a file, JSON where its name ends in `.json` and TOML otherwise; the paths in it are relative to its
    /// directory. docs/local-service.md tells every key. `own_tls` makes the server's certificate where the file names
    /// none.
    ///
    /// # Errors
    ///
    /// Where the file, or one that it names, cannot be read or has an unknown key.
    pub fn from_file(
        path: &Path,
        own_tls: impl FnOnce() -> Result<TlsIdentity>,
    ) -> Result<ServiceConfig> {
        let file: File = read_file(path).with_context(|| format!("in {}", path.display()))?;
        let place = Place(path.parent().unwrap_or(Path::new(".")));
        let tls = match (&file.tls_certificate, &file.tls_key) {
            (Some(certificate), Some(key)) => TlsIdentity {
                certificate_pem: place.text(certificate)?,
                key_pem: place.text(key)?,
            },
            (None, None) => own_tls()?,
            _ => bail!(
                "in {}: tls-certificate and tls-key go together",
                path.display()
            ),
        };
        let mut roles: Vec<Role> = file.roles.iter().map(|arn| Role::new(arn)).collect();
        for role in file.role {
            roles.push(role.read(&place)?);
        }
        Ok(ServiceConfig {
            port: file.port,
            trust_anchors: file
                .trust_anchor
                .iter()
                .map(|anchor| anchor.read(&place))
                .collect::<Result<_>>()?,
            profiles: file
                .profile
                .into_iter()
                .map(|profile| profile.read(&place))
                .collect::<Result<_>>()?,
            roles,
            ..ServiceConfig::new(tls)
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    port: u16,
    tls_certificate: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    /// Roles without a trust policy of their own.
    #[serde(default)]
    roles: Vec<String>,
    #[serde(default)]
    role: Vec<FileRole>,
    trust_anchor: Vec<FileTrustAnchor>,
    profile: Vec<FileProfile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct FileTrustAnchor {
    arn: String,
    bundle: PathBuf,
    #[serde(default = "enabled")]
    enabled: bool,
    #[serde(default)]
    crls: Vec<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct FileRole {
    arn: String,
    trust_policy: Option<Document>,
    trust_policy_file: Option<PathBuf>,
    max_session_seconds: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct FileProfile {
    arn: String,
    #[serde(default = "enabled")]
    enabled: bool,
    roles: Vec<String>,
    #[serde(default = "default_seconds")]
    duration_seconds: u32,
    #[serde(default)]
    accept_role_session_name: bool,
    #[serde(default)]
    require_instance_properties: bool,
    session_policy: Option<Document>,
    session_policy_file: Option<PathBuf>,
    #[serde(default)]
    managed_policy_arns: Vec<String>,
    #[serde(default)]
    attribute_mappings: Vec<AttributeMapping>,
}

/// A policy: the JSON as text, or the document itself.
#[derive(Deserialize)]
#[serde(untagged)]
enum Document {
    Text(String),
    Inline(Value),
}

/// The directory that paths are relative to.
struct Place<'a>(&'a Path);

impl Place<'_> {
    fn bytes(&self, name: &Path) -> Result<Vec<u8>> {
        let path = self.0.join(name);
        fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    fn text(&self, name: &Path) -> Result<String> {
        let path = self.0.join(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// A policy that is inline, or in a file, or neither.
    fn policy(
        &self,
        owner: &str,
        inline: Option<Document>,
        file: Option<&Path>,
    ) -> Result<Option<String>> {
        match (inline, file) {
            (Some(_), Some(_)) => bail!("{owner}: its policy is there inline and as a file"),
            (Some(Document::Text(text)), None) => Ok(Some(text)),
            (Some(Document::Inline(value)), None) => Ok(Some(value.to_string())),
            (None, Some(name)) => self.text(name).map(Some),
            (None, None) => Ok(None),
        }
    }
}

impl FileTrustAnchor {
    fn read(&self, place: &Place<'_>) -> Result<TrustAnchor> {
        Ok(TrustAnchor {
            enabled: self.enabled,
            crls: self
                .crls
                .iter()
                .map(|crl| place.bytes(crl))
                .collect::<Result<_>>()?,
            ..TrustAnchor::new(&self.arn, &place.text(&self.bundle)?)
        })
    }
}

impl FileRole {
    fn read(self, place: &Place<'_>) -> Result<Role> {
        let file = self.trust_policy_file.as_deref();
        Ok(Role {
            trust_policy: place.policy(&self.arn, self.trust_policy, file)?,
            max_session_seconds: self.max_session_seconds,
            arn: self.arn,
        })
    }
}

impl FileProfile {
    fn read(self, place: &Place<'_>) -> Result<Profile> {
        let file = self.session_policy_file.as_deref();
        Ok(Profile {
            session_policy: place.policy(&self.arn, self.session_policy, file)?,
            arn: self.arn,
            enabled: self.enabled,
            roles: self.roles,
            duration_seconds: self.duration_seconds,
            accept_role_session_name: self.accept_role_session_name,
            require_instance_properties: self.require_instance_properties,
            managed_policy_arns: self.managed_policy_arns,
            attribute_mappings: self.attribute_mappings,
        })
    }
}

fn read_file<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read_to_string(path).context("cannot read it")?;
    if path
        .extension()
        .is_some_and(|extension| extension == "json")
    {
        Ok(serde_json::from_str(&text)?)
    } else {
        Ok(toml::from_str(&text)?)
    }
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
        [[role]]
        arn = "arn:aws:iam::123456789012:role/batch"
        trust-policy-file = "batch.json"
        max-session-seconds = 3600
        [[role]]
        arn = "arn:aws:iam::123456789012:role/inline"
        trust-policy = { Version = "2012-10-17" }
        [[trust-anchor]]
        arn = "arn:aws:rolesanywhere:eu-central-1:123456789012:trust-anchor/1"
        bundle = "root.pem"
        crls = ["root.crl"]
        [[profile]]
        arn = "arn:aws:rolesanywhere:eu-central-1:123456789012:profile/1"
        roles = ["arn:aws:iam::123456789012:role/web"]
        session-policy = '{"Version": "2012-10-17"}'
        attribute-mappings = [{ certificate-field = "x509Issuer", specifiers = ["O"] }]
    "#;

    fn no_tls() -> Result<TlsIdentity> {
        bail!("no certificate was asked for")
    }

    fn dir() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in ["tls.pem", "tls.key", "root.pem", "root.crl", "batch.json"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        dir
    }

    #[test]
    fn a_file_names_its_neighbours() {
        let dir = dir();
        let path = dir.path().join("service.toml");
        fs::write(&path, TEXT).unwrap();
        let config = ServiceConfig::from_file(&path, no_tls).unwrap();
        assert_eq!(
            (config.port, config.tls.key_pem.as_str()),
            (8443, "tls.key")
        );
        assert_eq!(config.trust_anchors[0].bundle_pem, "root.pem");
        assert_eq!(config.trust_anchors[0].crls, [b"root.crl"]);
        assert!(config.profiles[0].enabled && !config.profiles[0].accept_role_session_name);
        assert_eq!(config.profiles[0].duration_seconds, 3600);
        assert_eq!(config.profiles[0].attribute_mappings[0].specifiers, ["O"]);
        let policies: Vec<_> = config
            .roles
            .iter()
            .map(|role| role.trust_policy.as_deref())
            .collect();
        let inline = r#"{"Version":"2012-10-17"}"#;
        assert_eq!(policies, [None, Some("batch.json"), Some(inline)]);
        assert_eq!(config.roles[1].max_session_seconds, Some(3600));
    }

    #[test]
    fn the_same_in_json() {
        let dir = dir();
        let value: Value = toml::from_str(TEXT).unwrap();
        let path = dir.path().join("service.json");
        fs::write(&path, value.to_string()).unwrap();
        let config = ServiceConfig::from_file(&path, no_tls).unwrap();
        assert_eq!((config.port, config.roles.len()), (8443, 3));
    }

    #[test]
    fn a_mistake_is_told_with_its_place() {
        let dir = dir();
        let path = dir.path().join("service.toml");
        let refused = |text: String| {
            fs::write(&path, text).unwrap();
            format!(
                "{:#}",
                ServiceConfig::from_file(&path, no_tls).err().unwrap()
            )
        };
        let error = refused(format!("{TEXT}\nenable = true"));
        assert!(
            error.contains("service.toml") && error.contains("enable"),
            "{error}"
        );
        let error = refused(TEXT.replace("tls-key = \"tls.key\"", ""));
        assert!(error.contains("go together"), "{error}");
        let error = refused(TEXT.replace("root.crl", "gone.crl"));
        assert!(error.contains("gone.crl"), "{error}");
        let both = TEXT.replace("max-session-seconds = 3600", "trust-policy = '{}'");
        assert!(refused(both).contains("inline and as a file"));
        let neither = TEXT.replace("tls-", "#");
        assert!(refused(neither).contains("no certificate was asked for"));
    }
}
