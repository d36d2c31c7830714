//! Writes into the directory that is its argument the manual pages and completions of the programs that do not print
//! their own, so that they need not carry what writes them.

use std::error::Error;
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory, ValueEnum};
use clap_complete::Shell;
use clap_mangen::Man;

/// The manual's section for daemons and what only an administrator runs.
const SECTION: &str = "8";

fn main() -> Result<(), Box<dyn Error>> {
    let directory = std::env::args_os().nth(1).map(PathBuf::from);
    let directory = directory.ok_or("usage: roleseal-manual DIRECTORY")?;
    let programs = [
        roleseal_agent::arguments::Arguments::command(),
        roleseal_admin::arguments::Arguments::command(),
    ];
    for program in programs {
        write_completions(program.clone(), &directory)?;
        let mut program = program.disable_help_subcommand(true);
        program.build();
        write_pages(program, &directory)?;
    }
    Ok(())
}

fn write_completions(mut program: Command, directory: &Path) -> Result<(), Box<dyn Error>> {
    let name = program.get_name().to_owned();
    for &shell in Shell::value_variants() {
        clap_complete::generate_to(shell, &mut program, &name, directory)?;
    }
    Ok(())
}

/// Writes a page for the command and one for each of its commands.
fn write_pages(command: Command, directory: &Path) -> Result<(), Box<dyn Error>> {
    for inner in command.get_subcommands().filter(|one| !one.is_hide_set()) {
        write_pages(inner.clone(), directory)?;
    }
    Man::new(command).section(SECTION).generate_to(directory)?;
    Ok(())
}
