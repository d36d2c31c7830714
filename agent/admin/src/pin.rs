//! `roleseal-admin pin`: PINs that the agent does not try again.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use config::pin_records::{Found, FoundKey, PinRecord, PinRecords, state_directories};
use config::user_database::SystemUsers;
use config::{Config, IdentityName};

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
        let mut removed = 0;
        for place in &directories {
            removed += forget(place, &name).map_err(|error| {
                Failure::failed(format!(
                    "cannot remove the record of {name} from {}: {error}",
                    place.display()
                ))
                .hint("run this as root or as the agent's user")
            })?;
        }
        if removed == 0 {
            let all = directories.iter().map(|one| one.display().to_string());
            let all: Vec<_> = all.collect();
            return output::print(&format!(
                "{name}: no refused PIN is recorded in {}\n",
                all.join(", ")
            ));
        }
        output::print_step(&format!("{name}: the agent may try its PIN once more\n"))?;
        // The record that the agent then makes shows that it has.
        agent::reload_and_wait(&name, &config.socket, || {
            let mut found = directories.iter().filter_map(|place| open(place).ok()?);
            found.any(|(_, found)| {
                let mut records = found.records.iter().filter_map(|(_, one)| one.as_ref());
                records.any(|record| record.refused && record.identities.contains(&name))
            })
        })
    }
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

/// Removes the records of this identity, and those that do not say whose they are. Says how many.
fn forget(state: &Path, identity: &str) -> io::Result<usize> {
    let Some((records, found)) = open(state)? else {
        return Ok(0);
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
    }
    // Without records to recognize, the agent may have another key.
    if others.is_empty() && !matches!(found.key, FoundKey::Sound(_)) {
        records.remove_key()?;
    }
    Ok(meant.len())
}
