//! `hsm-fixtures`: the whole of roleseal on one machine, or the pieces alone.

mod cost;
mod demo;
mod identify;
mod interrupt;
mod lab;
mod local_service;
mod pieces;
mod session;
mod spy_log;
mod up;
mod usage;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use interrupt::Interrupt;

/// SoftHSM, swtpm, a small PKI and a strict local IAM Roles Anywhere, to see roleseal work and to judge it.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start token, PKI, service and agent, get credentials, prove them, tell what they cost, and end. Where
    /// roleseal-tpm has been built, a TPM takes part.
    Demo,
    /// Start token, PKI, service and agent, print how to use them, and stay until Ctrl-C.
    Up {
        /// A new or empty directory to live in, kept at the end; by default a temporary one.
        #[arg(long)]
        dir: Option<PathBuf>,
        /// Put pkcs11-spy before SoftHSM; it logs each PKCS#11 call, PINs included, to spy.log.
        #[arg(long)]
        spy: bool,
        /// Add a TPM (swtpm) with a key, as the identity web-tpm; it takes roleseal-tpm.
        #[arg(long)]
        tpm: bool,
    },
    /// Make a SoftHSM store with one token, and keys on it.
    Softhsm(pieces::SoftHsmArguments),
    /// Run a TPM (swtpm) in a new directory until Ctrl-C, with keys made on it.
    Tpm(pieces::TpmArguments),
    /// Make a root and an intermediate CA, or issue a certificate from them.
    Pki(pieces::PkiArguments),
    /// Run the local Roles Anywhere and STS from a TOML or JSON file until Ctrl-C, and log each decision.
    Service(local_service::ServiceArguments),
    /// Tell how the service of such a file would decide, without a request; the exit code is 1 where it would refuse.
    Explain(local_service::ExplainArguments),
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("hsm-fixtures: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Demo => demo::run(&Interrupt::install()?),
        Command::Up { dir, spy, tpm } => {
            let dir = dir.as_deref();
            let wish = lab::Wish {
                dir,
                spy,
                tpm,
                verbose: true,
            };
            up::run(&Interrupt::install()?, &wish)
        }
        Command::Softhsm(arguments) => pieces::softhsm(&arguments),
        Command::Tpm(arguments) => pieces::tpm(&Interrupt::install()?, &arguments),
        Command::Pki(arguments) => pieces::pki(&arguments),
        Command::Service(arguments) => local_service::service(&arguments),
        Command::Explain(arguments) => return local_service::explain(&arguments),
    }?;
    Ok(ExitCode::SUCCESS)
}
