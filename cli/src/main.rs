//! `roleseal`: temporary AWS credentials from a key that stays in its HSM or TPM.
//!
//! [`arguments`] are given to the command that they name; most commands have a file or folder of that name. What
//! they share is in [`common`], [`endpoint`] and [`credentials_file`], and the crate `client` brings them a session.
//! [`failure`] knows the error of each command and its exit code.

mod arguments;
mod aws_setup;
mod binding;
mod certificate_source;
mod common;
mod completions;
mod credential_process;
mod credentials_file;
mod doctor;
mod endpoint;
mod env;
mod exec;
mod failure;
mod identities;
mod identity_words;
mod inspect;
mod output;
mod policy_document;
mod serve;
mod status;
mod table;
mod targets;
mod template;
#[cfg(test)]
mod test_support;
mod time_left;
mod trust_policy;
mod update;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use client::progress;

use arguments::{Arguments, Command};
use failure::Failure;

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(code) => code,
        Err(failure) => {
            progress::note(&failure.to_string());
            failure.exit().into()
        }
    }
}

fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let common = arguments.common;
    match arguments.command {
        Command::Exec(wanted) => return Ok(exec::run(&common, *wanted)?),
        Command::Doctor(wanted) => return Ok(doctor::run(&common, *wanted)?),
        Command::Serve(wanted) => serve::run(&common, wanted)?,
        Command::Status(wanted) => status::run(&common, &wanted)?,
        Command::CredentialProcess(session) => credential_process::run(&common, *session)?,
        Command::Env(session) => env::run(&common, *session)?,
        Command::Update(wanted) => update::run(&common, *wanted)?,
        Command::Targets { json } => targets::run(&common, json)?,
        Command::Completions { shell } => completions::print(Arguments::command(), shell)?,
        Command::Man { out } => completions::write_manual(Arguments::command(), &out)?,
        Command::TrustPolicy(wanted) => trust_policy::run(&common, wanted)?,
        Command::AwsSetup(wanted) => aws_setup::run(&common, &wanted)?,
        Command::Inspect(wanted) => inspect::run(&common, &wanted)?,
        Command::Identities { json } => identities::run(&common.socket(), json)?,
    }
    Ok(ExitCode::SUCCESS)
}
