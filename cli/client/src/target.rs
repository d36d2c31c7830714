//! A target: a session that somebody wants, and the way to it. It comes from the command line, from
//! a table of the targets file, or from both, where the command line wins.

mod file;
mod kubernetes;
mod name;
mod role_session_name;
mod settings;

use std::path::PathBuf;

use sha2::{Digest, Sha256};
use thiserror::Error;

pub use file::{KubernetesTable, TargetFiles, TargetTable};
pub use kubernetes::{KeyLocation, KubernetesSettings};
pub use name::TargetName;
pub use role_session_name::RoleSessionName;
pub use settings::Settings;

use crate::diagnostic::Diagnostic;
use crate::exit::Exit;
use crate::proxy::Proxy;
use crate::request::CreateSession;

/// A session that somebody wants, and the way to it: checked, nothing left open.
#[derive(Debug, Clone)]
pub struct Target {
    /// What the targets file calls it; `None` where the command line alone made it.
    pub name: Option<TargetName>,
    /// The agent's.
    pub socket: PathBuf,
    /// What is asked of AWS.
    pub session: CreateSession,
    /// How AWS is reached.
    pub route: Route,
}

/// How the service is reached.
#[derive(Debug, Clone, Default)]
pub struct Route {
    /// The certificates to trust; `None` for the system's.
    pub ca_bundle: Option<PathBuf>,
    /// `None` to connect directly.
    pub proxy: Option<Proxy>,
}

/// Why there is no target.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "each message says it")]
pub enum TargetError {
    /// A targets file that cannot be read or that says something wrong.
    #[error("{}{}: {fault}", .path.display(), .line.map(|line| format!(":{line}")).unwrap_or_default())]
    File {
        path: PathBuf,
        line: Option<usize>,
        fault: String,
    },
    /// No file has it.
    #[error("there is no target {name:?} in {searched}")]
    Unknown {
        name: TargetName,
        searched: String,
        known: Vec<TargetName>,
    },
    /// Its settings do not fit together, or something is missing.
    #[error("{}{fault}", .name.as_ref().map(|name| format!("target {name:?}: ")).unwrap_or_default())]
    Misfit {
        name: Option<TargetName>,
        fault: String,
    },
}

impl Diagnostic for TargetError {
    fn exit(&self) -> Exit {
        Exit::Usage
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            TargetError::Unknown { known, name, .. } if known.is_empty() => {
                format!("there are no targets: write this one as [target.{name}]")
            }
            TargetError::Unknown { known, .. } => {
                let known: Vec<_> = known.iter().map(TargetName::as_ref).collect();
                format!("there are: {}", known.join(", "))
            }
            TargetError::File { .. } => "correct the targets file".to_owned(),
            TargetError::Misfit { .. } => {
                "correct the options, the target's table or the environment; \"roleseal targets\" shows each target"
                    .to_owned()
            }
        })
    }
}

impl Target {
    /// Two targets have the same key when either's session is as good for the other: same agent and
    /// identity, same request, same way.
    pub fn key(&self) -> String {
        let unsigned = self.session.unsigned();
        let parts = [
            self.socket.as_os_str().as_encoded_bytes(),
            unsigned.identity.as_deref().unwrap_or_default().as_bytes(),
            unsigned.region.as_bytes(),
            unsigned.host.as_bytes(),
            unsigned.query.as_bytes(),
            unsigned.body.as_bytes(),
            self.route
                .ca_bundle
                .as_deref()
                .map(|path| path.as_os_str().as_encoded_bytes())
                .unwrap_or_default(),
            self.route
                .proxy
                .as_ref()
                .map(Proxy::shown)
                .unwrap_or_default()
                .as_bytes(),
        ];
        let mut hash = Sha256::new();
        for part in parts {
            // With its length, or "ab" + "c" would be "a" + "bc".
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hex::encode(hash.finalize())
    }

    /// What messages call it.
    pub fn shown(&self) -> &str {
        match &self.name {
            Some(name) => name.as_ref(),
            None => self.session.target.role().as_ref(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A target of the ARNs that these tests share, with `more` settings as in a targets file.
    pub(crate) fn target(more: &str) -> Target {
        let settings: Settings = toml::from_str(&format!(
            "role-arn = \"arn:aws:iam::123456789012:role/web\"\n\
             profile-arn = \"arn:aws:rolesanywhere:eu-central-1:123456789012:profile/p\"\n\
             trust-anchor-arn = \"arn:aws:rolesanywhere:eu-central-1:123456789012:trust-anchor/a\"\n\
             socket = \"/agent.sock\"\n{more}"
        ))
        .unwrap();
        settings.target(None, &Default::default()).unwrap()
    }

    #[test]
    fn whatever_makes_another_session_makes_another_key() {
        let plain = target("");
        assert_eq!(plain.key(), target("").key());
        assert_eq!(plain.key().len(), 64);
        let renamed = Target {
            name: Some("other".parse().unwrap()),
            ..plain.clone()
        };
        assert_eq!(plain.key(), renamed.key());
        let mut keys = vec![plain.key()];
        for more in [
            "identity = \"web\"",
            "session-duration = \"2h\"",
            "role-session-name = \"ci\"",
            "instance-properties = { a = \"1\" }",
            "instance-properties = { a = \"2\" }",
            "endpoint = \"https://localhost:1\"",
            "fips = true",
            "ca-bundle = \"/ca.pem\"",
            "proxy = \"http://proxy:3128\"",
        ] {
            keys.push(target(more).key());
        }
        let elsewhere = Target {
            socket: "/other.sock".into(),
            ..plain
        };
        keys.push(elsewhere.key());
        let count = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), count);
    }
}
