//! Measures on this machine, in one run: what a token signs alone, what the same token signs through the
//! agent, and what agent, token programs and CLI cost. Prints tables, and writes them to a file.

mod calls;
mod cli;
mod client;
mod lab;
mod machine;
mod memory;
mod process;
mod processor;
mod raw;
mod report;
mod startup;
mod stats;
mod targets;
mod throughput;
mod verification;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::lab::Lab;
use crate::report::Report;

/// Measures roleseal on this machine
#[derive(Parser)]
struct Arguments {
    /// Where the tables go
    #[arg(default_value = "docs/benchmarks.md")]
    file: PathBuf,
    #[command(subcommand)]
    command: Option<Raw>,
}

/// The other process, which has the token to itself.
#[derive(Subcommand)]
enum Raw {
    /// Signs by C_SignInit and C_Sign; measurements are asked for on standard input
    #[command(hide = true)]
    RawPkcs11(raw::pkcs11::Arguments),
    /// Signs by TPM2_Sign; measurements are asked for on standard input
    #[command(hide = true)]
    RawTpm(raw::tpm::Arguments),
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match arguments.command {
        None => measure(&arguments.file),
        Some(Raw::RawPkcs11(arguments)) => raw::pkcs11::run(&arguments),
        Some(Raw::RawTpm(arguments)) => raw::tpm::run(&arguments),
    }
}

fn measure(file: &Path) -> Result<()> {
    let mut files = getrlimit(Resource::Nofile);
    files.current = files.maximum; // a thousand clients are in this process
    setrlimit(Resource::Nofile, files)?;
    let mut report = Report::new(machine::describe()?)?;
    report.step("keys, certificates, service")?;
    let lab = Lab::new()?;
    throughput::measure(&lab, &mut report)?;
    processor::measure(&lab, &mut report)?;
    verification::measure(&lab, &mut report)?;
    calls::measure(&lab, &mut report)?;
    cli::measure(&lab, &mut report)?;
    startup::measure(&lab, &mut report)?;
    memory::measure(&lab, &mut report)?;
    let text = report.text();
    println!("{text}");
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    eprintln!("written to {}", file.display());
    Ok(())
}
