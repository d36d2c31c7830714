//! The table `[kubernetes]` of a targets file: whose service-account tokens `roleseal serve` accepts.

use std::path::PathBuf;
use std::str::FromStr;

use serde::Deserialize;

use super::settings::{absolute, text};

/// What a targets file says about a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct KubernetesSettings {
    /// The cluster's issuer.
    pub issuer: String,
    /// The audience of tokens.
    #[serde(default = "usual_audience")]
    pub audience: String,
    /// Where the cluster's keys are; `None` for the API server that the environment names.
    #[serde(default, deserialize_with = "text")]
    pub jwks: Option<KeyLocation>,
    /// This node, where the command line does not name it.
    #[serde(default)]
    pub node: Option<String>,
    /// The API server's CA; `None` for the one that Kubernetes mounts.
    #[serde(default, deserialize_with = "absolute")]
    pub ca_bundle: Option<PathBuf>,
    /// The token to show to the API server; `None` for the one that Kubernetes mounts.
    #[serde(default, deserialize_with = "absolute")]
    pub token_file: Option<PathBuf>,
}

/// Where a JWK set is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyLocation {
    /// In a file.
    File(PathBuf),
    /// At an `https` URL.
    Url(String),
}

fn usual_audience() -> String {
    "roleseal".to_owned()
}

impl FromStr for KeyLocation {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<KeyLocation, &'static str> {
        let is_host =
            |rest: &str| !rest.is_empty() && !rest.starts_with('/') && !rest.contains('@');
        match text.strip_prefix("https://") {
            Some(rest) if is_host(rest) => Ok(KeyLocation::Url(text.to_owned())),
            None if text.starts_with('/') => Ok(KeyLocation::File(text.into())),
            _ => Err("write an absolute path or https://HOST[:PORT]/PATH"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_are_in_a_file_or_behind_tls() {
        for (text, expected) in [
            (
                "/etc/roleseal/jwks.json",
                Some(KeyLocation::File("/etc/roleseal/jwks.json".into())),
            ),
            (
                "https://10.0.0.1:6443/openid/v1/jwks",
                Some(KeyLocation::Url(
                    "https://10.0.0.1:6443/openid/v1/jwks".into(),
                )),
            ),
            ("http://10.0.0.1/jwks", None),
            ("https://", None),
            ("https:///jwks", None),
            ("https://user@host/jwks", None),
            ("jwks.json", None),
            ("", None),
        ] {
            assert_eq!(text.parse::<KeyLocation>().ok(), expected, "{text}");
        }
    }
}
