//! The operator's commands of `roleseal-agent`: keys are made, listed and deleted, certificate requests signed
//! and attested, certificates stored.
//!
//! They are no part of the daemon, and need none: each hands its tasks to a token program of its own
//! (`program`), which was started to do an operator's tasks and signs nothing else. Neither the daemon, nor its
//! launcher, nor anything that comes through the agent's socket can have them done.

mod arguments;
mod attest;
mod attestation;
mod cert;
mod csr;
mod enroll;
mod handle;
mod key;
mod key_choice;
mod new_file;
mod new_request;
pub(crate) mod output;
mod owner;
mod pins;
mod program;
mod report;
mod token_key;
mod tpm_structures;

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use rustix::fs::OFlags;
use thiserror::Error;
use token::TokenError;

use arguments::Command;
use new_file::NewFile;

/// An operator's command, where there is one.
#[derive(Debug, Args)]
#[group(skip)] // its name is the daemon's
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

/// Why a command failed: what, on what, and what to do.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    /// The arguments are wrong, or do not fit together.
    #[error("{0}")]
    Usage(String),
    /// Something was not done.
    #[error("{0}")]
    Failed(String),
    /// A token program's word.
    #[error(transparent)]
    Token(TokenError),
    /// A signal ended it.
    #[error("ended by signal {0}")]
    Interrupted(i32),
}

/// What clap ends with, too.
const USAGE: u8 = 2;

/// Runs the command; `None` where there is none, and the daemon is meant.
pub fn run(arguments: &Arguments) -> Option<ExitCode> {
    Some(carry_out(arguments.command.as_ref()?))
}

fn carry_out(command: &Command) -> ExitCode {
    let done = token::program::keep_secrets_in()
        .map_err(|error| Failure::failed(format!("cannot keep secrets in: {error}")))
        .and_then(|()| command.run());
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
        Failure::Failed(_) | Failure::Token(_) => {
            output::note(&failure.to_string());
            ExitCode::FAILURE
        }
    }
}

impl Failure {
    /// Something was not done.
    pub(crate) fn failed(text: impl Into<String>) -> Failure {
        Failure::Failed(text.into())
    }

    /// The arguments are at fault.
    pub(crate) fn usage(text: impl Into<String>) -> Failure {
        Failure::Usage(text.into())
    }
}

/// The largest file that is read, in bytes: a bundle of some hundred CAs.
const FILE_LIMIT: u64 = 1024 * 1024;

/// A file's bytes.
fn read_file(path: &Path) -> Result<Vec<u8>, Failure> {
    let fault = |what: String| Failure::failed(format!("cannot read {}: {what}", path.display()));
    let file = File::options()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed()) // a FIFO would hold us
        .open(path)
        .map_err(|error| fault(error.to_string()))?;
    let metadata = file.metadata().map_err(|error| fault(error.to_string()))?;
    if !metadata.is_file() || metadata.len() > FILE_LIMIT {
        return Err(fault(format!(
            "it is no file of at most {FILE_LIMIT} bytes"
        )));
    }
    let mut bytes = Vec::new();
    file.take(FILE_LIMIT)
        .read_to_end(&mut bytes)
        .map_err(|error| fault(error.to_string()))?;
    Ok(bytes)
}

/// A file's text.
fn read_text(path: &Path) -> Result<String, Failure> {
    String::from_utf8(read_file(path)?)
        .map_err(|_| Failure::failed(format!("{} is no text (UTF-8)", path.display())))
}
