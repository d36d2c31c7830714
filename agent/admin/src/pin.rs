//! `roleseal-admin pin`: PINs that the agent does not try again.

use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use config::pin_records::{Found, FoundKey, PinRecord, PinRecords, state_directories};
use config::user_database::SystemUsers;
use config::{Config, IdentityName};
use rustix::process::geteuid;

use crate::agent;
use crate::failure::Failure;
use crate::output;
use crate::owner::agents_user;

/// What is done about PINs.
#[derive(Debug, Subcommand)]
pub(crate) enum PinCommand {
    /// Have the agent try an identity's refused PIN once more
    ///
    /// The agent tries a PIN once: after a refusal, or a try without an answer, it tries the same PIN neither at a
    /// reload nor at a restart. A corrected PIN needs no command but a reload. This is for a PIN that is right by now:
    /// the token was unlocked or its PIN set, or the try was lost. It removes the record of the identity's PIN from the
    /// agent's state directory, reloads a running agent and waits for the result. Each run costs one try. Run this as
    /// root or as the agent's user.
    #[command(after_long_help = EXAMPLES)]
    Retry(RetryArguments),
}

const EXAMPLES: &str = "\
Examples:
  roleseal identities              # pinRejected, and why
  sudo roleseal-admin pin retry web";

/// Whose PIN.
#[derive(Debug, Args)]
pub(crate) struct RetryArguments {
    /// The identity
    #[arg(value_name = "IDENTITY")]
    identity: IdentityName,

    /// The configuration
    #[arg(long, value_name = "FILE", default_value = "/etc/roleseal/agent.toml")]
    config: PathBuf,
}

impl PinCommand {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        match self {
            PinCommand::Retry(arguments) => arguments.run(),
        }
    }
}

impl RetryArguments {
    fn run(&self) -> Result<(), Failure> {
        let config = Config::load_of(&self.config, &SystemUsers, agents_user())
            .map_err(|error| Failure::failed(error.to_string()))?;
        let name = self.identity.to_string();
        if !config.identities.iter().any(|one| one.name == name) {
            return Err(Failure::usage(format!(
                "cannot retry the PIN of {name}: no identity of that name in {}",
                self.config.display()
            )));
        }
        let directories = state_directories(config.state.as_deref());
        let mut looked_at = Vec::new();
        let (mut removed, mut is_own) = (0, false);
        let (mut others, mut failed) = (None, None);
        for place in &directories {
            match forget(place, &name, &mut removed) {
                Ok(is_there) => {
                    looked_at.push(place.display().to_string());
                    is_own |= is_there;
                }
                Err(error) => {
                    let failure = Failure::failed(format!(
                        "cannot remove the record of {name} from {}: {error}",
                        place.display()
                    ))
                    .hint("run this as root or as the agent's user");
                    match is_anothers(place, &error) {
                        true => others = Some(failure),
                        false => failed = Some(failure),
                    }
                }
            }
        }
        // Another user's directory is another agent's, where this command has found its own.
        let failed = failed.or(others.filter(|_| !is_own));
        match (removed, failed) {
            (0, Some(failure)) => Err(failure),
            (0, None) => output::print(&format!(
                "{name}: no refused PIN is recorded in {}\n",
                looked_at.join(", ")
            )),
            (_, failed) => {
                // The agent has to know of what is removed, whatever is not.
                let reloaded = reload(&name, &config, &directories);
                failed.map_or(reloaded, Err)
            }
        }
    }
}

/// Has a running agent read the records again, and waits for the outcome.
fn reload(identity: &str, config: &Config, directories: &[PathBuf]) -> Result<(), Failure> {
    output::print_step(&format!(
        "{identity}: the agent may try its PIN once more\n"
    ))?;
    // The record that the agent then makes shows that it has.
    agent::reload_and_wait(identity, &config.socket, || {
        let mut found = directories.iter().filter_map(|place| open(place).ok()?);
        found.any(|(_, found)| {
            let mut records = found.records.iter().filter_map(|(_, one)| one.as_ref());
            records.any(|record| record.refused && record.identities.contains(identity))
        })
    })
}

/// Whether a state directory cannot be opened since it is another user's.
fn is_anothers(state: &Path, error: &io::Error) -> bool {
    let owner = std::fs::metadata(state).map(|metadata| metadata.uid());
    error.kind() == ErrorKind::PermissionDenied
        && !geteuid().is_root()
        && owner.is_ok_and(|owner| owner != geteuid().as_raw())
}

/// What is recorded in a state directory; `None` where nothing ever was.
fn open(state: &Path) -> io::Result<Option<(PinRecords, Found)>> {
    match PinRecords::open(state) {
        Ok(records) => {
            let found = records.read()?;
            Ok(Some((records, found)))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes the records of this identity, and those that do not say whose they are; counts them. Says whether anything
/// was ever recorded there.
fn forget(state: &Path, identity: &str, removed: &mut usize) -> io::Result<bool> {
    let Some((records, found)) = open(state)? else {
        return Ok(false);
    };
    let is_meant = |record: &Option<PinRecord>| match record {
        Some(record) => record.identities.contains(identity),
        None => true,
    };
    let (meant, others): (Vec<_>, Vec<_>) = found
        .records
        .iter()
        .partition(|(_, record)| is_meant(record));
    for (pin, _) in &meant {
        records.remove(pin)?;
        *removed += 1;
    }
    // Without records to recognize, the agent may have another key.
    if others.is_empty() && !matches!(found.key, FoundKey::Sound(_)) {
        records.remove_key()?;
    }
    Ok(true)
}
