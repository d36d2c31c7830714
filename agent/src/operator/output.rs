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

/// Prints what came of something that cannot be undone: where that fails, `done` is said all the same.
pub(crate) fn print_done(done: &str, text: &str) -> Result<(), Failure> {
    print(text).map_err(|failure| Failure::failed(format!("{done}, but {failure}")))
}

/// Prints a result as JSON.
pub(crate) fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    print(&json(value)?)
}

/// A result as JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::failed(format!("cannot write JSON: {error}")))?;
    Ok(text + "\n")
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
