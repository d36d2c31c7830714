//! The settings of a target, as options of a command and as keys of the targets file: one list for
//! both, so that neither lacks what the other has.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use jiff::SignedDuration;
use rolesanywhere::{
    DEFAULT_DURATION, Endpoint, ProfileArn, Region, RoleArn, SessionDuration, Target as Arns,
    TrustAnchorArn,
};
use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};
use service_account::{AccountPattern, SessionNameTemplate};

use super::role_session_name::RoleSessionName;
use super::{Route, Target, TargetError, TargetName};
use crate::environment::Environment;
use crate::proxy::{ProxySetting, ProxyWord};
use crate::request::CreateSession;

/// What somebody said about a target; nothing has to be there.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// The agent's identity to sign with [default: the only one that you may use]
    #[arg(long, value_name = "NAME")]
    pub identity: Option<String>,
    /// The role to assume
    #[arg(long, value_name = "ARN")]
    #[serde(deserialize_with = "text")]
    pub role_arn: Option<RoleArn>,
    /// The Roles Anywhere profile that lists the role
    #[arg(long, value_name = "ARN")]
    #[serde(deserialize_with = "text")]
    pub profile_arn: Option<ProfileArn>,
    /// The trust anchor of the identity's certificate
    #[arg(long, value_name = "ARN")]
    #[serde(deserialize_with = "text")]
    pub trust_anchor_arn: Option<TrustAnchorArn>,
    /// How long the credentials are valid: seconds, or such as 1h; 15m to 12h; the profile may cap it
    /// [default: 1h]
    ///
    /// AWS tools ask anew up to 15 minutes before the end: with 15m some ask for every call.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    #[serde(deserialize_with = "seconds_or_text")]
    pub session_duration: Option<SessionDuration>,
    /// The role session's name, where the profile accepts one [default: the certificate's serial]
    #[arg(long, value_name = "NAME")]
    #[serde(deserialize_with = "text")]
    pub role_session_name: Option<RoleSessionName>,
    /// An instance property, where the profile requires some; may be repeated
    #[arg(long = "instance-property", value_name = "K=V", value_parser = instance_property)]
    #[serde(deserialize_with = "table")]
    pub instance_properties: Vec<(String, String)>,
    /// The AWS region; can only be the trust anchor's [default: the trust anchor's]
    #[arg(long)]
    #[serde(deserialize_with = "text")]
    pub region: Option<Region>,
    /// The service's URL [default: AWS's own, rolesanywhere.REGION.SUFFIX, by the ARNs' partition]
    #[arg(long, value_name = "URL")]
    #[serde(deserialize_with = "text")]
    pub endpoint: Option<Endpoint>,
    /// Use AWS's FIPS endpoint [default: $AWS_USE_FIPS_ENDPOINT]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub fips: Option<bool>,
    /// Use AWS's dual-stack (IPv4 and IPv6) endpoint [default: $AWS_USE_DUALSTACK_ENDPOINT]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub dual_stack: Option<bool>,
    /// PEM certificates to trust instead of the system's [default: $AWS_CA_BUNDLE]
    #[arg(long, value_name = "FILE")]
    #[serde(deserialize_with = "absolute")]
    pub ca_bundle: Option<PathBuf>,
    /// The HTTP proxy, with user and password where it wants them; or "none" [default: $HTTPS_PROXY,
    /// with $NO_PROXY]
    #[arg(long, value_name = "URL")]
    #[serde(deserialize_with = "text")]
    pub proxy: Option<ProxySetting>,
    /// The agent's; its option is one of the program, for the commands without a target.
    #[arg(skip)]
    #[serde(deserialize_with = "absolute")]
    pub socket: Option<PathBuf>,
    /// The service accounts whose pods may have it from `roleseal serve --kubernetes`; has no option.
    #[arg(skip)]
    pub service_accounts: Vec<AccountPattern>,
}

impl Settings {
    /// These, and where they are silent, the others.
    pub fn or(self, other: Settings) -> Settings {
        let instance_properties = match self.instance_properties.is_empty() {
            true => other.instance_properties,
            false => self.instance_properties,
        };
        let service_accounts = match self.service_accounts.is_empty() {
            true => other.service_accounts,
            false => self.service_accounts,
        };
        Settings {
            identity: self.identity.or(other.identity),
            role_arn: self.role_arn.or(other.role_arn),
            profile_arn: self.profile_arn.or(other.profile_arn),
            trust_anchor_arn: self.trust_anchor_arn.or(other.trust_anchor_arn),
            session_duration: self.session_duration.or(other.session_duration),
            role_session_name: self.role_session_name.or(other.role_session_name),
            instance_properties,
            region: self.region.or(other.region),
            endpoint: self.endpoint.or(other.endpoint),
            fips: self.fips.or(other.fips),
            dual_stack: self.dual_stack.or(other.dual_stack),
            ca_bundle: self.ca_bundle.or(other.ca_bundle),
            proxy: self.proxy.or(other.proxy),
            socket: self.socket.or(other.socket),
            service_accounts,
        }
    }

    /// Whether they name what a session is asked for, or a part of it.
    pub fn name_arns(&self) -> bool {
        self.role_arn.is_some() || self.profile_arn.is_some() || self.trust_anchor_arn.is_some()
    }

    /// Takes out the template of the role session's name, for a caller that fills it in: a target has none.
    pub fn take_template(&mut self) -> Option<SessionNameTemplate> {
        match self.role_session_name.take() {
            Some(RoleSessionName::Template(template)) => Some(template),
            other => {
                self.role_session_name = other;
                None
            }
        }
    }

    /// Fills in the first service account that may have the target, for a check of what its pods will get.
    pub fn fill_in_example(&mut self) {
        let account = self.service_accounts.first();
        if let Some(account) = account.and_then(AccountPattern::example)
            && let Some(RoleSessionName::Template(template)) = &self.role_session_name
            && let Ok(name) = template.fill(&account)
        {
            self.role_session_name = Some(RoleSessionName::Fixed(name));
        }
    }

    /// The target that they describe, with the environment and the defaults for what they leave open;
    /// or why they do not fit together.
    pub fn target(
        self,
        name: Option<TargetName>,
        environment: &Environment,
    ) -> Result<Target, TargetError> {
        self.fit(environment)
            .map(|target| Target {
                name: name.clone(),
                ..target
            })
            .map_err(|fault| TargetError::Misfit { name, fault })
    }

    fn fit(self, environment: &Environment) -> Result<Target, String> {
        let arns = Arns::new(
            self.role_arn.ok_or_else(|| missing("role-arn"))?,
            self.profile_arn.ok_or_else(|| missing("profile-arn"))?,
            self.trust_anchor_arn
                .ok_or_else(|| missing("trust-anchor-arn"))?,
        )
        .map_err(|error| error.to_string())?;
        if let Some(region) = self.region.filter(|region| region != arns.region()) {
            return Err(format!(
                "region {region} is not the trust anchor's, {}: IAM Roles Anywhere knows a trust \
                 anchor only in its own region; leave --region out",
                arns.region()
            ));
        }
        let endpoint = endpoint(
            &arns,
            self.endpoint,
            self.fips,
            self.dual_stack,
            environment,
        )?;
        let session_name = match self.role_session_name {
            None => None,
            Some(RoleSessionName::Fixed(name)) => Some(name),
            Some(RoleSessionName::Template(template)) => {
                return Err(format!(
                    "role-session-name = \"{template}\" is a template: only \"roleseal serve --kubernetes\" has a \
                     service account to fill in"
                ));
            }
        };
        let proxy = match self.proxy {
            Some(setting) => setting.proxy(),
            None => ProxyWord::of(environment, endpoint.host())?.proxy(),
        };
        Ok(Target {
            name: None,
            socket: self.socket.unwrap_or_else(|| environment.socket()),
            session: CreateSession {
                identity: self.identity,
                target: arns,
                endpoint,
                duration: self.session_duration.unwrap_or(DEFAULT_DURATION),
                session_name,
                instance_properties: unique(self.instance_properties)?,
            },
            route: Route {
                ca_bundle: self.ca_bundle.or_else(|| environment.ca_bundle()),
                proxy,
            },
        })
    }
}

fn missing(setting: &str) -> String {
    format!("--{setting} is missing: give it, or --target with the name of one in the targets file")
}

/// AWS's own rules: an endpoint of one's own has no variants. Where only the environment asks for
/// one, an endpoint that somebody named for this target wins.
fn endpoint(
    arns: &Arns,
    own: Option<Endpoint>,
    fips: Option<bool>,
    dual_stack: Option<bool>,
    environment: &Environment,
) -> Result<Endpoint, String> {
    if let Some(own) = own {
        for (variant, asked) in [("fips", fips), ("dual-stack", dual_stack)] {
            if asked == Some(true) {
                return Err(format!(
                    "{variant} and endpoint exclude each other: {variant} chooses among AWS's own \
                     endpoints, and {own} is another"
                ));
            }
        }
        return Ok(own);
    }
    let fips = match fips {
        Some(fips) => fips,
        None => environment.fips()?,
    };
    let dual_stack = match dual_stack {
        Some(dual_stack) => dual_stack,
        None => environment.dual_stack()?,
    };
    let host = arns.partition().host(arns.region(), fips, dual_stack);
    Ok(Endpoint::at(host))
}

fn unique(pairs: Vec<(String, String)>) -> Result<BTreeMap<String, String>, String> {
    let mut properties = BTreeMap::new();
    for (key, value) in pairs {
        if properties.contains_key(&key) {
            return Err(format!(
                "--instance-property {key:?} is given more than once"
            ));
        }
        properties.insert(key, value);
    }
    Ok(properties)
}

fn instance_property(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some(("", _)) => Err("the key before '=' is missing"),
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => Err("write it as KEY=VALUE"),
    }
}

/// `3600` or `1h`.
fn duration(text: &str) -> Result<SessionDuration, String> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse();
    }
    let time: SignedDuration = text.parse().map_err(|_| {
        format!("{text:?} is not a time: write seconds, or such as \"1h\" or \"90m\"")
    })?;
    let seconds = u64::try_from(time.as_secs()).map_err(|_| "it is negative".to_owned())?;
    seconds.try_into()
}

pub(super) fn text<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: FromStr<Err: fmt::Display>,
    D: Deserializer<'de>,
{
    let text = String::deserialize(deserializer)?;
    text.parse().map(Some).map_err(D::Error::custom)
}

/// A file is read from any directory.
pub(super) fn absolute<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<PathBuf>, D::Error> {
    let path = PathBuf::deserialize(deserializer)?;
    if path.is_absolute() {
        Ok(Some(path))
    } else {
        let path = path.display();
        Err(D::Error::custom(format!("{path} is no absolute path")))
    }
}

fn table<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(String, String)>, D::Error> {
    let table = BTreeMap::<String, String>::deserialize(deserializer)?;
    Ok(table.into_iter().collect())
}

fn seconds_or_text<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<SessionDuration>, D::Error> {
    struct Time;
    impl Visitor<'_> for Time {
        type Value = SessionDuration;

        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("a number of seconds, or a time such as \"1h\"")
        }

        fn visit_i64<E: Error>(self, seconds: i64) -> Result<SessionDuration, E> {
            let seconds = u64::try_from(seconds).map_err(|_| E::custom("it is negative"))?;
            seconds.try_into().map_err(E::custom)
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<SessionDuration, E> {
            duration(text).map_err(E::custom)
        }
    }
    deserializer.deserialize_any(Time).map(Some)
}

#[cfg(test)]
mod tests;
