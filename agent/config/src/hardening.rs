//! `[hardening]`: what the agent and its token programs take from themselves.

use std::path::PathBuf;

use serde::Deserialize;

use crate::value::AbsolutePath;

/// `[hardening]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hardening {
    /// Whether Landlock confines the agent.
    pub landlock: bool,
    /// Whether seccomp confines the agent.
    pub seccomp: bool,
    /// Whether the token programs confine themselves.
    pub token_programs: bool,
    /// Where else the agent may read, for certificates of a later configuration.
    pub read: Vec<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct HardeningTable {
    landlock: bool,
    seccomp: bool,
    token_programs: bool,
    pub(crate) pkcs11_network: Option<bool>,
    read: Vec<AbsolutePath>,
}

impl Default for HardeningTable {
    fn default() -> HardeningTable {
        HardeningTable {
            landlock: true,
            seccomp: true,
            token_programs: true,
            pkcs11_network: None,
            read: Vec::new(),
        }
    }
}

impl From<HardeningTable> for Hardening {
    fn from(table: HardeningTable) -> Hardening {
        Hardening {
            landlock: table.landlock,
            seccomp: table.seccomp,
            token_programs: table.token_programs,
            read: table.read.into_iter().map(|path| path.0).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{WEB, load, pkcs11};

    #[test]
    fn hardening_is_on_unless_switched_off() {
        let on = Hardening {
            landlock: true,
            seccomp: true,
            token_programs: true,
            read: vec![],
        };
        assert_eq!(load(WEB).unwrap().hardening, on);
        let text = format!(
            "[hardening]\nlandlock = false\ntoken-programs = false\nread = [\"/srv/pki\"]\n{WEB}"
        );
        let hardening = Hardening {
            landlock: false,
            token_programs: false,
            read: vec!["/srv/pki".into()],
            ..on
        };
        assert_eq!(load(&text).unwrap().hardening, hardening);
    }

    #[test]
    fn networks_are_left_to_the_module_unless_the_file_says_otherwise() {
        for (line, network) in [
            ("", None),
            ("pkcs11-network = true", Some(true)),
            ("pkcs11-network = false", Some(false)),
        ] {
            let config = load(&format!("[hardening]\n{line}\n{WEB}")).unwrap();
            assert_eq!(pkcs11(&config.tokens[0]).network, network, "{line}");
        }
    }
}
