//! `[[identity]]`

use std::collections::BTreeSet;
use std::path::PathBuf;

use rolesanywhere::Endpoint;
use serde::Deserialize;
use token::Tcti;

use crate::allow::RuleTable;
use crate::certificate::CertificateSource;
use crate::fault::Fault;
use crate::identity_name::IdentityName;
use crate::key::{CertificateText, KeyConfig, KeySettings, KeyText};
use crate::pin::PinTable;
use crate::renew::RenewTable;
use crate::renewal::Settings;
use crate::rule::Rule;
use crate::tokens::{Sessions, TokenKind, TpmTable};
use crate::user_database::UserDatabase;
use crate::value::{AbsolutePath, Text};

/// One `[[identity]]`.
#[derive(Debug)]
pub struct IdentityConfig {
    /// Its name, unique.
    pub name: String,
    /// The private key.
    pub key: KeyConfig,
    /// Where leaf and intermediates come from.
    pub certificate: CertificateSource,
    /// How `roleseal-admin renew` renews its certificate.
    pub renewal: Option<Settings>,
    /// What may be called beside AWS's own endpoints.
    pub endpoints: Vec<Endpoint>,
    /// Who may use it, and for what.
    pub rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct IdentityTable {
    pub(crate) name: IdentityName,
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
pub(crate) struct Defaults {
    pub(crate) module: PathBuf,
    pub(crate) network: Option<bool>,
    pub(crate) tcti: Tcti,
}

impl IdentityTable {
    pub(crate) fn validate(
        self,
        defaults: &Defaults,
        users: &dyn UserDatabase,
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
            KeyText::Pkcs11(uri) => {
                settings.pkcs11_key(*uri, &defaults.module, defaults.network)?
            }
            KeyText::Tpm(source) => settings.tpm_key(source, &defaults.tcti)?,
        };
        let rules = self
            .rules
            .into_iter()
            .map(|rule| rule.validate(users))
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
            rules,
        };
        Ok((identity, token))
    }
}

/// Refuses a name that comes twice.
pub(crate) fn check_unique(identities: &[(IdentityConfig, TokenKind)]) -> Result<(), String> {
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
    use crate::tests::{WEB, assert_refused};

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
