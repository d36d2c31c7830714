//! `roleseal`: temporary AWS credentials from a key that stays in its HSM or TPM.
//!
//! The path of `roleseal credential-process`: [`arguments`] and the targets file become a [`target`];
//! [`sessions`] finds its session in the [`cache`] or asks for one by [`create_session`]: the [`agent`] signs
//! a [`request`], [`http`] sends it, AWS's answer becomes [`credentials`] or an [`aws_refusal`]; and
//! [`output`] hands the credentials to the AWS tool that asked.

mod agent;
mod answer;
mod arguments;
mod aws_refusal;
mod aws_setup;
mod binding;
mod cache;
mod certificate_source;
mod common;
mod completions;
mod create_session;
mod credential_process;
mod credentials;
mod credentials_file;
mod doctor;
mod endpoint;
mod env;
mod environment;
mod error;
mod exec;
mod exit;
mod failure;
mod http;
mod identities;
mod identity_words;
mod input;
mod inspect;
mod kept;
mod output;
mod policy_document;
mod progress;
mod proxy;
mod request;
mod retry;
mod serve;
mod session;
mod sessions;
mod status;
mod table;
mod target;
mod targets;
mod time_left;
mod trust_policy;
mod update;
mod within;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

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
