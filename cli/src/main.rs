//! `roleseal`: temporary AWS credentials from a key that stays in its HSM or TPM.
//!
//! [`arguments`] are given to the command that they name; most commands have a file or folder of that name. What
//! they share is in [`common`], [`endpoint`] and [`credentials_file`], and the crate `client` brings them a session.
//! The error of each command is a [`Diagnostic`]: what failed, a hint, and the exit code.

mod arguments;
mod aws_setup;
mod aws_variables;
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
mod identities;
mod identity_table;
mod inspect;
mod moved;
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
use client::exit::Exit;
use client::{Diagnostic, progress};

use arguments::{Arguments, Command};

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => match moved::hint(&error) {
            Some(hint) => {
                progress::note(&hint);
                return Exit::Usage.into();
            }
            None => error.exit(),
        },
    };
    match run(arguments) {
        Ok(code) => code,
        Err(error) => {
            progress::note(&error.report());
            error.exit().into()
        }
    }
}

fn run(arguments: Arguments) -> Result<ExitCode, Box<dyn Diagnostic>> {
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
