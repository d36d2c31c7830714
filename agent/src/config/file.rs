//! The text of `agent.toml`, as serde reads it, and its validation.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use jiff::SignedDuration;
use nix::unistd::geteuid;
use rolesanywhere::{Endpoint, SessionDuration};
use serde::Deserialize;
use serde::de::{Deserializer, Error, Unexpected, Visitor};
use token::link::{CertificateOnToken, OpenTpmKey, TpmKeySource};
use token::{PinSource, Pkcs11Uri, Tcti, TokenMatch};
use zeroize::Zeroizing;

use super::renew::RenewTable;
use super::{
    Config, DEFAULT_MODULE, Hardening, IdentityConfig, IdentityName, KeyConfig, Limits,
    MetricsAddress, Pkcs11Config, TokenKind,
};
use crate::accounts::Accounts;
use crate::certificate::{CertificateSource, LeafSource};
use crate::policy::{ArnPattern, Policy, Rule};

/// The whole file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Document {
    #[serde(default = "default_socket")]
    socket: AbsolutePath,
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TpmTable {
    tcti: Text<Tcti>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct LimitsTable {
    connections: Option<Count<65_536>>,
    connections_per_user: Option<Count<65_536>>,
    requests_per_second_per_user: Option<Count<1_000_000>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MetricsTable {
    listen: Option<Text<Loopback>>,
    socket: Option<AbsolutePath>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct HardeningTable {
    landlock: bool,
    seccomp: bool,
    token_programs: bool,
    read: Vec<AbsolutePath>,
}

impl Default for HardeningTable {
    fn default() -> HardeningTable {
        HardeningTable {
            landlock: true,
            seccomp: true,
            token_programs: true,
            read: Vec::new(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct IdentityTable {
    name: IdentityName,
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RuleTable {
    #[serde(default)]
    users: Vec<Account>,
    #[serde(default)]
    groups: Vec<Account>,
    #[serde(default)]
    roles: Vec<Text<ArnPattern>>,
    #[serde(default)]
    profiles: Vec<Text<ArnPattern>>,
    #[serde(default)]
    trust_anchors: Vec<Text<ArnPattern>>,
    max_duration: Option<Text<MaxDuration>>,
}

/// What an identity has where its own table is silent.
struct Defaults {
    module: PathBuf,
    tcti: Tcti,
}

fn default_socket() -> AbsolutePath {
    AbsolutePath(PathBuf::from("/run/roleseal/agent.sock"))
}

impl Document {
    /// The configuration, or what is wrong beyond the grammar.
    pub(super) fn validate(self, accounts: &Accounts) -> Result<Config, String> {
        if self.identities.is_empty() {
            return Err("there is no [[identity]] in it: add one with a name and a key".to_owned());
        }
        let metrics = self.metrics.map(MetricsTable::validate).transpose()?;
        if metrics == Some(MetricsAddress::Socket(self.socket.0.clone())) {
            return Err("metrics: the socket is the agent's own: configure another one".to_owned());
        }
        let defaults = Defaults {
            module: match self.pkcs11_module {
                Some(AbsolutePath(path)) => path,
                None => PathBuf::from(DEFAULT_MODULE),
            },
            tcti: self.tpm.map(|table| table.tcti.0).unwrap_or_default(),
        };
        let identities: Vec<_> = self
            .identities
            .into_iter()
            .map(|table| {
                let name = table.name.to_string();
                table
                    .validate(&defaults, accounts)
                    .map_err(|message| format!("identity {name:?}: {message}"))
            })
            .collect::<Result<_, String>>()?;
        super::check_unique(&identities)?;
        let tokens = Config::gather_tokens(&identities)?;
        Ok(Config {
            socket: self.socket.0,
            metrics,
            limits: self.limits.validate()?,
            identities: identities
                .into_iter()
                .map(|(identity, _)| identity)
                .collect(),
            tokens,
            hardening: Hardening {
                landlock: self.hardening.landlock,
                seccomp: self.hardening.seccomp,
                token_programs: self.hardening.token_programs,
                read: self.hardening.read.into_iter().map(|path| path.0).collect(),
            },
        })
    }
}

impl MetricsTable {
    fn validate(self) -> Result<MetricsAddress, String> {
        match (self.listen, self.socket) {
            (Some(Text(Loopback(address))), None) => Ok(MetricsAddress::Loopback(address)),
            (None, Some(AbsolutePath(path))) => Ok(MetricsAddress::Socket(path)),
            _ => Err("metrics: give either listen or socket".to_owned()),
        }
    }
}

impl LimitsTable {
    fn validate(self) -> Result<Limits, String> {
        let default = Limits::default();
        let or = |count: Option<Count<65_536>>, default| count.map_or(default, |count| count.0);
        let connections = or(self.connections, default.connections);
        let per_user = or(
            self.connections_per_user,
            default.connections_per_user.min(connections),
        );
        if per_user > connections {
            return Err(format!(
                "limits.connections-per-user is {per_user}, more than limits.connections, {connections}: \
                 lower the one or raise the other"
            ));
        }
        Ok(Limits {
            connections,
            connections_per_user: per_user,
            requests_per_second_per_user: self.requests_per_second_per_user.map(|count| count.0),
        })
    }
}

impl IdentityTable {
    fn validate(
        self,
        defaults: &Defaults,
        accounts: &Accounts,
    ) -> Result<(IdentityConfig, TokenKind), String> {
        let settings = KeySettings {
            pin: self.pin.map(PinTable::source),
            parent_pin: self.parent_pin.map(PinTable::source),
            owner_pin: self.owner_pin.map(PinTable::source),
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
            .collect::<Result<_, String>>()?;
        let renewal = match self.renew {
            Some(table) => Some(table.validate(&leaf, key.file())?),
            None => None,
        };
        let identity = IdentityConfig {
            name: self.name.into(),
            key,
            certificate: CertificateSource {
                leaf,
                chain: self.chain.map(|path| path.0),
            },
            renewal,
            endpoints: self.endpoints.into_iter().map(|text| text.0).collect(),
            policy: Policy {
                own_uid: geteuid().as_raw(),
                rules,
            },
        };
        Ok((identity, token))
    }
}

/// What an identity says of its key, apart from which one it is.
struct KeySettings {
    pin: Option<PinSource>,
    parent_pin: Option<PinSource>,
    owner_pin: Option<PinSource>,
    tcti: Option<Tcti>,
    certificate: Option<CertificateText>,
    sessions: Option<Sessions>,
}

/// Key, leaf and token of an identity.
type Parts = (KeyConfig, LeafSource, TokenKind);

impl KeySettings {
    fn pkcs11_key(self, mut key: Pkcs11Uri, default_module: &Path) -> Result<Parts, String> {
        if !matches!(key.object.class.as_deref(), None | Some("private")) {
            return Err("key must name a private key: leave type out, or type=private".to_owned());
        }
        if self.parent_pin.is_some() || self.owner_pin.is_some() || self.tcti.is_some() {
            return Err("parent-pin, owner-pin and tpm are for a key of a TPM".to_owned());
        }
        let module = key
            .module_path
            .take()
            .unwrap_or_else(|| default_module.to_owned());
        let pin = match (key.pin.take(), self.pin) {
            (Some(_), Some(_)) => {
                return Err("a PIN is given in the key's URI and in pin: keep one".to_owned());
            }
            (from_uri, from_table) => from_uri.or(from_table),
        };
        let certificate = match self.certificate {
            None => LeafSource::Token(CertificateOnToken::OfTheKey),
            Some(CertificateText::File(path)) => LeafSource::File(path),
            Some(CertificateText::OnToken(uri)) => on_the_same_token(*uri, &key.token)?,
        };
        let token = TokenKind::Pkcs11(Pkcs11Config {
            module,
            token: key.token.clone(),
            pin,
            sessions: self.sessions.unwrap_or_default().0,
        });
        Ok((KeyConfig::Pkcs11(key), certificate, token))
    }

    fn tpm_key(self, source: TpmKeySource, default_tcti: &Tcti) -> Result<Parts, String> {
        if self.sessions.is_some() {
            return Err(
                "sessions are a PKCS#11 token's: a TPM does one thing at a time".to_owned(),
            );
        }
        let at_handle = matches!(source, TpmKeySource::Handle(_));
        if at_handle && (self.parent_pin.is_some() || self.owner_pin.is_some()) {
            return Err(
                "a key at a handle has no parent to load it under: leave parent-pin and owner-pin out"
                    .to_owned(),
            );
        }
        let certificate = match (self.certificate, &source) {
            (Some(CertificateText::File(path)), _) => path,
            (Some(CertificateText::OnToken(_)), _) => {
                return Err("certificate of a TPM's key must be a file".to_owned());
            }
            // It may be behind the key in the same file.
            (None, TpmKeySource::File(path)) => path.clone(),
            (None, TpmKeySource::Handle(_)) => {
                return Err(
                    "certificate must be given for a key at a handle: certificate = \"/path\""
                        .to_owned(),
                );
            }
        };
        let key = KeyConfig::Tpm(OpenTpmKey {
            source,
            pin: self.pin,
            parent_pin: self.parent_pin,
            owner_pin: self.owner_pin,
            pins_are_good: false,
        });
        let tcti = self.tcti.unwrap_or_else(|| default_tcti.clone());
        Ok((key, LeafSource::File(certificate), TokenKind::Tpm(tcti)))
    }
}

/// A certificate is read in the key's own session, so it has to be on the key's token.
fn on_the_same_token(uri: Pkcs11Uri, token: &TokenMatch) -> Result<LeafSource, String> {
    let elsewhere = uri.token != TokenMatch::default() && uri.token != *token;
    if elsewhere || uri.module_path.is_some() || uri.pin.is_some() {
        return Err(
            "certificate must be on the same token as the key: write only its object or id, \
             as in pkcs11:object=NAME"
                .to_owned(),
        );
    }
    if !matches!(uri.object.class.as_deref(), None | Some("cert")) {
        return Err("certificate must name a certificate: leave type out".to_owned());
    }
    Ok(LeafSource::Token(CertificateOnToken::Named(Box::new(uri))))
}

impl RuleTable {
    fn validate(self, accounts: &Accounts) -> Result<Rule, String> {
        if self.users.is_empty() && self.groups.is_empty() {
            return Err(
                "an [[identity.allow]] rule names no users or groups: add some; users = [\"*\"] \
                 means every local user"
                    .to_owned(),
            );
        }
        let everyone = Account::Name("*".to_owned());
        let unwrap =
            |patterns: Vec<Text<ArnPattern>>| patterns.into_iter().map(|text| text.0).collect();
        Ok(Rule {
            everyone: self.users.contains(&everyone),
            users: self
                .users
                .iter()
                .filter(|user| **user != everyone)
                .map(|user| user.number("user", |name| accounts.user(name)))
                .collect::<Result<_, String>>()?,
            groups: self
                .groups
                .iter()
                .map(|group| group.number("group", |name| accounts.group(name)))
                .collect::<Result<_, String>>()?,
            roles: unwrap(self.roles),
            profiles: unwrap(self.profiles),
            trust_anchors: unwrap(self.trust_anchors),
            max_duration: self.max_duration.map(|text| text.0.0),
        })
    }
}

/// A value that is read from a string by its `FromStr`.
pub(super) struct Text<T>(pub(super) T);

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Text<T>, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Text).map_err(D::Error::custom)
    }
}

/// Metrics ask for no credentials, so that they are for this host alone.
struct Loopback(SocketAddr);

impl FromStr for Loopback {
    type Err = String;

    fn from_str(text: &str) -> Result<Loopback, String> {
        let address: SocketAddr = text.parse().map_err(|_| {
            format!("{text:?} is not an address and a port, such as 127.0.0.1:9184")
        })?;
        if address.ip().is_loopback() {
            return Ok(Loopback(address));
        }
        Err(format!(
            "{address} is not a loopback address: anybody could read the metrics; use 127.0.0.1 or [::1], \
             with a proxy in front that knows who may"
        ))
    }
}

/// A number from 1 to `MOST`.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "i64")]
struct Count<const MOST: u32>(u32);

impl<const MOST: u32> TryFrom<i64> for Count<MOST> {
    type Error = String;

    fn try_from(number: i64) -> Result<Count<MOST>, String> {
        match u32::try_from(number) {
            Ok(count @ 1..) if count <= MOST => Ok(Count(count)),
            _ => Err(format!("{number} is not a number from 1 to {MOST}")),
        }
    }
}

#[derive(Deserialize)]
#[serde(try_from = "PathBuf")]
pub(super) struct AbsolutePath(pub(super) PathBuf);

impl TryFrom<PathBuf> for AbsolutePath {
    type Error = String;

    fn try_from(path: PathBuf) -> Result<AbsolutePath, String> {
        if path.is_absolute() {
            Ok(AbsolutePath(path))
        } else {
            Err(format!("{path:?} is not an absolute path"))
        }
    }
}

/// `{ file = "/path" }` or `{ credential = "NAME" }`.
struct PinTable(PinSource);

impl PinTable {
    fn source(self) -> PinSource {
        self.0
    }
}

impl<'de> Deserialize<'de> for PinTable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<PinTable, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Members {
            file: Option<AbsolutePath>,
            credential: Option<String>,
        }
        // Through a value whose own errors are dropped: they repeat what was written, and somebody
        // will write the PIN itself here.
        let usage =
            "a PIN must be one of { file = \"/absolute/path\" } and { credential = \"NAME\" }";
        let value = toml::Value::deserialize(deserializer)?;
        if !value.is_table() {
            return Err(D::Error::custom(usage));
        }
        let file = value.get("file").and_then(toml::Value::as_str);
        if file.is_some_and(|path| !Path::new(path).is_absolute()) {
            return Err(D::Error::custom("pin.file is not an absolute path"));
        }
        match value.try_into() {
            Ok(Members {
                file: Some(AbsolutePath(path)),
                credential: None,
            }) => Ok(PinTable(PinSource::File(path))),
            Ok(Members {
                file: None,
                credential: Some(name),
            }) => match name.as_str() {
                "" | "." | ".." => Err(D::Error::custom("the credential has no name")),
                _ if name.contains('/') => {
                    Err(D::Error::custom("a credential is named, not a path"))
                }
                _ => Ok(PinTable(PinSource::Credential(name))),
            },
            _ => Err(D::Error::custom(usage)),
        }
    }
}

/// A PKCS#11 URI, or a key of a TPM: its handle or its file.
#[derive(Deserialize)]
#[serde(try_from = "String")]
enum KeyText {
    Pkcs11(Box<Pkcs11Uri>),
    Tpm(TpmKeySource),
}

impl TryFrom<String> for KeyText {
    type Error = String;

    fn try_from(text: String) -> Result<KeyText, String> {
        let text = Zeroizing::new(text); // a pin-value may be in it
        if text.to_ascii_lowercase().starts_with("pkcs11:") {
            let uri = text
                .parse()
                .map_err(|error: token::UriError| error.to_string())?;
            return Ok(KeyText::Pkcs11(Box::new(uri)));
        }
        if let Some(handle) = text.strip_prefix("handle:") {
            return persistent_handle(handle)
                .map(|handle| KeyText::Tpm(TpmKeySource::Handle(handle)));
        }
        // Not the text itself: there may be a PIN in it.
        let usage = "key is none of a PKCS#11 URI (pkcs11:…), a TPM's handle (handle:0x81000101) and the \
                     absolute path of a TSS2 PRIVATE KEY file";
        match AbsolutePath::try_from(PathBuf::from(text.as_str())) {
            Ok(AbsolutePath(path)) => Ok(KeyText::Tpm(TpmKeySource::File(path))),
            Err(_) => Err(usage.to_owned()),
        }
    }
}

fn persistent_handle(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("0x").unwrap_or_default();
    let hex = digits.len() == 8 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    match u32::from_str_radix(digits, 16) {
        Ok(handle @ 0x8100_0000..=0x81ff_ffff) if hex => Ok(handle),
        _ => Err(format!(
            "{text:?} is not a persistent handle: write one from 0x81000000 to 0x81FFFFFF, as \
             `tpm2_getcap handles-persistent` shows them"
        )),
    }
}

/// An absolute path or a PKCS#11 URI.
#[derive(Deserialize)]
#[serde(try_from = "String")]
enum CertificateText {
    File(PathBuf),
    OnToken(Box<Pkcs11Uri>),
}

impl TryFrom<String> for CertificateText {
    type Error = String;

    fn try_from(text: String) -> Result<CertificateText, String> {
        if text.to_ascii_lowercase().starts_with("pkcs11:") {
            let uri = text
                .parse()
                .map_err(|error: token::UriError| error.to_string())?;
            return Ok(CertificateText::OnToken(Box::new(uri)));
        }
        AbsolutePath::try_from(PathBuf::from(text)).map(|path| CertificateText::File(path.0))
    }
}

#[derive(Deserialize)]
#[serde(try_from = "i64")]
struct Sessions(usize);

impl Default for Sessions {
    fn default() -> Sessions {
        Sessions(4)
    }
}

impl TryFrom<i64> for Sessions {
    type Error = String;

    fn try_from(number: i64) -> Result<Sessions, String> {
        match usize::try_from(number) {
            Ok(number @ 1..=64) => Ok(Sessions(number)),
            _ => Err("sessions is a number from 1 to 64".to_owned()),
        }
    }
}

/// A user or group, by name or number.
#[derive(PartialEq)]
enum Account {
    Name(String),
    Number(u32),
}

impl Account {
    fn number(
        &self,
        kind: &str,
        find: impl Fn(&str) -> Result<Option<u32>, String>,
    ) -> Result<u32, String> {
        match self {
            Account::Number(number) => Ok(*number),
            Account::Name(name) => match find(name) {
                Ok(Some(number)) => Ok(number),
                Ok(None) => Err(format!(
                    "there is no {kind} {name:?} on this machine: create it, or write a number"
                )),
                Err(error) => Err(format!("cannot look up {kind} {name:?}: {error}")),
            },
        }
    }
}

impl<'de> Deserialize<'de> for Account {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Account, D::Error> {
        struct NameOrNumber;
        impl Visitor<'_> for NameOrNumber {
            type Value = Account;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a name or a number from 0 to 4294967294")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Account, E> {
                Ok(Account::Name(name.to_owned()))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Account, E> {
                match u32::try_from(number) {
                    Ok(id) if id != u32::MAX => Ok(Account::Number(id)),
                    _ => Err(E::invalid_value(Unexpected::Signed(number), &self)),
                }
            }
        }
        deserializer.deserialize_any(NameOrNumber)
    }
}

impl FromStr for ArnPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<ArnPattern, String> {
        if text == "*" || text.starts_with("arn:") {
            Ok(ArnPattern(text.to_owned()))
        } else {
            Err(format!(
                "{text:?} matches no ARN: write one, with * for any characters"
            ))
        }
    }
}

/// A time such as `1h` or `90m`, within what AWS grants.
struct MaxDuration(SessionDuration);

impl FromStr for MaxDuration {
    type Err = String;

    fn from_str(text: &str) -> Result<MaxDuration, String> {
        let duration: SignedDuration = text
            .parse()
            .map_err(|_| format!("{text:?} is not a time: write one like 1h or 90m"))?;
        let seconds = u64::try_from(duration.as_secs()).unwrap_or(0);
        seconds.try_into().map(MaxDuration)
    }
}
