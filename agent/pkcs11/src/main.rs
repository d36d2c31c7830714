//! The token program for PKCS#11: `roleseal-agent` starts one for each token, over a socketpair that is
//! its standard input. The only program of ours that loads a PKCS#11 module.

mod certificate;
mod der;
mod error;
mod find;
mod key;
mod login;
mod open;
mod properties;
mod raw;
mod slot;

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::process::ExitCode;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

const ABOUT: &str = concat!(
    "roleseal-pkcs11 ",
    env!("CARGO_PKG_VERSION"),
    ": signs with keys on a PKCS#11 token, for roleseal-agent.\n",
    "The agent starts it by itself; there is nothing to run by hand."
);

fn main() -> ExitCode {
    if std::env::args_os().len() > 1 {
        return about();
    }
    if let Err(error) = keep_secrets_in() {
        eprintln!("roleseal-pkcs11: cannot keep the PIN out of core dumps: {error}");
        return ExitCode::FAILURE;
    }
    if !stdin_is_a_socket() {
        eprintln!("{ABOUT}");
        return ExitCode::from(2);
    }
    match token::host::serve(open::open) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("roleseal-pkcs11: lost the agent: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Before anything is read: the PIN will be in this process.
fn keep_secrets_in() -> io::Result<()> {
    let no_core = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, no_core)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

fn stdin_is_a_socket() -> bool {
    let stdin = io::stdin().as_fd().try_clone_to_owned().map(File::from);
    let metadata = stdin.and_then(|stdin| stdin.metadata());
    metadata.is_ok_and(|metadata| metadata.file_type().is_socket())
}

fn about() -> ExitCode {
    let argument = std::env::args_os().nth(1).unwrap_or_default();
    if argument == "--help" || argument == "--version" {
        println!("{ABOUT}");
        return ExitCode::SUCCESS;
    }
    eprintln!("{ABOUT}");
    ExitCode::from(2)
}
