//! `roleseal identities`

use std::path::Path;

use client::agent_client;
use jiff::Timestamp;

use crate::common::CommandError;
use crate::identity_table::identity_table;
use crate::output::{self, OutputError};

pub(crate) fn run(socket: &Path, json: bool) -> Result<(), CommandError> {
    let identities = agent_client::identities(socket).map_err(client::Error::from)?;
    let text = match json {
        true => serde_json::to_string_pretty(&identities).map_err(OutputError::from)? + "\n",
        false => identity_table(&identities, Timestamp::now()),
    };
    Ok(output::print_text(&text)?)
}
