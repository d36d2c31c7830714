//! The agent's configuration file, written.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::softhsm::Token;
use crate::tpm_key::TpmKey;

/// `roleseal-agent --config FILE`. Tests of odd configurations write their own TOML.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct AgentConfig {
    /// Where the agent listens.
    pub socket: PathBuf,
    /// Where the agent keeps what outlasts it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<PathBuf>,
    /// The PKCS#11 module of URIs that have none.
    pub pkcs11_module: PathBuf,
    /// The TPM of identities whose key is on one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tpm: Option<TpmConfig>,
    /// What callers may take, where that is not the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitsConfig>,
    /// The keys and their certificates.
    pub identity: Vec<AgentIdentity>,
}

/// `tpm = { tcti = "TCTI" }`.
#[derive(Clone, Debug, Serialize)]
pub struct TpmConfig {
    /// How libtss2 finds the TPM.
    pub tcti: String,
}

/// `[limits]`.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct LimitsConfig {
    /// Connections at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<u32>,
    /// Of them, of one user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections_per_user: Option<u32>,
    /// Of them, of all whom no rule names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections_unnamed: Option<u32>,
    /// Requests of one user in a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_second_per_user: Option<u32>,
    /// Calls in a second of one user whom no rule names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_second_unnamed: Option<u32>,
}

/// One `[[identity]]`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct AgentIdentity {
    /// What clients call it.
    pub name: String,
    /// A `pkcs11:` URI; or a path or `handle:`, of a key on the TPM.
    pub key: String,
    /// Where the token's PIN or the TPM key's auth value is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pin: Option<PinFile>,
    /// Leaf, then intermediates, PEM.
    pub certificate: PathBuf,
    /// How the agent renews it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renew: Option<RenewConfig>,
    /// Endpoints that requests may go to, beside AWS's own.
    pub endpoints: Vec<String>,
    /// Parallel sessions on the token; a TPM has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sessions: Option<u32>,
    /// Who may do what; nobody but the agent's own user where it is empty.
    pub allow: Vec<AllowRule>,
}

/// `{ file = "PATH" }`.
#[derive(Clone, Debug, Serialize)]
pub struct PinFile {
    /// A file with the PIN, readable by its owner alone.
    pub file: PathBuf,
}

/// `{ command = "COMMAND", before = "10d", timeout = "2m" }`.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct RenewConfig {
    /// For the shell.
    pub command: String,
    /// How long before the certificate's end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// The certificate request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub csr: Option<PathBuf>,
    /// How long the command may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
}

/// One `[[identity.allow]]`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct AllowRule {
    /// User ids.
    pub users: Vec<u32>,
    /// Role ARNs, with `*`.
    pub roles: Vec<String>,
    /// The longest session, such as `1h`.
    pub max_duration: String,
}

impl AgentConfig {
    /// The TOML text.
    ///
    /// # Errors
    ///
    /// Where a path is not UTF-8.
    pub fn to_toml(&self) -> anyhow::Result<String> {
        Ok(toml::to_string(self)?)
    }
}

impl AgentIdentity {
    /// An identity `name` for the key of the same label on `token`, with four sessions and no rule.
    #[must_use]
    pub fn new(name: &str, token: &Token, pin_file: &Path, certificate: &Path) -> AgentIdentity {
        AgentIdentity {
            sessions: Some(4),
            ..AgentIdentity::with_key(
                name,
                &format!("pkcs11:token={};object={name}", token.label()),
                Some(pin_file),
                certificate,
            )
        }
    }

    /// An identity `name` for a key on a TPM, with no rule; `auth_file` holds the key's auth value, where it has one.
    #[must_use]
    pub fn on_tpm(
        name: &str,
        key: &TpmKey,
        auth_file: Option<&Path>,
        certificate: &Path,
    ) -> AgentIdentity {
        AgentIdentity::with_key(name, &key.key, auth_file, certificate)
    }

    fn with_key(
        name: &str,
        key: &str,
        pin_file: Option<&Path>,
        certificate: &Path,
    ) -> AgentIdentity {
        AgentIdentity {
            name: name.to_owned(),
            key: key.to_owned(),
            pin: pin_file.map(|file| PinFile {
                file: file.to_owned(),
            }),
            certificate: certificate.to_owned(),
            renew: None,
            endpoints: Vec::new(),
            sessions: None,
            allow: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_as_operators_write_it() {
        let dir = tempfile::tempdir().unwrap();
        let token = crate::SoftHsm::create(dir.path())
            .unwrap()
            .add_token("lab", "2468")
            .unwrap();
        let mut web =
            AgentIdentity::new("web", &token, Path::new("/lab.pin"), Path::new("/web.pem"));
        web.allow.push(AllowRule {
            users: vec![1001],
            roles: vec!["arn:*".into()],
            max_duration: "1h".into(),
        });
        let key = TpmKey {
            key: "handle:0x81000101".into(),
            spki: Vec::new(),
        };
        let chip = AgentIdentity::on_tpm("chip", &key, None, Path::new("/chip.pem"));
        let config = AgentConfig {
            socket: "/agent.sock".into(),
            state: Some("/state".into()),
            pkcs11_module: "/module.so".into(),
            limits: None,
            tpm: Some(TpmConfig {
                tcti: "device:/dev/tpmrm0".into(),
            }),
            identity: vec![web, chip],
        };
        assert_eq!(
            config.to_toml().unwrap(),
            r#"socket = "/agent.sock"
state = "/state"
pkcs11-module = "/module.so"

[tpm]
tcti = "device:/dev/tpmrm0"

[[identity]]
name = "web"
key = "pkcs11:token=lab;object=web"
certificate = "/web.pem"
endpoints = []
sessions = 4

[identity.pin]
file = "/lab.pin"

[[identity.allow]]
users = [1001]
roles = ["arn:*"]
max-duration = "1h"

[[identity]]
name = "chip"
key = "handle:0x81000101"
certificate = "/chip.pem"
endpoints = []
allow = []
"#
        );
    }
}
