//! `roleseal-admin`: makes keys on tokens, requests and stores their certificates, enrolls identities, renews
//! certificates and has refused PINs tried again. The daemon has no part in it.
//!
//! Each command hands its tasks to a token program of its own (`token_program`), which was started to do an
//! administrator's tasks and signs nothing else. Neither the daemon, nor its launcher, nor anything that comes through
//! the agent's socket can have them done.

mod agent;
pub mod arguments;
mod attest;
mod attestation;
mod cert;
mod command;
mod csr;
mod enroll;
mod failure;
mod handle;
mod input;
mod key;
mod key_choice;
mod lock;
mod new_certificate;
mod new_file;
mod new_key;
mod new_request;
mod output;
mod owner;
mod pin;
mod pins;
mod renew;
mod replace_file;
mod report;
mod signed_request;
mod token_key;
mod token_program;
mod tpm_structures;

use std::process::ExitCode;

use clap::Parser;

use arguments::Arguments;
use failure::Failure;

/// What clap ends with, too.
const USAGE: u8 = 2;

/// The program: reads the command line, runs the command, and turns a failure into an exit status and a text.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = token::program::harden_process()
        .map_err(|error| Failure::failed(format!("cannot harden this process: {error}")))
        .and_then(|()| arguments.run());
    let Err(failure) = done else {
        return ExitCode::SUCCESS;
    };
    match failure {
        Failure::Interrupted(signal) => {
            // So that a shell sees it; it does not come back.
            let _ = signal_hook::low_level::emulate_default_handler(signal);
            ExitCode::FAILURE
        }
        Failure::Usage(_) => {
            output::note(&failure.to_string());
            ExitCode::from(USAGE)
        }
        Failure::Told => ExitCode::FAILURE,
        Failure::Failed(_) | Failure::Token(_) => {
            output::note(&failure.to_string());
            ExitCode::FAILURE
        }
    }
}
