//! The file that has a line for each call.

use std::fs::OpenOptions;
use std::io::Write;

use crate::settings::{give_up, settings};

/// Appends it. One write a line: threads and processes do not mix theirs up.
pub(crate) fn record(function: &str) {
    let Some(path) = &settings().calls else {
        return;
    };
    let line = format!("{} {function}\n", std::process::id());
    let written = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .and_then(|mut file| file.write_all(line.as_bytes()));
    if let Err(error) = written {
        give_up(&format!("{}: {error}", path.display()));
    }
}
