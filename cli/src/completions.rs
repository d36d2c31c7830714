//! `roleseal completions` and `roleseal man`: what shells and readers of manuals know of the command line.

use std::io;
use std::path::{Path, PathBuf};

use clap::Command;
use clap_complete::Shell;
use client::Diagnostic;
use client::exit::Exit;
use thiserror::Error;

use crate::output::{self, OutputError};

/// Why a shell or a reader gets nothing.
#[derive(Debug, Error)]
pub(crate) enum CompletionsError {
    #[error("cannot write the manual to {}: {error}", .directory.display())]
    Manual {
        directory: PathBuf,
        error: io::Error,
    },
    #[error(transparent)]
    Output(#[from] OutputError),
}

impl Diagnostic for CompletionsError {
    fn exit(&self) -> Exit {
        Exit::Failed
    }
}

/// Prints the script that makes a shell complete `roleseal`.
pub(crate) fn print(mut roleseal: Command, shell: Shell) -> Result<(), CompletionsError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut roleseal, "roleseal", &mut script);
    Ok(output::print_text(&String::from_utf8_lossy(&script))?)
}

/// Writes the manual pages, one for each command, into a directory that is there.
pub(crate) fn write_manual(roleseal: Command, directory: &Path) -> Result<(), CompletionsError> {
    clap_mangen::generate_to(roleseal, directory).map_err(|error| CompletionsError::Manual {
        directory: directory.to_owned(),
        error,
    })
}
