//! `roleseal`: temporary AWS credentials from a key that stays in its HSM or TPM.
//!
//! The path of `roleseal credential-process`: [`arguments`] become a [`request`], the [`agent`]
//! signs it, [`http`] sends it, AWS's answer becomes [`credentials`] or an [`aws_refusal`], and
//! [`output`] hands the credentials to the AWS tool that asked.

mod agent;
mod arguments;
mod aws_refusal;
mod credential_process;
mod credentials;
mod environment;
mod error;
mod exit;
mod http;
mod identities;
mod output;
mod request;

use std::process::ExitCode;

use clap::Parser;

use arguments::{Arguments, Command};
use error::Error;

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::report(&error);
            error.exit().into()
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Error> {
    let socket = environment::socket(arguments.socket);
    match arguments.command {
        Command::CredentialProcess(session) => {
            let ca_bundle = environment::ca_bundle(session.ca_bundle.clone());
            let request = session.check().unwrap_or_else(|error| error.exit());
            credential_process::run(&socket, ca_bundle.as_deref(), &request)
        }
        Command::Identities { json } => identities::run(&socket, json),
    }
}
