//! Arguments, hardening, launcher, configuration; then confines itself, opens the tokens, listens, and waits
//! for signals.

use std::error::Error as StdError;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use config::check::{self, Looker};
use config::pin_records::state_directory;
use config::user_database::{SystemUsers, UserDatabase};
use config::viewpoint::Viewpoint;
use config::{Config, ConfigError, Hardening, MetricsAddress};
use roleseal_agent::accounts::Accounts;
use roleseal_agent::arguments::Arguments;
use roleseal_agent::launcher::Launcher;
use roleseal_agent::listener::Listener;
use roleseal_agent::metrics_server::Server;
use roleseal_agent::panics::{INTERNAL_ERROR, contain};
use roleseal_agent::sandbox::{Files, Sandbox};
use roleseal_agent::service_manager::ServiceManager;
use roleseal_agent::state::Agent;
use roleseal_agent::token_worker::PinTries;
use roleseal_agent::watch::Watch;
use roleseal_agent::{descriptors, launcher, listener, log};
use sd_notify::NotifyState;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use thiserror::Error;
use wire::Refusal;

/// How long clients that are connected at the end have to begin a request: one that has just connected does so at once.
const LAST_CALL: Duration = Duration::from_millis(500);

/// How long requests that are under way at the end may take: a signature takes a second at the most.
/// systemd waits 45 s for all (TimeoutStopSec=).
const DRAIN_DEADLINE: Duration = Duration::from_secs(5);

/// How long the tokens may take to close after that.
const CLOSE_LIMIT: Duration = Duration::from_secs(4);

/// How long a token may take to answer the try of a PIN: as long as a login over a slow network HSM.
const TRY_DEADLINE: Duration = Duration::from_secs(30);

/// How long the launcher may take after that: its token programs have ended.
const LAUNCHER_DEADLINE: Duration = Duration::from_secs(2);
/// How long the refusals of what the end has overtaken may take to leave.
const LAST_WORDS: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    if launcher::is_asked_for() {
        return launcher::main();
    }
    let arguments = Arguments::parse();
    let result = if arguments.check {
        check(&arguments).inspect_err(|failure| eprintln!("roleseal-agent: {failure}"))
    } else {
        serve(&arguments).inspect_err(|failure| {
            log::error(&failure.to_string());
            if let Failure::Configuration(_) = failure {
                not_configured(failure);
            }
        })
    };
    log::flush();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Configuration(_)) => ExitCode::from(CONFIGURATION_FAULT),
        Err(Failure::Other(_)) => ExitCode::FAILURE,
    }
}

/// `EX_CONFIG` of sysexits.h: the unit is not restarted after it, since the same file has the same fault.
const CONFIGURATION_FAULT: u8 = 78;

/// Why the agent does not serve, or `--check` does not pass.
#[derive(Debug, Error)]
enum Failure {
    /// An administrator has to correct the configuration, or what it names.
    #[error("{0}")]
    Configuration(String),
    /// Anything else. It may pass.
    #[error(transparent)]
    Other(#[from] Box<dyn StdError>),
}

impl Failure {
    fn other(error: impl Into<Box<dyn StdError>>) -> Failure {
        Failure::Other(error.into())
    }

    /// Says as whom `--check` has looked.
    fn seen_by(self, viewpoint: &Viewpoint) -> Failure {
        match self {
            Failure::Configuration(text) => {
                Failure::Configuration(format!("{text}\n({viewpoint})"))
            }
            Failure::Other(error) => Failure::other(format!("{error}\n({viewpoint})")),
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        match error.may_pass() {
            true => Failure::Other(error.into()),
            false => Failure::Configuration(error.to_string()),
        }
    }
}

/// Tells the service manager and whoever waits at its socket.
fn not_configured(failure: &Failure) {
    let text = failure.to_string();
    // One line: each further one would be an assignment of its own (sd_notify(3)).
    let status = NotifyState::Status(text.lines().next().unwrap_or_default());
    let _ = ServiceManager::connect().and_then(|manager| manager.notify(&[status])); // there may be none
    listener::refuse_waiting(&Refusal::NotConfigured {
        message: "the configuration of roleseal-agent has a fault: an administrator sees it with \
                  `systemctl status roleseal-agent`"
            .to_owned(),
    });
}

fn serve(arguments: &Arguments) -> Result<(), Failure> {
    let (launcher, signals) = start(arguments)?;
    let accounts = Accounts::by(launcher.clone());
    let config = Config::load(&arguments.config, &accounts)?;
    Ok(serve_with(
        config,
        &arguments.config,
        (launcher, accounts),
        signals,
    )?)
}

/// What comes before anything is read.
fn start(arguments: &Arguments) -> Result<(Launcher, Signals), Box<dyn StdError>> {
    token::program::harden_process()?; // before any thread: some of it is a thread's own
    log::start(arguments.log_format);
    let launcher =
        Launcher::start().map_err(|error| format!("cannot start its launcher: {error}"))?;
    Ok((launcher, Signals::new([SIGTERM, SIGINT, SIGHUP])?))
}

fn serve_with(
    config: Config,
    path: &Path,
    (launcher, accounts): (Launcher, Accounts),
    mut signals: Signals,
) -> Result<(), Box<dyn StdError>> {
    descriptors::allow_for(config.limits.connections)?;
    let fixed = RestartOnlySettings::of(&config);
    config.warnings().for_each(|warning| log::warn(&warning));
    // Before any token is opened: a second agent must not try the first one's PINs.
    let listener = Arc::new(Listener::bind(&config.socket, config.serves_others())?);
    log::info(&format!("listening at {}", listener.address()));
    let scrapes = config.metrics.as_ref().map(Server::bind).transpose()?;
    let service_manager = ServiceManager::connect()
        .map_err(|error| format!("cannot connect to the service manager: {error}"))?;
    let pin_tries = PinTries::open(state_directory(config.state.as_deref()).as_deref())?;
    // Before there is another thread, which would stay free.
    let mut files = Files::of(path, &config);
    if let Some(socket) = listener.path() {
        files.remove(socket);
    }
    if let Some(directory) = pin_tries.directory() {
        files.write(directory);
    }
    files::trust::prepare();
    let sandbox = Sandbox::enter(&files, &config.hardening)?;
    log::write_in_thread()?;
    let lost = end_with(&launcher)?;
    let programs = launcher.token_programs(config.hardening.token_programs);
    let agent = Arc::new(Agent::start(
        config, programs, accounts, sandbox, pin_tries,
    )?);
    let watch = Watch::start(&agent)?;
    if let Some(server) = &scrapes {
        server.start(&agent)?;
        log::info(&format!("metrics at {}", server.address()));
    }
    service_manager.notify(&[NotifyState::Ready])?;
    std::thread::spawn({
        let (listener, agent) = (Arc::clone(&listener), Arc::clone(&agent));
        move || listener.run(&agent)
    });
    while signals.forever().next() == Some(SIGHUP) {
        let reloading = [NotifyState::Reloading, NotifyState::monotonic_usec_now()?];
        let _ = service_manager.notify(&reloading); // systemd may have gone
        let reloaded = contain(|| reload(path, &fixed, &agent));
        match reloaded.unwrap_or_else(|| Err(INTERNAL_ERROR.into())) {
            Ok(count) => log::info(&format!("reloaded: {count} identities")),
            Err(error) => log::warn(&format!(
                "not reloaded: {error}; the configuration of before stays in force"
            )),
        }
        watch.look_now();
        let _ = service_manager.notify(&[NotifyState::Ready]);
    }
    end(&listener, &agent);
    if let Some(server) = &scrapes {
        server.remove();
    }
    if lost.load(Ordering::Acquire) {
        return Err("its launcher ended: without it there are no token programs".into());
    }
    launcher.close(Instant::now() + LAUNCHER_DEADLINE);
    Ok(())
}

/// What of a configuration takes effect at the start alone.
#[derive(PartialEq)]
struct RestartOnlySettings {
    socket: PathBuf,
    state: Option<PathBuf>,
    metrics: Option<MetricsAddress>,
    hardening: Hardening,
}

impl RestartOnlySettings {
    fn of(config: &Config) -> RestartOnlySettings {
        RestartOnlySettings {
            socket: config.socket.clone(),
            state: config.state.clone(),
            metrics: config.metrics.clone(),
            hardening: config.hardening.clone(),
        }
    }
}

/// Without its launcher the agent ends, as by a signal, but with a failure. Says whether that was so.
fn end_with(launcher: &Launcher) -> std::io::Result<Arc<AtomicBool>> {
    let lost = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&lost);
    launcher.watch(move || {
        flag.store(true, Ordering::Release);
        log::warn("the launcher ended: the agent ends, too");
        let _ = signal_hook::low_level::raise(SIGTERM); // it is handled
    })?;
    Ok(lost)
}

/// Puts the configuration as it is now in force, unless it has a fault. Says how many identities it has.
fn reload(
    path: &Path,
    fixed: &RestartOnlySettings,
    agent: &Agent,
) -> Result<usize, Box<dyn StdError>> {
    let config = load_without_faults(path, agent.accounts(), Looker::Agent(agent.sandbox()))?;
    if RestartOnlySettings::of(&config) != *fixed {
        log::warn(
            "another socket, state directory, place for metrics or hardening takes effect when the agent is restarted",
        );
    }
    descriptors::allow_for(config.limits.connections)?;
    config.warnings().for_each(|warning| log::warn(&warning));
    let count = config.identities.len();
    agent.reload(config)?;
    Ok(count)
}

/// Finishes what is under way, then closes the tokens.
fn end(listener: &Listener, agent: &Agent) {
    log::info("ending");
    listener.stop();
    if agent.metrics.has_connections() {
        std::thread::sleep(LAST_CALL);
    }
    let unfinished = agent.drain(Instant::now() + DRAIN_DEADLINE);
    if unfinished > 0 {
        log::warn(&format!("{unfinished} requests were not finished in time"));
    }
    agent.close(CLOSE_LIMIT, Instant::now() + TRY_DEADLINE);
    agent.drain(Instant::now() + LAST_WORDS);
}

/// Says what is wrong with each identity, as far as it shows without its token.
fn check(arguments: &Arguments) -> Result<(), Failure> {
    let path = &arguments.config;
    let viewpoint = Viewpoint::take(arguments.user.as_deref()).map_err(Failure::other)?;
    let config = load_without_faults(path, &SystemUsers, Looker::Command(&viewpoint))
        .map_err(|failure| failure.seen_by(&viewpoint))?;
    for warning in check::warnings(&config, &viewpoint) {
        eprintln!("roleseal-agent: warning: {warning}");
    }
    let count = match config.identities.len() {
        1 => "1 identity".to_owned(),
        count => format!("{count} identities"),
    };
    println!("{}: {count}, no fault found ({viewpoint})", path.display());
    Ok(())
}

fn load_without_faults(
    path: &Path,
    users: &dyn UserDatabase,
    looker: Looker,
) -> Result<Config, Failure> {
    let config = Config::load(path, users)?;
    let faults = check::faults(&config, looker);
    if faults.is_empty() {
        return Ok(config);
    }
    let faults = faults.join("\n  ");
    Err(Failure::Configuration(format!(
        "{}:\n  {faults}",
        path.display()
    )))
}
