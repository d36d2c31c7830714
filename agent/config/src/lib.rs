//! `agent.toml`, read into a validated [`Config`]. A file with any fault is refused as a whole, with
//! its line. What can only be seen on the token or in another file (a PIN, a certificate) is no fault
//! of this file: it becomes the state of the identity concerned.

mod allow;
pub mod certificate;
mod cgroup;
pub mod check;
pub mod command;
mod fault;
mod file;
mod hardening;
mod identity;
mod identity_name;
mod key;
mod limits;
mod metrics;
mod pin;
pub mod pin_records;
pub mod process;
mod renew;
pub mod renewal;
mod rule;
mod tokens;
pub mod unit;
mod unit_name;
pub mod user_database;
mod value;
pub mod viewpoint;

use std::cell::LazyCell;
use std::path::PathBuf;

use serde::Deserialize;
use token::PinSource;

use crate::user_database::UserDatabase;
pub use fault::ConfigError;
use fault::Fault;
pub use hardening::Hardening;
use hardening::HardeningTable;
pub use identity::IdentityConfig;
use identity::{Defaults, IdentityTable, check_unique};
pub use identity_name::IdentityName;
pub use key::KeyConfig;
pub use limits::Limits;
use limits::LimitsTable;
pub use metrics::MetricsAddress;
use metrics::MetricsTable;
pub use renew::beside;
pub use rule::{Pattern, Rule};
pub use tokens::DEFAULT_MODULE;
use tokens::TpmTable;
pub use tokens::{TokenConfig, TokenKind};
pub use unit_name::UnitName;
use value::AbsolutePath;

/// A configuration without faults of its own.
#[derive(Debug)]
pub struct Config {
    /// Where to listen, unless systemd passes a socket.
    pub socket: PathBuf,
    /// Where the agent keeps what outlasts it, unless systemd names a place.
    pub state: Option<PathBuf>,
    /// Where metrics are served, if they are.
    pub metrics: Option<MetricsAddress>,
    /// What one user, and all together, may take of the agent.
    pub limits: Limits,
    /// In the order of the file; each name once.
    pub identities: Vec<IdentityConfig>,
    /// The tokens of the identities, each once.
    pub tokens: Vec<TokenConfig>,
    /// What the agent and its token programs take from themselves.
    pub hardening: Hardening,
}

impl Config {
    /// Whether anybody but the agent's own user may be served.
    pub fn serves_others(&self) -> bool {
        self.identities
            .iter()
            .any(|identity| !identity.rules.is_empty())
    }

    /// What is no fault of the file, but does not do what somebody may expect.
    pub fn warnings(&self) -> impl Iterator<Item = String> {
        let without_process = LazyCell::new(|| !process::is_identified_by_sockets());
        self.identities.iter().flat_map(move |identity| {
            let names = identity.rules.iter().flat_map(|rule| &rule.unmatched);
            let unmatched = names.map(|name| {
                format!(
                    "identity {:?}: the rule for {name:?} matches nobody: its number is also that of everyone who is not \
                     mapped into the agent's user namespace; to permit all of them, write the number",
                    identity.name
                )
            });
            let by_unit = identity.rules.iter().any(Rule::needs_identified_process) && *without_process;
            let old_kernel = by_unit.then(|| {
                format!(
                    "identity {:?}: a rule with units for any user matches nobody: this kernel does not identify the process \
                     of a caller, as Linux 6.5 does (SO_PEERPIDFD); add users or groups to it",
                    identity.name
                )
            });
            unmatched.chain(old_kernel).collect::<Vec<_>>()
        })
    }

    /// Where all PINs and auth values come from.
    pub fn pins(&self) -> impl Iterator<Item = &PinSource> {
        let of_tokens = self.tokens.iter().filter_map(|token| token.kind.pin());
        let of_keys = self.identities.iter().flat_map(|one| one.key.pins());
        of_tokens.chain(of_keys)
    }

    /// Where those of one token and of the identity there come from.
    pub fn pins_of<'c>(
        &'c self,
        token: &'c TokenConfig,
        identity: usize,
    ) -> impl Iterator<Item = &'c PinSource> {
        let identity = self.identities.get(identity);
        let of_key = identity.into_iter().flat_map(|one| one.key.pins());
        token.kind.pin().into_iter().chain(of_key)
    }
}

/// The whole file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Document {
    #[serde(default = "default_socket")]
    socket: AbsolutePath,
    state: Option<AbsolutePath>,
    pkcs11_module: Option<AbsolutePath>,
    tpm: Option<TpmTable>,
    metrics: Option<MetricsTable>,
    #[serde(default)]
    limits: LimitsTable,
    #[serde(default)]
    hardening: HardeningTable,
    #[serde(default, rename = "identity")]
    identities: Vec<IdentityTable>,
}

fn default_socket() -> AbsolutePath {
    AbsolutePath(PathBuf::from("/run/roleseal/agent.sock"))
}

impl Document {
    /// The configuration, or what is wrong beyond the grammar.
    fn validate(self, users: &dyn UserDatabase) -> Result<Config, Fault> {
        if self.identities.is_empty() {
            let none = "there is no [[identity]] in it: add one with a name and a key";
            return Err(none.to_owned().into());
        }
        let metrics = self.metrics.map(MetricsTable::validate).transpose()?;
        if metrics == Some(MetricsAddress::Socket(self.socket.0.clone())) {
            let taken = "metrics: the socket is the agent's own: configure another one";
            return Err(taken.to_owned().into());
        }
        let defaults = Defaults {
            module: self
                .pkcs11_module
                .map_or_else(|| DEFAULT_MODULE.into(), |path| path.0),
            network: self.hardening.pkcs11_network,
            tcti: self.tpm.map(|table| table.tcti.0).unwrap_or_default(),
        };
        let identities: Vec<_> = self
            .identities
            .into_iter()
            .map(|table| {
                let name = table.name.to_string();
                table
                    .validate(&defaults, users)
                    .map_err(|fault| fault.of_identity(&name))
            })
            .collect::<Result<_, Fault>>()?;
        check_unique(&identities)?;
        let tokens = gather(&identities)?;
        Ok(Config {
            socket: self.socket.0,
            state: self.state.map(|path| path.0),
            metrics,
            limits: self.limits.validate()?,
            identities: identities
                .into_iter()
                .map(|(identity, _)| identity)
                .collect(),
            tokens,
            hardening: self.hardening.into(),
        })
    }
}

/// The tokens of `identities`, or why two of them cannot share one.
fn gather(identities: &[(IdentityConfig, TokenKind)]) -> Result<Vec<TokenConfig>, String> {
    let mut tokens: Vec<TokenConfig> = Vec::new();
    for (at, (identity, kind)) in identities.iter().enumerate() {
        let fault = |fault| format!("identity {:?}: {fault}", identity.name);
        if tokens
            .iter()
            .any(|token| token.kind.may_be_named_otherwise_by(kind))
        {
            return Err(fault(
                "its key may be on the same token as another identity's, whose URI names the token \
                 otherwise: write the token's attributes alike in both, so that there is one login \
                 and one try of the PIN",
            ));
        }
        match tokens.iter_mut().find(|token| token.kind.is_same(kind)) {
            Some(token) => {
                token.kind.share(kind).map_err(fault)?;
                token.identities.push(at);
            }
            None => tokens.push(TokenConfig {
                kind: kind.clone(),
                identities: vec![at],
            }),
        }
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::LeafSource;
    use crate::user_database::SystemUsers;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use token::Pkcs11Token;
    use token::link::CertificateOnToken;

    pub(crate) const WEB: &str =
        "[[identity]]\nname = \"web\"\nkey = \"pkcs11:token=lab;object=web\"\n";

    pub(crate) fn load_with_mode(text: &str, mode: u32) -> Result<Config, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.toml");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let shown = path.display().to_string();
        Config::load(&path, &SystemUsers).map_err(|error| error.to_string().replace(&shown, "FILE"))
    }

    pub(crate) fn load(text: &str) -> Result<Config, String> {
        load_with_mode(text, 0o600)
    }

    #[track_caller]
    pub(crate) fn assert_refused(text: &str, expected: &str) {
        let message = load(text).unwrap_err();
        assert!(message.contains(expected), "{text}\n{message}");
        assert!(message.starts_with("FILE:"), "{message}");
    }

    pub(crate) fn pkcs11(token: &TokenConfig) -> &Pkcs11Token {
        match &token.kind {
            TokenKind::Pkcs11(token) => token,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_smallest_configuration_has_defaults() {
        let config = load(WEB).unwrap();
        assert_eq!(config.socket, Path::new("/run/roleseal/agent.sock"));
        let identity = &config.identities[0];
        assert_eq!(
            identity.certificate.leaf,
            LeafSource::Token(CertificateOnToken::OfTheKey)
        );
        assert!(identity.rules.is_empty());
        let token = pkcs11(&config.tokens[0]);
        assert_eq!(token.module, Path::new("p11-kit-proxy.so"));
        assert_eq!((token.sessions, &token.pin), (4, &None));
    }

    #[test]
    fn everything_is_understood() {
        let config = load(
            r#"
            socket = "/run/a.sock"
            state = "/var/lib/agent"
            pkcs11-module = "/usr/lib/default.so"
            [[identity]]
            name = "web"
            key = "pkcs11:token=lab;object=web?module-path=/usr/lib/own.so&pin-source=file:/etc/pin"
            certificate = "/etc/web.pem"
            chain = "/etc/chain.pem"
            sessions = 2
            endpoints = ["https://localhost:8443"]
            [[identity.allow]]
            users = ["root", 1001]
            groups = ["root", 7]
            roles = ["arn:aws:iam::123456789012:role/web-*"]
            profiles = ["*"]
            trust-anchors = ["arn:aws:rolesanywhere:*:123456789012:trust-anchor/*"]
            role-session-names = ["ci-*", ""]
            max-duration = "1h"
            [[identity.allow]]
            users = ["*"]
            [[identity]]
            name = "batch"
            key = "pkcs11:token=other;object=batch"
            pin = { credential = "lab" }
            certificate = "pkcs11:object=batch"
            "#,
        )
        .unwrap();
        assert_eq!(config.state, Some("/var/lib/agent".into()));
        let [web, batch] = &config.identities[..] else {
            panic!()
        };
        assert_eq!(
            web.certificate.leaf,
            LeafSource::File("/etc/web.pem".into())
        );
        assert_eq!(web.certificate.chain, Some("/etc/chain.pem".into()));
        assert_eq!(web.endpoints[0].host(), "localhost:8443");
        let rule = &web.rules[0];
        assert_eq!(
            (&rule.users[..], &rule.groups[..]),
            (&[0, 1001][..], &[0, 7][..])
        );
        assert_eq!(rule.max_duration.unwrap().seconds(), 3600);
        let names = ["ci-*", ""].map(|name| Pattern(name.into()));
        assert_eq!(rule.role_session_names, names);
        assert!(web.rules[1].everyone);
        assert!(matches!(
            batch.certificate.leaf,
            LeafSource::Token(CertificateOnToken::Named(_))
        ));
        let [own, default] = &config.tokens[..] else {
            panic!()
        };
        let (own, default) = (pkcs11(own), pkcs11(default));
        assert_eq!(own.module, Path::new("/usr/lib/own.so"));
        assert_eq!(own.pin, Some(PinSource::File("/etc/pin".into())));
        assert_eq!((own.sessions, default.sessions), (2, 4));
        assert_eq!(default.module, Path::new("/usr/lib/default.so"));
        assert_eq!(default.pin, Some(PinSource::Credential("lab".into())));
    }

    #[test]
    fn faults_are_named_with_their_line() {
        for (text, expected) in [
            ("", "no [[identity]]"),
            ("socket = 1", "FILE:1: "),
            (
                &format!("sock = \"/x\"\n{WEB}"),
                "FILE:1: unknown field `sock`",
            ),
            (
                &format!("socket = \"x.sock\"\n{WEB}"),
                "FILE:1: \"x.sock\" is not an absolute path",
            ),
        ] {
            assert_refused(text, expected);
        }
    }
}
