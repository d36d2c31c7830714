//! `roleseal serve`

mod kubernetes;
mod status_line;
mod token_files;

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use client::Diagnostic;
use client::cache::Cache;
use client::environment::Environment;
use client::exit::Exit;
use client::progress::Progress;
use client::refresher::{Start, Status};
use client::sessions::Sessions;
use client::target::{Settings, Target, TargetError, TargetName};
use sd_notify::NotifyState;
use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::common::{Common, StartArguments};
use crate::endpoint::server;
use crate::endpoint::{
    Allowed, Container, Imds, ListenAddress, ListenError, Listener, Metrics, MetricsServer, Router,
    Scrape, Secret, Served, ServiceAccounts, Snapshot,
};

use kubernetes::{Cluster, KubernetesError};
use status_line::tell;
use token_files::{TokenFileError, TokenFiles};

/// What is served, and where.
#[derive(Debug, Args)]
pub(crate) struct ServeArguments {
    /// A target of the targets file; may be repeated [default with --kubernetes: all with service-accounts]
    #[arg(long, value_name = "NAME", required_unless_present = "kubernetes")]
    target: Vec<TargetName>,
    /// Where to listen: ADDRESS:PORT or unix:/PATH; may be repeated [default: systemd's sockets, or
    /// 127.0.0.1:9911]
    #[arg(long, value_name = "ADDRESS")]
    listen: Vec<ListenAddress>,
    /// Serve metrics for Prometheus at ADDRESS:PORT or unix:/PATH, to every client that can connect
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<ListenAddress>,
    /// Allow addresses that other hosts can reach; credentials cross the network in clear text
    #[arg(long)]
    allow_remote: bool,
    /// Also serve this target, or the only one, as EC2 instance metadata (IMDSv2), which every local user
    /// can read
    #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true)]
    imds: Option<Option<TargetName>>,
    /// How many hops an answer may take: 2 lets containers behind a bridge of this host ask instance metadata
    #[arg(long, value_name = "N", default_value_t = 1, requires = "imds",
          value_parser = clap::value_parser!(u8).range(1..))]
    hop_limit: u8,
    /// Serve pods, by their service-account tokens, as [kubernetes] and service-accounts of the targets file say
    #[arg(long, conflicts_with_all = ["imds", "allow_remote", "token_directory"])]
    kubernetes: bool,
    /// This node's name, as Kubernetes has it [default: node in [kubernetes]]
    #[arg(long, value_name = "NAME", requires = "kubernetes")]
    node: Option<String>,
    /// Where the token files are kept [default: $XDG_RUNTIME_DIR or $RUNTIME_DIRECTORY]; below it, in
    /// a directory roleseal
    #[arg(long, value_name = "DIRECTORY")]
    token_directory: Option<PathBuf>,
    /// Share sessions with no other roleseal
    #[arg(long)]
    no_cache: bool,
    #[command(flatten)]
    start: StartArguments,
}

/// Why nothing is served.
#[derive(Debug, Error)]
pub(crate) enum ServeError {
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    TokenFile(#[from] TokenFileError),
    #[error(transparent)]
    Kubernetes(#[from] KubernetesError),
    #[error("--target {0} is given more than once")]
    Repeated(TargetName),
    #[error("--imds={0} is not among the targets that are served: add --target {0}")]
    ImdsUnknown(TargetName),
    #[error("--imds serves one target only: say which, as --imds=NAME")]
    ImdsAmbiguous,
    #[error("cannot serve: {0}")]
    Io(#[from] io::Error),
}

impl Diagnostic for ServeError {
    fn exit(&self) -> Exit {
        match self {
            ServeError::Target(_)
            | ServeError::Repeated(_)
            | ServeError::ImdsUnknown(_)
            | ServeError::ImdsAmbiguous
            | ServeError::Kubernetes(_)
            | ServeError::Listen(ListenError::Remote(_) | ListenError::NotOfNode(_)) => Exit::Usage,
            _ => Exit::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            ServeError::Target(error) => error.hint(),
            ServeError::Listen(error) => error.hint(),
            ServeError::TokenFile(error) => error.hint(),
            ServeError::Kubernetes(error) => error.hint(),
            _ => None,
        }
    }
}

pub(crate) fn run(common: &Common, wanted: ServeArguments) -> Result<(), ServeError> {
    let environment = Environment::of_process();
    let log = common.log();
    let cache = match wanted.no_cache {
        true => None,
        false => Cache::usual(&environment, &log),
    };
    let sessions = Arc::new(Sessions::new(cache, log.clone()));
    match wanted.kubernetes {
        true => serve_pods(common, &environment, &wanted, &sessions, &log)?,
        false => serve_targets(common, &environment, wanted, &sessions, &log)?,
    }
    log.say("ended");
    Ok(())
}

fn serve_targets(
    common: &Common,
    environment: &Environment,
    wanted: ServeArguments,
    sessions: &Arc<Sessions>,
    log: &Progress,
) -> Result<(), ServeError> {
    let found = targets(common, environment, &wanted.target)?;
    let imds = imds_target(&wanted)?;
    let listeners = listeners(&wanted)?;
    let metrics_server = wanted
        .metrics
        .as_ref()
        .map(MetricsServer::bind)
        .transpose()?;
    let metrics = Arc::new(Metrics::default());
    let directory = wanted
        .token_directory
        .or_else(|| environment.runtime_directory());
    let files = TokenFiles::open(directory)?;
    let (names, hops) = (wanted.target, wanted.hop_limit);
    let start = wanted.start.start(environment);
    server::runtime()?.block_on(async {
        // Before anything is told to the world: a signal that comes early is not lost.
        let signals = Signals::new()?;
        let site = site(
            found,
            imds.as_ref(),
            sessions,
            start,
            &files,
            &listeners,
            (&metrics, log),
        )?;
        if site.imds.is_some() {
            for listener in &listeners {
                listener.limit_hops(hops)?;
            }
        }
        sd_notify::notify(&[NotifyState::Ready])?;
        let all = site.containers.iter().map(Container::served);
        let all: Vec<_> = all.map(Arc::clone).collect();
        let scraped = all.clone();
        let scrape = Scrape::new(&metrics, move || snapshot(&scraped));
        let running = metrics_server.map(|server| server.start(scrape, log));
        let _running = running.transpose()?;
        let reload = || {
            let found = targets(common, environment, &names);
            reload(found, &all, log);
        };
        server::serve(listeners, site, signals.until_the_end(reload, log)).await?;
        Ok(())
    })
}

fn serve_pods(
    common: &Common,
    environment: &Environment,
    wanted: &ServeArguments,
    sessions: &Arc<Sessions>,
    log: &Progress,
) -> Result<(), ServeError> {
    unique(&wanted.target)?;
    let find = || Cluster::find(common, environment, &wanted.target, wanted.node.as_deref());
    let found = find()?;
    let listeners = listeners(wanted)?;
    let metrics_server = wanted
        .metrics
        .as_ref()
        .map(MetricsServer::bind)
        .transpose()?;
    let metrics = Arc::new(Metrics::default());
    let start = wanted.start.start(environment);
    server::runtime()?.block_on(async {
        let signals = Signals::new()?;
        for listener in &listeners {
            found.say(listener.address(), log);
        }
        let cluster = found.start(None, sessions, start, &metrics, log)?;
        let service_accounts = ServiceAccounts::start(cluster, &metrics, log.clone());
        let site = Router {
            service_accounts: Some(Arc::clone(&service_accounts)),
            health: true,
            ..Router::default()
        };
        let scraped = Arc::clone(&service_accounts);
        let scrape = Scrape::new(&metrics, move || scraped.snapshot());
        let running = metrics_server.map(|server| server.start(scrape, log));
        let _running = running.transpose()?;
        sd_notify::notify(&[NotifyState::Ready])?;
        let reload = || {
            let old = service_accounts.cluster();
            let new = find()
                .and_then(|found| Ok(found.start(Some(&old), sessions, start, &metrics, log)?));
            match new {
                Ok(new) => {
                    service_accounts.replace(new);
                    log.say("reloaded");
                }
                Err(error) => log.warn(&format!(
                    "reload failed, keeping the previous targets: {}",
                    error.report()
                )),
            }
        };
        server::serve(listeners, site, signals.until_the_end(reload, log)).await?;
        Ok(())
    })
}

fn targets(
    common: &Common,
    environment: &Environment,
    names: &[TargetName],
) -> Result<Vec<Target>, ServeError> {
    let target =
        |name: &TargetName| common.target(environment, Some(name.clone()), Settings::default());
    Ok(unique(names)?
        .iter()
        .map(target)
        .collect::<Result<_, _>>()?)
}

fn unique(names: &[TargetName]) -> Result<&[TargetName], ServeError> {
    let mut seen = BTreeSet::new();
    match names.iter().find(|name| !seen.insert(*name)) {
        Some(twice) => Err(ServeError::Repeated(twice.clone())),
        None => Ok(names),
    }
}

fn imds_target(wanted: &ServeArguments) -> Result<Option<TargetName>, ServeError> {
    match (&wanted.imds, &wanted.target[..]) {
        (None, _) => Ok(None),
        (Some(None), [only]) => Ok(Some(only.clone())),
        (Some(None), _) => Err(ServeError::ImdsAmbiguous),
        (Some(Some(name)), names) if names.contains(name) => Ok(Some(name.clone())),
        (Some(Some(name)), _) => Err(ServeError::ImdsUnknown(name.clone())),
    }
}

/// systemd's, and those that were asked for; the usual one where there are none.
fn listeners(wanted: &ServeArguments) -> Result<Vec<Listener>, ListenError> {
    let allowed = match (wanted.kubernetes, wanted.allow_remote) {
        (true, _) => Allowed::Node,
        (false, true) => Allowed::All,
        (false, false) => Allowed::Loopback,
    };
    let mut listeners = Listener::passed(allowed)?;
    for address in &wanted.listen {
        listeners.push(Listener::bind(address, allowed)?);
    }
    if listeners.is_empty() {
        let usual = ListenAddress::default();
        listeners.push(Listener::bind(&usual, allowed)?);
    }
    Ok(listeners)
}

fn site(
    targets: Vec<Target>,
    imds_target: Option<&TargetName>,
    sessions: &Arc<Sessions>,
    start: Start,
    files: &TokenFiles,
    listeners: &[Listener],
    (metrics, log): (&Metrics, &Progress),
) -> Result<Router, ServeError> {
    let (mut containers, mut imds) = (Vec::new(), None);
    for target in targets {
        let name = target.shown().to_owned();
        let (secret, file) = files.secret(&name, log)?;
        let secret = Secret::new(&secret).map_err(io::Error::from)?;
        for listener in listeners {
            log.say(&format!(
                "target {name}: AWS_CONTAINER_CREDENTIALS_FULL_URI={}{} \
                 AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE={}",
                listener.address(),
                Container::path(&name),
                file.display()
            ));
        }
        let as_imds = imds_target.is_some_and(|imds| imds.as_ref() == name);
        let teller = log.clone();
        let counts = metrics.served_target(&name);
        let told = move |status: &Status| tell(&teller, &name, status);
        let served = Arc::new(Served::start(sessions, target, start, counts, told)?);
        if as_imds {
            warn_of_short_sessions(log, &served.target());
            imds = Some(Imds::new(Arc::clone(&served)).map_err(io::Error::from)?);
            for listener in listeners {
                log.say(&format!(
                    "target {}: AWS_EC2_METADATA_SERVICE_ENDPOINT={}",
                    served.name(),
                    listener.address()
                ));
            }
        }
        containers.push(Container::new(served, secret));
    }
    Ok(Router {
        containers,
        imds,
        health: true,
        ..Router::default()
    })
}

fn snapshot(all: &[Arc<Served>]) -> Snapshot {
    let one = |served: &Arc<Served>| (served.name().to_owned(), vec![served.status()]);
    Snapshot {
        targets: all.iter().map(one).collect(),
        keys: None,
    }
}

/// botocore trusts instance metadata for 25 minutes at most, renews from 15 minutes before that, and so uses a
/// session for ten minutes. A session is handed out until a quarter of its life is left.
const SHORT: u32 = 4 * 600;

fn warn_of_short_sessions(log: &Progress, target: &Target) {
    if target.session.duration.seconds() < SHORT {
        log.warn(&format!(
            "target {}: the AWS CLI and boto3 may use sessions from instance metadata beyond their end if they              last less than 40 minutes: set session-duration",
            target.shown()
        ));
    }
}

/// Takes over what has changed in the targets; all of them or none.
fn reload(targets: Result<Vec<Target>, ServeError>, all: &[Arc<Served>], log: &Progress) {
    let targets = match targets {
        Ok(targets) => targets,
        Err(error) => {
            log.warn(&format!(
                "reload failed, keeping the previous targets: {error}"
            ));
            return;
        }
    };
    for (served, target) in all.iter().zip(targets) {
        match served.change(target) {
            Ok(true) => log.say(&format!("target {}: reloaded", served.name())),
            Ok(false) => log.say(&format!("target {}: unchanged", served.name())),
            Err(error) => log.warn(&format!("target {}: cannot reload: {error}", served.name())),
        }
    }
}

/// What ends the program, and what makes it read the targets again.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn until_the_end(mut self, reload: impl Fn(), log: &Progress) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => break,
                _ = self.interrupt.recv() => break,
                _ = self.hang_up.recv() => reload(),
            }
        }
        log.say("ending");
        let _ = sd_notify::notify(&[NotifyState::Stopping]); // it is only for show
    }
}
