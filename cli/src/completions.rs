//! `roleseal completions` and `roleseal man`: what shells and readers of manuals know of the command line.

use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::arguments::Arguments;
use crate::error::Error;
use crate::output;

/// Prints the script that makes a shell complete `roleseal`.
pub(crate) fn print(shell: Shell) -> Result<(), Error> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "roleseal", &mut script);
    Ok(output::print_text(&String::from_utf8_lossy(&script))?)
}

/// Writes the manual pages, one for each command, into a directory that is there.
pub(crate) fn write_manual(directory: &Path) -> Result<(), Error> {
    clap_mangen::generate_to(Arguments::command(), directory).map_err(|error| Error::Manual {
        directory: directory.to_owned(),
        error,
    })
}
