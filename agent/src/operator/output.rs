//! What a command prints: results on standard output, everything else on standard error.

use std::io::{self, Write};

use rolesanywhere::printable;
use serde::Serialize;

use super::Failure;

/// Prints a result.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let text = printable(text);
    let mut stdout = io::stdout().lock();
    let printed = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    printed.map_err(|error| Failure::failed(format!("cannot write to standard output: {error}")))
}

/// Prints a result as JSON.
pub(crate) fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::failed(format!("cannot write JSON: {error}")))?;
    print(&format!("{text}\n"))
}

/// Says something on standard error.
pub(crate) fn note(text: &str) {
    let text = printable(text).trim_end().replace('\n', "\n  ");
    let line = format!("roleseal-agent: {text}\n");
    let _ = io::stderr().write_all(line.as_bytes()); // there is nobody left to tell
}

/// Says what is not as it should be.
pub(crate) fn warn(text: &str) {
    note(&format!("warning: {text}"));
}
