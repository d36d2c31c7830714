//! Arguments, hardening, launcher, configuration; then opens the tokens, listens, and waits for the end.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use jiff::Timestamp;
use roleseal_agent::accounts::Accounts;
use roleseal_agent::config::{CertificateSource, Config, TokenKind};
use roleseal_agent::identity::{Identities, load_certificate};
use roleseal_agent::launcher::Launcher;
use roleseal_agent::listener::Listener;
use roleseal_agent::sandbox::{Files, Sandbox};
use roleseal_agent::{audit, certificate, harden, launcher};
use sd_notify::NotifyState;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Signs AWS IAM Roles Anywhere requests with keys that stay in their HSM or TPM
///
/// Runs in the foreground, logs to standard error and serves at its Unix socket until SIGTERM or
/// SIGINT. It opens each token once, with a PIN that only the token program reads.
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
}

/// How long the tokens may take to close at the end.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);

/// How long the launcher may take after that: its token programs have ended.
const LAUNCHER_DEADLINE: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    if launcher::is_asked_for() {
        return launcher::main();
    }
    let arguments = Arguments::parse();
    let result = if arguments.check {
        check(&arguments.config)
    } else {
        serve(&arguments.config)
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("roleseal-agent: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(path: &Path) -> Result<(), Box<dyn Error>> {
    harden::harden()?;
    let launcher =
        Launcher::start().map_err(|error| format!("cannot start its launcher: {error}"))?;
    let accounts = Accounts::Launcher(launcher.clone());
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let config = Config::load(path, &accounts)?;
    // Before any token is opened: a second agent must not try the first one's PINs.
    let listener = Arc::new(Listener::bind(&config.socket, config.serves_others())?);
    audit::info(&format!("listening at {}", listener.address()));
    // Before there is another thread, which would stay free.
    let mut files = Files::of(path, &config);
    if let Some(socket) = listener.path() {
        files.remove(socket);
    }
    let sandbox = Arc::new(Sandbox::enter(&files, &config.hardening)?);
    let lost = watch(&launcher)?;
    let programs = launcher.token_programs(config.hardening.token_programs);
    let identities = Arc::new(Identities::start(config, &programs, &sandbox)?);
    sd_notify::notify(&[NotifyState::Ready])?;
    std::thread::spawn({
        let (listener, identities) = (Arc::clone(&listener), Arc::clone(&identities));
        move || listener.run(&identities, &accounts)
    });
    while signals.forever().next() == Some(SIGHUP) {
        audit::warn("SIGHUP is of no effect: restart the agent to apply a changed configuration");
    }
    audit::info("ending");
    listener.remove();
    identities.close(Instant::now() + CLOSE_DEADLINE);
    if lost.load(Ordering::Acquire) {
        return Err("its launcher ended: without it there are no token programs".into());
    }
    launcher.close(Instant::now() + LAUNCHER_DEADLINE);
    Ok(())
}

/// Without its launcher the agent ends, as by a signal, but with a failure. Says whether that was so.
fn watch(launcher: &Launcher) -> std::io::Result<Arc<AtomicBool>> {
    let lost = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&lost);
    launcher.watch(move || {
        flag.store(true, Ordering::Release);
        audit::warn("the launcher ended: the agent ends, too");
        let _ = signal_hook::low_level::raise(SIGTERM); // it is handled
    })?;
    Ok(lost)
}

/// Says what is wrong with each identity, as far as it shows without its token.
fn check(path: &Path) -> Result<(), Box<dyn Error>> {
    let config = Config::load(path, &Accounts::Own)?;
    let mut faults = Vec::new();
    for token in &config.tokens {
        if let TokenKind::Pkcs11(token) = &token.kind
            && token.module.is_absolute()
            && !token.module.exists()
        {
            let module = token.module.display();
            faults.push(format!("PKCS#11 module {module} does not exist"));
        }
    }
    for pin in config.pins() {
        if let Err(error) = pin.check() {
            faults.push(error.to_string());
        }
    }
    for identity in &config.identities {
        let checked = match &identity.certificate {
            source @ CertificateSource::File(_) => {
                check_certificate(source, identity.chain.as_ref())
            }
            CertificateSource::Token(_) => identity.chain.as_deref().map_or(Ok(()), check_chain),
        };
        if let Err(error) = checked {
            faults.push(format!("identity {:?}: {error}", identity.name));
        }
    }
    if faults.is_empty() {
        let count = config.identities.len();
        println!("{}: {count} identities, no fault found", path.display());
        return Ok(());
    }
    Err(format!("{}:\n  {}", path.display(), faults.join("\n  ")).into())
}

fn check_certificate(source: &CertificateSource, chain: Option<&PathBuf>) -> Result<(), String> {
    let certificate = load_certificate(source, chain, None)?;
    certificate
        .check_validity(Timestamp::now())
        .map_err(|error| format!("its certificate: {error}"))
}

fn check_chain(path: &Path) -> Result<(), String> {
    certificate::read_pem(path)
        .map(drop)
        .map_err(|error| format!("{}: {error}", path.display()))
}
