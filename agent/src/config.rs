//! `agent.toml`, read into a validated [`Config`]. A file with any fault is refused as a whole, with
//! its line. What can only be seen on the token or in another file (a PIN, a certificate) is no fault
//! of this file: it becomes the state of the identity concerned.

mod file;
mod name;
mod renew;

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{File, Metadata};
use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rolesanywhere::Endpoint;
use thiserror::Error;
use token::link::{OpenTpmKey, TpmKeySource};
use token::{PinSource, Pkcs11Uri, Tcti, TokenMatch};
use zeroize::Zeroizing;

use crate::accounts::Accounts;
use crate::certificate::CertificateSource;
use crate::policy::Policy;
use crate::renewal::Settings;
pub use name::IdentityName;

/// A configuration without faults of its own.
#[derive(Debug)]
pub struct Config {
    /// Where to listen, unless systemd passes a socket.
    pub socket: PathBuf,
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

/// Where metrics are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetricsAddress {
    /// To this host, at a port.
    Loopback(SocketAddr),
    /// To who reaches the socket.
    Socket(PathBuf),
}

/// `[limits]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once. Each costs a descriptor; while its client asks for something, a thread as well.
    pub connections: u32,
    /// Of them, of one user: it takes several to keep the others out.
    pub connections_per_user: u32,
    /// Requests that one user may make in a second, and so many more at once; `None` is any number.
    pub requests_per_second_per_user: Option<u32>,
}

impl Default for Limits {
    /// As many as a large host has at once.
    fn default() -> Limits {
        Limits {
            connections: 1024,
            connections_per_user: 512,
            requests_per_second_per_user: None,
        }
    }
}

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

/// Which private key.
#[derive(Debug)]
pub enum KeyConfig {
    /// On a PKCS#11 token; without module and PIN, which are the token's.
    Pkcs11(Pkcs11Uri),
    /// Of a TPM, with its auth values.
    Tpm(OpenTpmKey),
}

/// One token, which one token program serves.
#[derive(Debug)]
pub struct TokenConfig {
    /// Which one.
    pub kind: TokenKind,
    /// Its identities, as indices into [`Config::identities`].
    pub identities: Vec<usize>,
}

/// Which token.
#[derive(Debug, Clone)]
pub enum TokenKind {
    /// Behind a PKCS#11 module.
    Pkcs11(Pkcs11Config),
    /// A TPM.
    Tpm(Tcti),
}

/// A token behind a PKCS#11 module.
#[derive(Debug, Clone)]
pub struct Pkcs11Config {
    /// The PKCS#11 module: absolute, or a bare name for the dynamic linker.
    pub module: PathBuf,
    /// Which token of the module.
    pub token: TokenMatch,
    /// Its user PIN.
    pub pin: Option<PinSource>,
    /// Sessions to sign with in parallel.
    pub sessions: usize,
}

/// Why a configuration is refused.
#[derive(Debug, Error)]
#[error("{path}{line}: {message}", path = path.display(), line = line.map(|n| format!(":{n}")).unwrap_or_default())]
pub struct ConfigError {
    path: PathBuf,
    line: Option<usize>,
    message: String,
}

impl ConfigError {
    fn new(path: &Path, message: String) -> ConfigError {
        ConfigError {
            path: path.to_owned(),
            line: None,
            message,
        }
    }
}

/// Every module that p11-kit is configured with, as one; found by the dynamic linker.
pub(crate) const DEFAULT_MODULE: &str = "p11-kit-proxy.so";

/// The largest configuration that is read, in bytes: some thousand identities.
const SIZE_LIMIT: u64 = 4 * 1024 * 1024;

impl Config {
    /// Reads and validates `path`; the users and groups in it are asked of `accounts`.
    pub fn load(path: &Path, accounts: &Accounts) -> Result<Config, ConfigError> {
        let fault = |message| ConfigError::new(path, message);
        let (text, metadata) = read(path).map_err(fault)?;
        check_owner(&metadata).map_err(fault)?;
        let mode = metadata.mode() & 0o7777;
        let config = Config::parse(path, &text, accounts)?;
        let pin_inside = |pin: &PinSource| matches!(pin, PinSource::Value(_));
        if mode & 0o077 != 0 && config.pins().any(pin_inside) {
            return Err(fault(format!(
                "it holds a pin-value and has mode {mode:04o}, so that others can read the PIN: run \
                 `chmod 600 {}`, or use pin = {{ file = … }}",
                path.display()
            )));
        }
        Ok(config)
    }

    /// Validates the text of `path`.
    pub fn parse(path: &Path, text: &str, accounts: &Accounts) -> Result<Config, ConfigError> {
        let document: file::Document = toml::from_str(text).map_err(|error| ConfigError {
            line: error.span().map(|span| line_of(text, span.start)),
            // Not the error's Display: it repeats the line, which may hold a PIN.
            ..ConfigError::new(path, error.message().to_owned())
        })?;
        document
            .validate(accounts)
            .map_err(|message| ConfigError::new(path, message))
    }

    /// Whether anybody but the agent's own user may be served.
    pub fn serves_others(&self) -> bool {
        self.identities
            .iter()
            .any(|identity| !identity.policy.rules.is_empty())
    }

    /// Where all PINs and auth values come from.
    pub fn pins(&self) -> impl Iterator<Item = &PinSource> {
        let of_tokens = self.tokens.iter().filter_map(|token| match &token.kind {
            TokenKind::Pkcs11(token) => token.pin.as_ref(),
            TokenKind::Tpm(_) => None,
        });
        let of_keys = self
            .identities
            .iter()
            .flat_map(|identity| match &identity.key {
                KeyConfig::Pkcs11(_) => [None, None, None],
                KeyConfig::Tpm(key) => {
                    [&key.pin, &key.parent_pin, &key.owner_pin].map(Option::as_ref)
                }
            });
        of_tokens.chain(of_keys.flatten())
    }

    /// The tokens of `identities`, or why two of them cannot share one.
    fn gather_tokens(
        identities: &[(IdentityConfig, TokenKind)],
    ) -> Result<Vec<TokenConfig>, String> {
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
}

impl TokenKind {
    fn is_same(&self, other: &TokenKind) -> bool {
        match (self, other) {
            (TokenKind::Pkcs11(one), TokenKind::Pkcs11(other)) => {
                one.module == other.module && one.token == other.token
            }
            (TokenKind::Tpm(one), TokenKind::Tpm(other)) => one == other,
            _ => false,
        }
    }

    /// Whether one token could be meant by both, under two names.
    fn may_be_named_otherwise_by(&self, other: &TokenKind) -> bool {
        match (self, other) {
            (TokenKind::Pkcs11(one), TokenKind::Pkcs11(other)) => {
                one.module == other.module
                    && one.token != other.token
                    && one.token.overlaps(&other.token)
            }
            _ => false,
        }
    }

    /// Takes in what another identity says of the same token.
    fn share(&mut self, other: &TokenKind) -> Result<(), &'static str> {
        let (TokenKind::Pkcs11(own), TokenKind::Pkcs11(other)) = (self, other) else {
            return Ok(());
        };
        match (&own.pin, &other.pin) {
            (Some(one), Some(other)) if one != other => {
                return Err(
                    "another identity gives the same token another PIN; a token has one user PIN",
                );
            }
            (None, Some(pin)) => own.pin = Some(pin.clone()),
            _ => {}
        }
        own.sessions = own.sessions.max(other.sessions);
        Ok(())
    }
}

impl KeyConfig {
    /// The key's file, where it has one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            KeyConfig::Tpm(OpenTpmKey {
                source: TpmKeySource::File(path),
                ..
            }) => Some(path),
            KeyConfig::Tpm(_) | KeyConfig::Pkcs11(_) => None,
        }
    }
}

/// As the configuration writes it, without PINs.
impl fmt::Display for KeyConfig {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            KeyConfig::Pkcs11(uri) => uri.fmt(f),
            KeyConfig::Tpm(key) => key.source.fmt(f),
        }
    }
}

/// The file's text and metadata. The text is wiped, since a `pin-value` may be in it.
fn read(path: &Path) -> Result<(Zeroizing<String>, Metadata), String> {
    let explain = |error| format!("cannot read the configuration: {error}");
    let file = File::open(path).map_err(explain)?;
    let metadata = file.metadata().map_err(explain)?;
    // Never reallocated: what it outgrows would stay behind.
    let length = metadata.len().min(SIZE_LIMIT) + 1;
    let capacity = usize::try_from(length).unwrap_or_default();
    let mut text = Zeroizing::new(String::with_capacity(capacity));
    file.take(SIZE_LIMIT)
        .read_to_string(&mut text)
        .map_err(explain)?;
    if text.len() as u64 == SIZE_LIMIT {
        return Err(format!("a configuration has at most {SIZE_LIMIT} bytes"));
    }
    Ok((text, metadata))
}

/// The file says which code is run with the PIN: nobody else may write it.
fn check_owner(metadata: &Metadata) -> Result<(), String> {
    let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    if mode & 0o022 != 0 {
        return Err(format!(
            "it has mode {mode:04o}, so that others can write it: run `chmod go-w` on it"
        ));
    }
    if owner != 0 && owner != nix::unistd::geteuid().as_raw() {
        return Err(format!(
            "it belongs to user {owner}: give it to root or to the agent's user"
        ));
    }
    Ok(())
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text
        .bytes()
        .take(offset)
        .filter(|byte| *byte == b'\n')
        .count()
}

/// Refuses a name that comes twice.
fn check_unique(identities: &[(IdentityConfig, TokenKind)]) -> Result<(), String> {
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
    use super::*;
    use crate::certificate::LeafSource;
    use std::os::unix::fs::PermissionsExt;
    use token::Pin;
    use token::link::CertificateOnToken;

    const WEB: &str = "[[identity]]\nname = \"web\"\nkey = \"pkcs11:token=lab;object=web\"\n";

    fn load_with_mode(text: &str, mode: u32) -> Result<Config, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.toml");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let shown = path.display().to_string();
        Config::load(&path, &Accounts::Own)
            .map_err(|error| error.to_string().replace(&shown, "FILE"))
    }

    fn load(text: &str) -> Result<Config, String> {
        load_with_mode(text, 0o600)
    }

    fn pkcs11(token: &TokenConfig) -> &Pkcs11Config {
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
        assert!(identity.policy.rules.is_empty());
        let token = pkcs11(&config.tokens[0]);
        assert_eq!(token.module, Path::new("p11-kit-proxy.so"));
        assert_eq!((token.sessions, &token.pin), (4, &None));
    }

    #[test]
    fn everything_is_understood() {
        let config = load(
            r#"
            socket = "/run/a.sock"
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
        let [web, batch] = &config.identities[..] else {
            panic!()
        };
        assert_eq!(
            web.certificate.leaf,
            LeafSource::File("/etc/web.pem".into())
        );
        assert_eq!(web.certificate.chain, Some("/etc/chain.pem".into()));
        assert_eq!(web.endpoints[0].host(), "localhost:8443");
        let rule = &web.policy.rules[0];
        assert_eq!(
            (&rule.users[..], &rule.groups[..]),
            (&[0, 1001][..], &[0, 7][..])
        );
        assert_eq!(rule.max_duration.unwrap().seconds(), 3600);
        assert!(web.policy.rules[1].everyone);
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
    fn metrics_are_for_this_host() {
        let metrics = |table: &str| load(&format!("[metrics]\n{table}\n{WEB}"));
        for (table, expected) in [
            (
                "listen = \"127.0.0.1:9184\"",
                MetricsAddress::Loopback(([127, 0, 0, 1], 9184).into()),
            ),
            (
                "listen = \"[::1]:9184\"",
                MetricsAddress::Loopback("[::1]:9184".parse().unwrap()),
            ),
            (
                "socket = \"/run/m.sock\"",
                MetricsAddress::Socket("/run/m.sock".into()),
            ),
        ] {
            assert_eq!(metrics(table).unwrap().metrics, Some(expected));
        }
        assert_eq!(load(WEB).unwrap().metrics, None);
        for (table, fault) in [
            ("listen = \"0.0.0.0:9184\"", "not a loopback address"),
            ("listen = \"192.0.2.1:9184\"", "not a loopback address"),
            (
                "listen = \"[::ffff:192.0.2.1]:1\"",
                "not a loopback address",
            ),
            ("listen = \"localhost:9184\"", "such as 127.0.0.1:9184"),
            ("listen = \"127.0.0.1\"", "such as 127.0.0.1:9184"),
            ("socket = \"m.sock\"", "absolute"),
            ("socket = \"/run/roleseal/agent.sock\"", "the agent's own"),
            (
                "listen = \"127.0.0.1:1\"\nsocket = \"/m\"",
                "either listen or socket",
            ),
            ("", "either listen or socket"),
            ("port = 1", "unknown field"),
        ] {
            let error = metrics(table).unwrap_err();
            assert!(error.contains(fault), "{table}: {error}");
        }
    }

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
    fn identities_of_one_token_share_it() {
        let text = format!(
            "{WEB}sessions = 2\n{}pin = {{ file = \"/etc/pin\" }}\nsessions = 8\n",
            WEB.replace("web", "batch")
        );
        let config = load(&text).unwrap();
        let [token] = &config.tokens[..] else {
            panic!()
        };
        assert_eq!(token.identities, [0, 1]);
        assert_eq!(pkcs11(token).sessions, 8);
        assert_eq!(pkcs11(token).pin, Some(PinSource::File("/etc/pin".into())));
    }

    #[test]
    fn keys_of_a_tpm_share_its_program() {
        let config = load(
            r#"
            tpm = { tcti = "device:/dev/tpm0" }
            [[identity]]
            name = "web"
            key = "/etc/roleseal/web.tss"
            pin = { credential = "web" }
            parent-pin = { file = "/etc/parent" }
            owner-pin = { file = "/etc/owner" }
            [[identity]]
            name = "batch"
            key = "handle:0x81000101"
            certificate = "/etc/batch.pem"
            [[identity]]
            name = "lab"
            key = "/etc/roleseal/lab.tss"
            certificate = "/etc/lab.pem"
            tpm = { tcti = "swtpm:port=4000" }
            "#,
        )
        .unwrap();
        let [web, batch, lab] = &config.identities[..] else {
            panic!()
        };
        let KeyConfig::Tpm(key) = &web.key else {
            panic!()
        };
        assert_eq!(key.pin, Some(PinSource::Credential("web".into())));
        assert_eq!(key.parent_pin, Some(PinSource::File("/etc/parent".into())));
        assert_eq!(key.owner_pin, Some(PinSource::File("/etc/owner".into())));
        assert_eq!(config.pins().count(), 3);
        let in_key_file = LeafSource::File("/etc/roleseal/web.tss".into());
        assert_eq!(web.certificate.leaf, in_key_file);
        assert_eq!(batch.key.to_string(), "handle:0x81000101");
        assert_eq!(lab.key.to_string(), "/etc/roleseal/lab.tss");
        let tokens: Vec<_> = config
            .tokens
            .iter()
            .map(|token| match &token.kind {
                TokenKind::Tpm(tcti) => (tcti.to_string(), &token.identities[..]),
                other => panic!("{other:?}"),
            })
            .collect();
        let [first, second] = &tokens[..] else {
            panic!()
        };
        assert_eq!(*first, ("device:/dev/tpm0".to_owned(), &[0, 1][..]));
        assert_eq!(second.0, "swtpm:host=localhost,port=4000");
    }

    #[test]
    fn the_kernels_resource_manager_is_the_default() {
        let config = load("[[identity]]\nname = \"web\"\nkey = \"/etc/web.tss\"\n").unwrap();
        assert!(matches!(&config.tokens[0].kind, TokenKind::Tpm(tcti) if *tcti == Tcti::default()));
    }

    #[test]
    fn faults_of_tpm_keys_are_named() {
        let file = WEB.replace("pkcs11:token=lab;object=web", "/etc/web.tss");
        let handle = WEB.replace("pkcs11:token=lab;object=web", "handle:0x81000101");
        let pin = "{ file = \"/a\" }";
        for (text, expected) in [
            (handle.clone(), "certificate must be given"),
            (handle.replace("0x81000101", "0x80000001"), "FILE:3: "),
            (handle.replace("0x81000101", "0x8100010"), "FILE:3: "),
            (handle.replace("0x81000101", "81000101"), "FILE:3: "),
            (handle.replace("0x81000101", "0x+1000101"), "FILE:3: "),
            (
                file.replace("/etc/web.tss", "web.tss"),
                "FILE:3: key is none of",
            ),
            (
                format!("{file}sessions = 2\n"),
                "sessions are a PKCS#11 token's",
            ),
            (
                format!("{file}certificate = \"pkcs11:object=web\"\n"),
                "a file",
            ),
            (
                format!("{handle}certificate = \"/c\"\nparent-pin = {pin}\n"),
                "has no parent",
            ),
            (format!("{WEB}parent-pin = {pin}\n"), "for a key of a TPM"),
            (format!("{WEB}owner-pin = {pin}\n"), "for a key of a TPM"),
            (
                format!("{WEB}tpm = {{ tcti = \"device:/dev/tpm0\" }}\n"),
                "for a key of a TPM",
            ),
            (
                format!("tpm = {{ tcti = \"swtpm:path=/run/tpm\" }}\n{file}"),
                "FILE:1: TCTI \"swtpm:path=/run/tpm\"",
            ),
            (format!("tpm = {{ device = \"x\" }}\n{file}"), "FILE:1: "),
            (format!("{file}pin = {{}}\n"), "one of"),
        ] {
            let message = load(&text).map(|config| format!("{config:?}")).unwrap_err();
            assert!(message.contains(expected), "{text}\n{message}");
        }
    }

    #[test]
    fn faults_are_named_with_their_line_or_identity() {
        let pin = |value: &str| format!("{WEB}pin = {value}\n");
        for (text, expected) in [
            ("".to_owned(), "no [[identity]]"),
            ("socket = 1".to_owned(), "FILE:1: "),
            (
                format!("{WEB}colour = 1\n"),
                "FILE:4: unknown field `colour`",
            ),
            (
                format!("sock = \"/x\"\n{WEB}"),
                "FILE:1: unknown field `sock`",
            ),
            (
                format!("socket = \"x.sock\"\n{WEB}"),
                "FILE:1: \"x.sock\" is not an absolute path",
            ),
            (
                format!("{WEB}certificate = \"web.pem\"\n"),
                "FILE:4: \"web.pem\" is not an absolute path",
            ),
            (format!("{WEB}chain = \"c.pem\"\n"), "FILE:4: "),
            (pin("{ file = \"lab.pin\" }"), "not an absolute path"),
            (pin("{ file = \"/a\", credential = \"b\" }"), "one of"),
            (pin("{}"), "one of"),
            (pin("{ credential = \"a/b\" }"), "credential"),
            (
                format!("{WEB}{WEB}"),
                "identity \"web\" is configured twice",
            ),
            (WEB.replace("\"web\"", "\"we b\""), "FILE:2: "),
            (WEB.replace("pkcs11:", "pkcs12:"), "FILE:3: key is none of"),
            (
                WEB.replace("object", "objekt"),
                "FILE:3: attribute \"objekt\"",
            ),
            (WEB.replace("object=web", "type=cert"), "identity \"web\""),
            (format!("{WEB}sessions = 0\n"), "sessions"),
            (format!("{WEB}sessions = 65\n"), "sessions"),
            (format!("{WEB}endpoints = [\"http://x\"]\n"), "FILE:4: "),
            (format!("{WEB}[[identity.allow]]\n"), "users or groups"),
            (
                format!("{WEB}[[identity.allow]]\nusers = [\"no-such-user-here\"]\n"),
                "no-such-user-here",
            ),
            (
                format!("{WEB}[[identity.allow]]\ngroups = [\"no-such-group\"]\n"),
                "no-such-group",
            ),
            (
                format!("{WEB}[[identity.allow]]\nusers = [-1]\n"),
                "FILE:5: ",
            ),
            (
                format!("{WEB}[[identity.allow]]\nusers = [0]\nroles = [\"web-*\"]\n"),
                "FILE:6: ",
            ),
            (
                format!("{WEB}[[identity.allow]]\nusers = [0]\nmax-duration = \"1m\"\n"),
                "FILE:6: ",
            ),
            (
                format!("{WEB}[[identity.allow]]\nusers = [0]\nmax-duration = 900\n"),
                "FILE:6: ",
            ),
            (
                format!("{WEB}certificate = \"pkcs11:token=other\"\n"),
                "same token",
            ),
            (
                format!("{WEB}pin = {{ file = \"/a\" }}\n").replace("=web", "=web?pin-source=/b"),
                "the key's URI and in pin",
            ),
            (
                format!(
                    "{WEB}pin = {{ file = \"/a\" }}\n{}pin = {{ file = \"/b\" }}\n",
                    WEB.replace("web", "b")
                ),
                "another PIN",
            ),
        ] {
            let message = load(&text).map(|config| format!("{config:?}")).unwrap_err();
            assert!(message.contains(expected), "{text}\n{message}");
            assert!(message.starts_with("FILE:"), "{message}");
        }
    }

    #[test]
    fn one_token_under_two_names_is_refused() {
        let other = WEB.replace("=web", "=b").replace("\"web\"", "\"b\"");
        for token in [
            "token=lab;serial=7;",
            "serial=7;",
            "",
            "slot-id=1;token=lab;",
        ] {
            let text = format!("{WEB}{}", other.replace("token=lab;", token));
            let message = load(&text).map(|config| format!("{config:?}")).unwrap_err();
            assert!(message.contains("same token"), "{message}");
        }
        let text = format!("{WEB}{}", other.replace("token=lab;", "token=other;"));
        assert_eq!(load(&text).unwrap().tokens.len(), 2);
    }

    #[test]
    fn a_file_that_others_can_write_is_refused() {
        for mode in [0o620, 0o602, 0o666] {
            let message = load_with_mode(WEB, mode).unwrap_err();
            assert!(message.contains("chmod go-w"), "{message}");
        }
    }

    #[test]
    fn no_message_shows_a_pin() {
        for text in [
            format!("{WEB}pin = \"271828\"\n"),
            format!("{WEB}pin = 271828\n"),
            format!("{WEB}pin = {{ value = \"271828\" }}\n"),
            format!("{WEB}pin = {{ file = \"271828\" }}\n"),
            WEB.replace("=web\"", "=web?pin-value=271828&x\""),
            WEB.replace("=web\"", "=web?pin-value=271828\nx\""),
            WEB.replace("=web\"", "=web?pin-value=%zz271828\""),
        ] {
            let message = load(&text).unwrap_err();
            assert!(!message.contains("271828"), "{message}");
        }
    }

    #[test]
    fn a_pin_in_the_file_wants_a_private_file() {
        let text = WEB.replace("=web\"", "=web?pin-value=1234\"");
        let config = load(&text).unwrap();
        assert_eq!(
            pkcs11(&config.tokens[0]).pin,
            Some(PinSource::Value(Pin::from("1234".to_owned())))
        );
        let message = load_with_mode(&text, 0o640).unwrap_err();
        assert!(
            message.contains("0640") && message.contains("chmod 600"),
            "{message}"
        );
        assert!(load_with_mode(WEB, 0o644).is_ok());
    }
}
