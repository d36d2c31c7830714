//! What `roleseal serve --kubernetes` takes from the targets files.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use client::environment::Environment;
use client::progress::Progress;
use client::refresher::{Start, Status};
use client::sessions::Sessions;
use client::target::{KeyLocation, KubernetesSettings, Target, TargetName, TargetTable};
use service_account::{AccountPattern, Expected, SessionNameTemplate};
use thiserror::Error;

use super::ServeError;
use super::status_line::tell;
use crate::common::Common;
use crate::endpoint::{
    self, KeySource, Keys, Metrics, Named, Offer, Offered, Served, ServiceAccounts,
};

/// A cluster and the targets of its pods, as the files have them.
pub(super) struct Cluster {
    expected: Expected,
    source: KeySource,
    targets: Vec<PodTarget>,
}

/// A target that pods may have.
struct PodTarget {
    target: Target,
    template: Option<SessionNameTemplate>,
    accounts: Vec<AccountPattern>,
}

/// What is missing, so that no pod is served.
#[derive(Debug, Error)]
pub(crate) enum KubernetesError {
    #[error("there is no table [kubernetes] in {0}")]
    Table(String),
    #[error("no target in {0} has service-accounts")]
    Targets(String),
    #[error("target {0:?} has no service-accounts: no pod could get it")]
    Accounts(TargetName),
    #[error("this node has no name: tokens for pods of other nodes could not be refused")]
    Node,
    #[error("no place for the keys of the cluster: [kubernetes] has no jwks, and this is no pod")]
    Keys,
}

impl KubernetesError {
    pub(super) fn hint(&self) -> Option<String> {
        let hint = match self {
            KubernetesError::Table(_) => "write one with issuer = \"URL\": see docs/kubernetes.md",
            KubernetesError::Targets(_) | KubernetesError::Accounts(_) => {
                "add service-accounts = [\"NAMESPACE/NAME\"] to the target"
            }
            KubernetesError::Node => {
                "give --node NAME, or node = \"NAME\" in [kubernetes]; in a pod, spec.nodeName by the downward API"
            }
            KubernetesError::Keys => {
                "write jwks = \"FILE\" or \"https://…\", such as the API server's /openid/v1/jwks"
            }
        };
        Some(hint.to_owned())
    }
}

/// Where Kubernetes mounts what a pod needs for the API server.
const MOUNTED: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

impl Cluster {
    /// Reads the targets files: these targets, or all that have service accounts.
    pub(super) fn find(
        common: &Common,
        environment: &Environment,
        names: &[TargetName],
        node: Option<&str>,
    ) -> Result<Cluster, ServeError> {
        let files = common.target_files(environment);
        let table = files.kubernetes()?;
        let settings = table.ok_or_else(|| KubernetesError::Table(files.searched()))?;
        let settings = settings.settings;
        let tables = match names {
            [] => {
                let mut all = files.all()?;
                all.retain(|table| !table.settings.service_accounts.is_empty());
                all
            }
            names => names
                .iter()
                .map(|name| files.find(name))
                .collect::<Result<_, _>>()?,
        };
        if tables.is_empty() {
            return Err(KubernetesError::Targets(files.searched()).into());
        }
        let targets = tables
            .into_iter()
            .map(|table| PodTarget::of(common, environment, table));
        let node = node.map(str::to_owned).or_else(|| settings.node.clone());
        Ok(Cluster {
            targets: targets.collect::<Result<_, _>>()?,
            expected: Expected {
                issuer: settings.issuer.clone(),
                audience: settings.audience.clone(),
                node: node
                    .filter(|node| !node.is_empty())
                    .ok_or(KubernetesError::Node)?,
            },
            source: source(settings, environment.kubernetes_service())?,
        })
    }

    /// Says what a pod needs.
    pub(super) fn say(&self, address: &str, log: &Progress) {
        for one in &self.targets {
            let accounts: Vec<_> = one.accounts.iter().map(ToString::to_string).collect();
            let name = one.target.shown();
            log.say(&format!(
                "target {name}: AWS_CONTAINER_CREDENTIALS_FULL_URI={address}{} for {}",
                ServiceAccounts::path(name),
                accounts.join(", ")
            ));
        }
    }

    /// Begins to read keys and to request sessions. What is the same as in `old` is used on; `old` itself stays as it is, for
    /// requests that its rules permitted, and where this fails.
    pub(super) fn start(
        self,
        old: Option<&endpoint::Cluster>,
        sessions: &Arc<Sessions>,
        start: Start,
        metrics: &Metrics,
        log: &Progress,
    ) -> io::Result<endpoint::Cluster> {
        let keys = match old.map(|old| &old.keys) {
            Some(keys) if *keys.source() == self.source => Arc::clone(keys),
            _ => {
                // Its tokens are good until the new source can be read.
                let same_issuer = old.filter(|old| old.expected.issuer == self.expected.issuer);
                let known = same_issuer.and_then(|old| old.keys.current());
                Arc::new(Keys::start(self.source, known, log.clone())?)
            }
        };
        let offers = self.targets.into_iter().map(|one| {
            let offered = old.and_then(|old| {
                let same = |offer: &&Offer| offer.name() == one.target.shown();
                Some(&old.offers.iter().find(same)?.offered)
            });
            one.offer(offered, sessions, start, metrics, log)
        });
        let offers = offers.collect::<io::Result<Vec<_>>>()?;
        if old.is_some() {
            offers.iter().for_each(Offer::retry);
        }
        Ok(endpoint::Cluster {
            offers,
            expected: self.expected,
            keys,
        })
    }
}

impl PodTarget {
    fn of(
        common: &Common,
        environment: &Environment,
        table: TargetTable,
    ) -> Result<PodTarget, ServeError> {
        let mut settings = common.over(table.settings);
        let accounts = std::mem::take(&mut settings.service_accounts);
        if accounts.is_empty() {
            return Err(KubernetesError::Accounts(table.name).into());
        }
        Ok(PodTarget {
            template: settings.take_template(),
            target: settings.target(Some(table.name), environment)?,
            accounts,
        })
    }

    fn offer(
        self,
        old: Option<&Offered>,
        sessions: &Arc<Sessions>,
        start: Start,
        metrics: &Metrics,
        log: &Progress,
    ) -> io::Result<Offer> {
        let name = self.target.shown().to_owned();
        let counts = metrics.served_target(&name);
        let log = log.clone();
        let offered = match (self.template, old) {
            (None, Some(Offered::Shared(served))) if served.target().key() == self.target.key() => {
                Offered::Shared(Arc::clone(served))
            }
            (Some(template), Some(Offered::Named(named)))
                if named.is_of(&self.target, &template) =>
            {
                Offered::Named(Arc::clone(named))
            }
            (None, _) => {
                let told = move |status: &Status| tell(&log, &name, status);
                let served = Served::start(sessions, self.target, start, counts, told)?;
                Offered::Shared(Arc::new(served))
            }
            (Some(template), _) => {
                let told = move |session: &str, status: &Status| {
                    tell(&log, &format!("{name} ({session})"), status);
                };
                let named = Named::new(self.target, template, sessions, counts, told);
                Offered::Named(Arc::new(named))
            }
        };
        Ok(Offer {
            accounts: self.accounts,
            offered,
        })
    }
}

/// The API server gets the token and is known by the CA that Kubernetes mounts; another server only what the file names.
fn source(
    settings: KubernetesSettings,
    api_server: Option<String>,
) -> Result<KeySource, KubernetesError> {
    let (url, is_api_server) = match settings.jwks {
        Some(KeyLocation::File(path)) => return Ok(KeySource::File(path)),
        Some(KeyLocation::Url(url)) => {
            let is_api_server = api_server.is_some_and(|server| is_at(&url, &server));
            (url, is_api_server)
        }
        None => {
            let server = api_server.ok_or(KubernetesError::Keys)?;
            (format!("https://{server}/openid/v1/jwks"), true)
        }
    };
    let mounted = |name: &str| is_api_server.then(|| PathBuf::from(MOUNTED).join(name));
    Ok(KeySource::Server {
        url,
        ca_bundle: settings.ca_bundle.or_else(|| mounted("ca.crt")),
        token_file: settings.token_file.or_else(|| mounted("token")),
    })
}

/// Returns whether an `https` URL is of this `HOST:PORT`.
fn is_at(url: &str, server: &str) -> bool {
    let rest = url.strip_prefix("https://").unwrap_or_default();
    let authority = rest.split(['/', '?', '#', '\\']).next();
    authority.is_some_and(|authority| {
        authority.eq_ignore_ascii_case(server) || server.strip_suffix(":443") == Some(authority)
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use client::target::Settings;

    use super::*;

    #[test]
    fn only_the_api_server_gets_the_token_that_kubernetes_mounts() {
        let mounted = |name: &str| Some(PathBuf::from(MOUNTED).join(name));
        for (more, server, is_api_server) in [
            ("", "10.0.0.1:443", true),
            (
                "jwks = \"https://10.0.0.1/openid/v1/jwks\"",
                "10.0.0.1:443",
                true,
            ),
            ("jwks = \"https://10.0.0.1:443/keys\"", "10.0.0.1:443", true),
            (
                "jwks = \"https://[fd00::1]:443/keys\"",
                "[fd00::1]:443",
                true,
            ),
            (
                "jwks = \"https://10.0.0.1:8443/keys\"",
                "10.0.0.1:443",
                false,
            ),
            ("jwks = \"https://10.0.0.10/keys\"", "10.0.0.1:443", false),
            (
                "jwks = \"https://s3.example.com/10.0.0.1:443\"",
                "10.0.0.1:443",
                false,
            ),
        ] {
            let settings = format!("issuer = \"https://cluster\"\n{more}");
            let settings: KubernetesSettings = toml::from_str(&settings).unwrap();
            let found = source(settings.clone(), Some(server.to_owned())).unwrap();
            let KeySource::Server {
                ca_bundle,
                token_file,
                ..
            } = found
            else {
                panic!("{more}");
            };
            let expected = |name| is_api_server.then(|| mounted(name)).flatten();
            assert_eq!(token_file, expected("token"), "{more}");
            assert_eq!(ca_bundle, expected("ca.crt"), "{more}");
            let named = KubernetesSettings {
                token_file: Some("/token".into()),
                ca_bundle: Some("/ca".into()),
                ..settings
            };
            let KeySource::Server {
                ca_bundle,
                token_file,
                ..
            } = source(named, Some(server.to_owned())).unwrap()
            else {
                panic!("{more}");
            };
            assert_eq!(
                (ca_bundle, token_file),
                (Some("/ca".into()), Some("/token".into()))
            );
        }
    }

    fn cluster(jwks: &str, role: &str, second: &str) -> Cluster {
        let target = |name: &str, role: &str| {
            let settings: Settings = toml::from_str(&format!(
                "role-arn = \"arn:aws:iam::123456789012:role/{role}\"\n\
                 profile-arn = \"arn:aws:rolesanywhere:eu-central-1:123456789012:profile/p\"\n\
                 trust-anchor-arn = \"arn:aws:rolesanywhere:eu-central-1:123456789012:trust-anchor/a\"\n\
                 socket = \"/nowhere/agent.sock\"\n"
            ))
            .unwrap();
            let name = Some(name.parse().unwrap());
            PodTarget {
                target: settings.target(name, &Environment::default()).unwrap(),
                template: None,
                accounts: vec!["payments/api".parse().unwrap()],
            }
        };
        Cluster {
            expected: Expected {
                issuer: "https://cluster".to_owned(),
                audience: "roleseal".to_owned(),
                node: "node-1".to_owned(),
            },
            source: KeySource::File(jwks.into()),
            targets: vec![target("web", role), target("second", second)],
        }
    }

    #[test]
    fn a_reload_leaves_the_cluster_as_it_is_that_permitted_earlier_requests() {
        let sessions = Arc::new(Sessions::new(None, Progress::quiet()));
        let start = |cluster: Cluster, old: Option<&endpoint::Cluster>| {
            let start = Start::Within(Duration::from_secs(600));
            cluster
                .start(
                    old,
                    &sessions,
                    start,
                    &Metrics::default(),
                    &Progress::quiet(),
                )
                .unwrap()
        };
        let of = |cluster: &endpoint::Cluster, at: usize| match &cluster.offers[at].offered {
            Offered::Shared(served) => Arc::clone(served),
            Offered::Named(_) => panic!(),
        };
        let role = |served: &Served| served.target().session.target.role().to_string();
        let old = start(cluster("/nowhere/a", "web", "second"), None);
        let new = start(cluster("/nowhere/a", "root", "second"), Some(&old));
        assert!(role(&of(&old, 0)).ends_with("/web"));
        assert!(role(&of(&new, 0)).ends_with("/root"));
        assert!(Arc::ptr_eq(&of(&old, 1), &of(&new, 1)));
        assert!(Arc::ptr_eq(&old.keys, &new.keys));
    }
}
