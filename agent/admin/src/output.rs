//! What a command prints: results on standard output, everything else on standard error.

use std::io::{self, Write};

use rolesanywhere::printable;
use serde::Serialize;
use signal_hook::consts::SIGPIPE;

use crate::failure::Failure;

/// Prints what somebody wanted to see. A reader that has gone has seen enough: the command ends as others do
/// then, without a word.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    write(text).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::Interrupted(SIGPIPE),
        _ => not_printed(&error),
    })
}

/// Prints a step of a longer way, which nobody may break off by closing a pipe without being told how far it came.
pub(crate) fn print_step(text: &str) -> Result<(), Failure> {
    write(text).map_err(|error| not_printed(&error))
}

/// Prints what came of something that cannot be undone: where that fails, `done` is said all the same.
pub(crate) fn print_done(done: &str, text: &str) -> Result<(), Failure> {
    print_step(text).map_err(|failure| Failure::failed(format!("{done}, but {failure}")))
}

fn write(text: &str) -> io::Result<()> {
    let text = printable(text);
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

fn not_printed(error: &io::Error) -> Failure {
    Failure::failed(format!("cannot write to standard output: {error}"))
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
    let line = format!("roleseal-admin: {text}\n");
    let _ = io::stderr().write_all(line.as_bytes()); // there is nobody left to tell
}

/// Says what is not as it should be.
pub(crate) fn warn(text: &str) {
    note(&format!("warning: {text}"));
}
