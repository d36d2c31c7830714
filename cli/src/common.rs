//! What the commands share: the options that every command takes, and the session of a command that wants one.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use client::Diagnostic;
use client::cache::Cache;
use client::environment::Environment;
use client::exit::Exit;
use client::progress::Progress;
use client::refresher::Start;
use client::session::Session;
use client::sessions::Sessions;
use client::target::{Settings, Target, TargetError, TargetFiles, TargetName};
use thiserror::Error;

use crate::output::OutputError;

/// What every command takes.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// The agent's socket [default: see Environment in --help]
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// The file with the targets, instead of the user's and the system's
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) targets: Option<PathBuf>,
    /// Say nothing on standard error but why the command failed
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
}

/// Which session is wanted, and from where.
#[derive(Debug, Args)]
pub(crate) struct SessionArguments {
    /// A target of the targets file; the options below win over its settings
    #[arg(long, value_name = "NAME")]
    pub(crate) target: Option<TargetName>,
    #[command(flatten)]
    pub(crate) settings: Settings,
    /// Ask for a new session, and keep it for no other call
    #[arg(long)]
    pub(crate) no_cache: bool,
}

/// When a daemon makes its first request.
#[derive(Debug, Args)]
pub(crate) struct StartArguments {
    /// Send the first request at a random moment within so many seconds, unless a client waits or a session is
    /// cached [default: 30 under systemd and Kubernetes; 0 at a terminal and elsewhere]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u16).range(..=3600))]
    splay: Option<u16>,
}

/// A fleet that boots at once shall not be there at once.
const SPLAY: u16 = 30;

impl StartArguments {
    /// When the first request is due.
    pub(crate) fn start(&self, environment: &Environment) -> Start {
        let usual = || match environment.is_service() && !io::stderr().is_terminal() {
            true => SPLAY,
            false => 0,
        };
        Start::Within(Duration::from_secs(self.splay.unwrap_or_else(usual).into()))
    }
}

/// Why a command failed that has no failures of its own.
#[derive(Debug, Error)]
pub(crate) enum CommandError {
    #[error(transparent)]
    Client(#[from] client::Error),
    /// What others who waited for the same session got as well.
    #[error(transparent)]
    Session(#[from] Arc<client::Error>),
    #[error(transparent)]
    Output(#[from] OutputError),
}

impl Diagnostic for CommandError {
    fn exit(&self) -> Exit {
        match self {
            CommandError::Client(error) => error.exit(),
            CommandError::Session(error) => error.exit(),
            CommandError::Output(error) => error.exit(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            CommandError::Client(error) => error.hint(),
            CommandError::Session(error) => error.hint(),
            CommandError::Output(error) => error.hint(),
        }
    }
}

impl Common {
    /// What the command says while it works.
    pub(crate) fn progress(&self) -> Progress {
        match self.quiet {
            true => Progress::quiet(),
            false => Progress::on_stderr(),
        }
    }

    /// What a command says that runs for long.
    pub(crate) fn log(&self) -> Progress {
        match self.quiet {
            true => Progress::quiet(),
            false => Progress::lines(),
        }
    }

    /// The agent's socket, for a command without a target.
    pub(crate) fn socket(&self) -> PathBuf {
        let socket = self.socket.clone();
        socket.unwrap_or_else(|| Environment::of_process().socket())
    }

    /// The files that a target may be in.
    pub(crate) fn target_files(&self, environment: &Environment) -> TargetFiles {
        let named = self.targets.clone().or_else(|| environment.targets());
        TargetFiles::new(named, environment.user_config())
    }

    /// The settings of the target of that name, where one is named, with those of the command line over
    /// them and the environment's below.
    pub(crate) fn target(
        &self,
        environment: &Environment,
        name: Option<TargetName>,
        settings: Settings,
    ) -> Result<Target, TargetError> {
        let file = match &name {
            Some(name) => self.target_files(environment).find(name)?.settings,
            None => Settings::default(),
        };
        self.over(settings.or(file)).target(name, environment)
    }

    /// The settings, with what every command takes over them.
    pub(crate) fn over(&self, settings: Settings) -> Settings {
        Settings {
            socket: self.socket.clone().or(settings.socket),
            ..settings
        }
    }
}

/// A fresh session of the target that the command line names.
pub(crate) fn one_session(
    common: &Common,
    wanted: SessionArguments,
) -> Result<Arc<Session>, CommandError> {
    let environment = Environment::of_process();
    let target = common
        .target(&environment, wanted.target, wanted.settings)
        .map_err(client::Error::from)?;
    let progress = common.progress();
    let cache = match wanted.no_cache {
        true => None,
        false => Cache::usual(&environment, &progress),
    };
    Ok(Sessions::new(cache, progress).get(&target)?)
}
