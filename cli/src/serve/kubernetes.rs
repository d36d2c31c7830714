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
            source: source(settings, environment)?,
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

    /// Begins to read keys and to request sessions; what `old` has is used on.
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
            _ => Arc::new(Keys::start(self.source, log.clone())?),
        };
        let offers = self.targets.into_iter().map(|one| {
            let offered = old.and_then(|old| {
                let same = |offer: &&Offer| offer.name() == one.target.shown();
                Some(old.offers.iter().find(same)?.offered.clone())
            });
            one.offer(offered, sessions, start, metrics, log)
        });
        Ok(endpoint::Cluster {
            offers: offers.collect::<io::Result<_>>()?,
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
        old: Option<Offered>,
        sessions: &Arc<Sessions>,
        start: Start,
        metrics: &Metrics,
        log: &Progress,
    ) -> io::Result<Offer> {
        let name = self.target.shown().to_owned();
        let counts = metrics.served_target(&name);
        let log = log.clone();
        let offered = match (self.template, old) {
            (None, Some(Offered::Shared(served))) => {
                served.change(self.target)?;
                Offered::Shared(served)
            }
            (Some(template), Some(Offered::Named(named)))
                if named.is_of(&self.target, &template) =>
            {
                Offered::Named(named)
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

fn source(
    settings: KubernetesSettings,
    environment: &Environment,
) -> Result<KeySource, KubernetesError> {
    let mounted = |name: &str| PathBuf::from(MOUNTED).join(name);
    let url = match settings.jwks {
        Some(KeyLocation::File(path)) => return Ok(KeySource::File(path)),
        Some(KeyLocation::Url(url)) => url,
        None => {
            let server = environment.kubernetes_service();
            let server = server.ok_or(KubernetesError::Keys)?;
            format!("https://{server}/openid/v1/jwks")
        }
    };
    Ok(KeySource::Server {
        url,
        ca_bundle: settings.ca_bundle.unwrap_or_else(|| mounted("ca.crt")),
        token_file: settings.token_file.unwrap_or_else(|| mounted("token")),
    })
}
