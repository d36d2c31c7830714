//! Arguments, hardening, launcher, configuration; then confines itself, opens the tokens, listens, and waits
//! for signals.

use std::error::Error as StdError;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use roleseal_agent::accounts::Accounts;
use roleseal_agent::agent::Agent;
use roleseal_agent::check::{Looker, Viewpoint};
use roleseal_agent::config::{Config, ConfigError, Hardening, MetricsAddress};
use roleseal_agent::launcher::Launcher;
use roleseal_agent::listener::Listener;
use roleseal_agent::metrics::Server;
use roleseal_agent::panics::{INTERNAL_ERROR, contain};
use roleseal_agent::sandbox::{Files, Sandbox};
use roleseal_agent::watch::Watch;
use roleseal_agent::{audit, check, descriptors, launcher, listener, operator, renewal};
use sd_notify::NotifyState;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use thiserror::Error;
use wire::Refusal;

/// Signs AWS IAM Roles Anywhere requests with keys that stay in their HSM or TPM
///
/// Runs in the foreground, logs to standard error and serves at its Unix socket until SIGTERM or
/// SIGINT. It opens each token once, with a PIN that only the token program reads. SIGHUP makes it
/// read the configuration and the certificates again; a configuration with a fault changes nothing.
///
/// The commands are an operator's, and need no agent: they make keys on tokens, requests for their
/// certificates, and end.
///
/// Exit status: 0 ended by a signal, the configuration is valid, or the command is done; 1 the agent
/// cannot start, or the command failed; 2 wrong arguments; 78 the configuration has a fault.
#[derive(Parser)]
#[command(version, max_term_width = 100, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(flatten)]
    operator: operator::Arguments,

    /// The configuration
    #[arg(long, value_name = "FILE", default_value = "/etc/roleseal/agent.toml")]
    config: PathBuf,

    /// Check the configuration, PIN files and certificate files, then exit; no token is touched. Run by root, it
    /// looks as the agent's user, and says so
    #[arg(long)]
    check: bool,

    /// Check as this user [default: the user of roleseal-agent.service, if root runs this]
    #[arg(long, value_name = "USER", requires = "check")]
    user: Option<String>,

    /// How the log on standard error is written
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = audit::Format::Text)]
    log_format: audit::Format,
}

/// How long requests that are under way at the end may take: a signature takes a second at the most.
/// systemd waits 15 s for all (TimeoutStopSec=).
const DRAIN_DEADLINE: Duration = Duration::from_secs(5);

/// How long the tokens may take to close after that.
const CLOSE_DEADLINE: Duration = Duration::from_secs(4);

/// How long the launcher may take after that: its token programs have ended.
const LAUNCHER_DEADLINE: Duration = Duration::from_secs(2);
/// How long the refusals of what the end has overtaken may take to leave.
const LAST_WORDS: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    if let Some(config) = launcher::is_asked_for() {
        return launcher::main(config);
    }
    let arguments = Arguments::parse();
    if let Some(done) = operator::run(&arguments.operator) {
        return done;
    }
    let result = if arguments.check {
        check(&arguments).inspect_err(|failure| eprintln!("roleseal-agent: {failure}"))
    } else {
        serve(&arguments).inspect_err(|failure| {
            audit::error(&failure.to_string());
            if let Failure::Configuration(_) = failure {
                not_configured(failure);
            }
        })
    };
    audit::flush();
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
    let _ = sd_notify::notify(&[NotifyState::Status(&failure.to_string())]); // there may be none
    listener::refuse_waiting(&Refusal::NotConfigured {
        message: "the configuration of roleseal-agent has a fault: an administrator sees it with \
                  `systemctl status roleseal-agent`"
            .to_owned(),
    });
}

fn serve(arguments: &Arguments) -> Result<(), Failure> {
    let (launcher, signals) = start(arguments)?;
    let accounts = Accounts::Launcher(launcher.clone());
    let config = Config::load(&arguments.config, &accounts)?;
    Ok(serve_with(config, &arguments.config, launcher, signals)?)
}

/// What comes before anything is read.
fn start(arguments: &Arguments) -> Result<(Launcher, Signals), Box<dyn StdError>> {
    token::program::keep_secrets_in()?; // before any thread: some of it is a thread's own
    audit::start(arguments.log_format);
    let launcher = Launcher::start(&arguments.config)
        .map_err(|error| format!("cannot start its launcher: {error}"))?;
    Ok((launcher, Signals::new([SIGTERM, SIGINT, SIGHUP])?))
}

fn serve_with(
    config: Config,
    path: &Path,
    launcher: Launcher,
    mut signals: Signals,
) -> Result<(), Box<dyn StdError>> {
    let accounts = Accounts::Launcher(launcher.clone());
    descriptors::allow_for(config.limits.connections)?;
    let fixed = Fixed::of(&config);
    // Before any token is opened: a second agent must not try the first one's PINs.
    let listener = Arc::new(Listener::bind(&config.socket, config.serves_others())?);
    audit::info(&format!("listening at {}", listener.address()));
    let scrapes = config.metrics.as_ref().map(Server::bind).transpose()?;
    // Before there is another thread, which would stay free.
    let mut files = Files::of(path, &config);
    if let Some(socket) = listener.path() {
        files.remove(socket);
    }
    let sandbox = Sandbox::enter(&files, &config.hardening)?;
    audit::write_in_thread()?;
    let lost = end_with(&launcher)?;
    let programs = launcher.token_programs(config.hardening.token_programs);
    let agent = Arc::new(Agent::start(config, programs, accounts, sandbox)?);
    let watch = Watch::start(&agent)?;
    renewal::Timer::start(&agent, launcher.clone())?;
    if let Some(server) = &scrapes {
        server.start(&agent)?;
        audit::info(&format!("metrics at {}", server.address()));
    }
    sd_notify::notify(&[NotifyState::Ready])?;
    std::thread::spawn({
        let (listener, agent) = (Arc::clone(&listener), Arc::clone(&agent));
        move || listener.run(&agent)
    });
    while signals.forever().next() == Some(SIGHUP) {
        let reloading = [NotifyState::Reloading, NotifyState::monotonic_usec_now()?];
        let _ = sd_notify::notify(&reloading); // systemd may have gone
        let reloaded = contain(|| reload(path, &fixed, &agent));
        match reloaded.unwrap_or_else(|| Err(INTERNAL_ERROR.into())) {
            Ok(count) => audit::info(&format!("reloaded: {count} identities")),
            Err(error) => audit::warn(&format!(
                "not reloaded: {error}; the configuration of before stays in force"
            )),
        }
        watch.look_now();
        let _ = sd_notify::notify(&[NotifyState::Ready]);
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
struct Fixed {
    socket: PathBuf,
    metrics: Option<MetricsAddress>,
    hardening: Hardening,
}

impl Fixed {
    fn of(config: &Config) -> Fixed {
        Fixed {
            socket: config.socket.clone(),
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
        audit::warn("the launcher ended: the agent ends, too");
        let _ = signal_hook::low_level::raise(SIGTERM); // it is handled
    })?;
    Ok(lost)
}

/// Puts the configuration as it is now in force, unless it has a fault. Says how many identities it has.
fn reload(path: &Path, fixed: &Fixed, agent: &Agent) -> Result<usize, Box<dyn StdError>> {
    let config = load_without_faults(path, agent.accounts(), Looker::Agent(agent.sandbox()))?;
    if Fixed::of(&config) != *fixed {
        audit::warn(
            "another socket, place for metrics or hardening takes effect when the agent is restarted",
        );
    }
    descriptors::allow_for(config.limits.connections)?;
    let count = config.identities.len();
    agent.reload(config)?;
    Ok(count)
}

/// Finishes what is under way, then closes the tokens.
fn end(listener: &Listener, agent: &Agent) {
    audit::info("ending");
    listener.stop();
    let unfinished = agent.drain(Instant::now() + DRAIN_DEADLINE);
    if unfinished > 0 {
        audit::warn(&format!("{unfinished} requests were not finished in time"));
    }
    agent.close(Instant::now() + CLOSE_DEADLINE);
    agent.drain(Instant::now() + LAST_WORDS);
}

/// Says what is wrong with each identity, as far as it shows without its token.
fn check(arguments: &Arguments) -> Result<(), Failure> {
    let path = &arguments.config;
    let viewpoint = Viewpoint::take(arguments.user.as_deref()).map_err(Failure::other)?;
    let config = load_without_faults(path, &Accounts::Own, Looker::Command(&viewpoint))
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
    accounts: &Accounts,
    looker: Looker,
) -> Result<Config, Failure> {
    let config = Config::load(path, accounts)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn daemon_and_commands_have_one_grammar() {
        Arguments::command().debug_assert();
        for (line, taken) in [
            (&["x"][..], true),
            (&["x", "--config", "f", "--check"], true),
            (&["x", "key", "list"], true),
            (&["x", "--check", "key", "list"], false),
            (&["x", "key", "list", "--check"], false),
            (&["x", "keys"], false),
        ] {
            assert_eq!(Arguments::try_parse_from(line).is_ok(), taken, "{line:?}");
        }
    }
}
