//! Arguments, configuration, hardening; then opens the tokens, listens, and waits for signals.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use roleseal_agent::agent::Agent;
use roleseal_agent::config::{Config, MetricsAddress};
use roleseal_agent::listener::Listener;
use roleseal_agent::metrics::Server;
use roleseal_agent::watch::Watch;
use roleseal_agent::{audit, check, harden};
use sd_notify::NotifyState;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Signs AWS IAM Roles Anywhere requests with keys that stay in their HSM or TPM
///
/// Runs in the foreground, logs to standard error and serves at its Unix socket until SIGTERM or
/// SIGINT. It opens each token once, with a PIN that only the token program reads. SIGHUP makes it
/// read the configuration and the certificates again; a configuration with a fault changes nothing.
///
/// Exit status: 0 ended by a signal, or the configuration is valid; 1 it is not, or the agent cannot
/// start; 2 wrong arguments.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Arguments {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = "/etc/roleseal/agent.toml")]
    config: PathBuf,

    /// Check the configuration, PIN files and certificate files, then exit; no token is touched
    #[arg(long)]
    check: bool,

    /// How the log on standard error is written
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = audit::Format::Text)]
    log_format: audit::Format,
}

/// How long requests that are under way at the end may take: a signature takes a second at the most.
/// systemd waits 15 s for all (TimeoutStopSec=).
const DRAIN_DEADLINE: Duration = Duration::from_secs(5);

/// How long the tokens may take to close after that.
const CLOSE_DEADLINE: Duration = Duration::from_secs(4);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = if arguments.check {
        check(&arguments.config).inspect_err(|error| eprintln!("roleseal-agent: {error}"))
    } else {
        serve(&arguments).inspect_err(|error| audit::error(&error.to_string()))
    };
    audit::flush();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn serve(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    harden::harden()?; // before any thread: some of it is a thread's own
    audit::start(arguments.log_format)?;
    let path = &arguments.config;
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let config = Config::load(path)?;
    harden::allow_descriptors(config.limits.connections)?;
    let bound = (config.socket.clone(), config.metrics.clone());
    // Before any token is opened: a second agent must not try the first one's PINs.
    let listener = Arc::new(Listener::bind(&config.socket, config.serves_others())?);
    audit::info(&format!("listening at {}", listener.address()));
    let scrapes = config.metrics.as_ref().map(Server::bind).transpose()?;
    // Beside our own, never from the environment.
    let own = std::env::current_exe()?;
    let programs = own.parent().ok_or("no directory holds this program")?;
    let agent = Arc::new(Agent::start(config, programs)?);
    let watch = Watch::start(&agent)?;
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
        match reload(path, &bound, &agent) {
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
    Ok(())
}

/// Puts the configuration as it is now in force, unless it has a fault. Says how many identities it has.
fn reload(
    path: &Path,
    (socket, metrics): &(PathBuf, Option<MetricsAddress>),
    agent: &Agent,
) -> Result<usize, Box<dyn Error>> {
    let config = load_without_faults(path)?;
    if config.socket != *socket || config.metrics != *metrics {
        audit::warn(
            "another socket, or place for metrics, takes effect when the agent is restarted",
        );
    }
    harden::allow_descriptors(config.limits.connections)?;
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
}

/// Says what is wrong with each identity, as far as it shows without its token.
fn check(path: &Path) -> Result<(), Box<dyn Error>> {
    let config = load_without_faults(path)?;
    let count = config.identities.len();
    println!("{}: {count} identities, no fault found", path.display());
    Ok(())
}

fn load_without_faults(path: &Path) -> Result<Config, Box<dyn Error>> {
    let config = Config::load(path)?;
    let faults = check::faults(&config);
    if faults.is_empty() {
        return Ok(config);
    }
    Err(format!("{}:\n  {}", path.display(), faults.join("\n  ")).into())
}
