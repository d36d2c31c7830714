//! `[[identity]]`

use std::collections::BTreeSet;
use std::path::PathBuf;

use nix::unistd::geteuid;
use rolesanywhere::Endpoint;
use serde::Deserialize;
use token::Tcti;

use super::allow::RuleTable;
use super::file::Fault;
use super::key::{CertificateText, KeyConfig, KeySettings, KeyText};
use super::name::IdentityName;
use super::pin::PinTable;
use super::renew::RenewTable;
use super::tokens::{Sessions, TokenKind, TpmTable};
use super::value::{AbsolutePath, Text};
use crate::accounts::Accounts;
use crate::certificate::CertificateSource;
use crate::policy::Policy;
use crate::renewal::Settings;

/// One `[[identity]]`.
#[derive(Debug)]
pub struct IdentityConfig {
    /// Its name, unique.
    pub name: String,
    /// The private key.
    pub key: KeyConfig,
    /// Where leaf and intermediates come from.
    pub certificate: CertificateSource,
    /// How its certificate is renewed, where the agent is to see to that.
    pub renewal: Option<Settings>,
    /// What may be called beside AWS's own endpoints.
    pub endpoints: Vec<Endpoint>,
    /// Who may use it, and for what.
    pub policy: Policy,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct IdentityTable {
    pub(super) name: IdentityName,
    key: KeyText,
    pin: Option<PinTable>,
    parent_pin: Option<PinTable>,
    owner_pin: Option<PinTable>,
    tpm: Option<TpmTable>,
    certificate: Option<CertificateText>,
    chain: Option<AbsolutePath>,
    sessions: Option<Sessions>,
    renew: Option<RenewTable>,
    #[serde(default)]
    endpoints: Vec<Text<Endpoint>>,
    #[serde(default, rename = "allow")]
    rules: Vec<RuleTable>,
}

/// What an identity has where its own table is silent.
pub(super) struct Defaults {
    pub(super) module: PathBuf,
    pub(super) tcti: Tcti,
}

impl IdentityTable {
    pub(super) fn validate(
        self,
        defaults: &Defaults,
        accounts: &Accounts,
    ) -> Result<(IdentityConfig, TokenKind), Fault> {
        let settings = KeySettings {
            pin: self.pin.map(|pin| pin.0),
            parent_pin: self.parent_pin.map(|pin| pin.0),
            owner_pin: self.owner_pin.map(|pin| pin.0),
            tcti: self.tpm.map(|table| table.tcti.0),
            certificate: self.certificate,
            sessions: self.sessions,
        };
        let (key, leaf, token) = match self.key {
            KeyText::Pkcs11(uri) => settings.pkcs11_key(*uri, &defaults.module)?,
            KeyText::Tpm(source) => settings.tpm_key(source, &defaults.tcti)?,
        };
        let rules = self
            .rules
            .into_iter()
            .map(|rule| rule.validate(accounts))
            .collect::<Result<_, Fault>>()?;
        let renewal = self.renew.map(|table| table.validate(&leaf, key.file()));
        let identity = IdentityConfig {
            name: self.name.into(),
            key,
            certificate: CertificateSource {
                leaf,
                chain: self.chain.map(|path| path.0),
            },
            renewal: renewal.transpose()?,
            endpoints: self.endpoints.into_iter().map(|text| text.0).collect(),
            policy: Policy {
                own_uid: geteuid().as_raw(),
                rules,
            },
        };
        Ok((identity, token))
    }
}

/// Refuses a name that comes twice.
pub(super) fn check_unique(identities: &[(IdentityConfig, TokenKind)]) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for (identity, _) in identities {
        if !seen.insert(&identity.name) {
            return Err(format!("identity {:?} is configured twice", identity.name));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::config::tests::{WEB, assert_refused};

    #[test]
    fn faults_of_an_identity_are_named() {
        for (text, expected) in [
            (
                format!("{WEB}{WEB}"),
                "identity \"web\" is configured twice",
            ),
            (WEB.replace("\"web\"", "\"we b\""), "FILE:2: "),
            (
                format!("{WEB}colour = 1\n"),
                "FILE:4: unknown field `colour`",
            ),
            (format!("{WEB}chain = \"c.pem\"\n"), "FILE:4: "),
            (format!("{WEB}endpoints = [\"http://x\"]\n"), "FILE:4: "),
        ] {
            assert_refused(&text, expected);
        }
    }
}
