//! `hsm-fixtures`: the whole of roleseal on one machine, or the pieces alone.

mod demo;
mod identify;
mod interrupt;
mod lab;
mod pieces;
mod session;
mod spy_log;
mod up;
mod usage;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use interrupt::Interrupt;

/// SoftHSM, a small PKI and a strict local IAM Roles Anywhere, to see roleseal work and to judge it.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start token, PKI, service and agent, get credentials, prove them, tell what they cost, and end.
    Demo,
    /// Start token, PKI, service and agent, print how to use them, and stay until Ctrl-C.
    Up {
        /// A new or empty directory to live in, kept at the end; by default a temporary one.
        #[arg(long)]
        dir: Option<PathBuf>,
        /// Put pkcs11-spy before SoftHSM; it logs each PKCS#11 call, PINs included, to spy.log.
        #[arg(long)]
        spy: bool,
    },
    /// Make a SoftHSM store with one token, and keys on it.
    Softhsm(pieces::SoftHsmArguments),
    /// Make a root and an intermediate CA, or issue a certificate from them.
    Pki(pieces::PkiArguments),
    /// Run the local Roles Anywhere and STS from a TOML file until Ctrl-C, and log each decision.
    Service {
        /// The configuration; `hsm-fixtures pki` makes the certificates that it names.
        #[arg(long)]
        config: PathBuf,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hsm-fixtures: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    let interrupt = Interrupt::install()?;
    match command {
        Command::Demo => demo::run(&interrupt),
        Command::Up { dir, spy } => up::run(&interrupt, dir.as_deref(), spy),
        Command::Softhsm(arguments) => pieces::softhsm(&arguments),
        Command::Pki(arguments) => pieces::pki(&arguments),
        Command::Service { config } => pieces::service(&interrupt, &config),
    }
}
