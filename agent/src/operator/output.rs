//! What a command prints: results on standard output, everything else on standard error.

use std::fmt::Write as _;
use std::io::{self, Write};

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

/// The text with every character but the line break escaped that could steer a terminal or reorder what it
/// shows: labels and names come from tokens and certificates.
pub(crate) fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        let steers = c.is_control() && c != '\n';
        // Unicode's Bidi_Control, line and paragraph separators
        let reorders = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if steers || reorders {
            let _ = write!(safe, "\\u{:04x}", u32::from(c)); // a String takes any text
        } else {
            safe.push(c);
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_steers_the_terminal() {
        assert_eq!(
            printable("a\x1b[2Jb\r\u{9b}c\u{202e}\nä"),
            "a\\u001b[2Jb\\u000d\\u009bc\\u202e\nä"
        );
    }
}
