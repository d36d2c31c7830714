//! What others wrote, on a terminal.

use std::fmt::Write;

/// The text with every character but the line break escaped that could steer a terminal or reorder what it
/// shows: much of what is printed comes from certificates, tokens or AWS. The escape is also JSON's, where such
/// characters can stand only within a string.
pub fn printable(text: &str) -> String {
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
            printable("a\x1b[2Jb\r\x07\u{9b}c\u{202e}\x7f\nä\u{2066}"),
            "a\\u001b[2Jb\\u000d\\u0007\\u009bc\\u202e\\u007f\nä\\u2066"
        );
        let string = "\"\u{9b}\u{202e}\"";
        assert_eq!(printable(string), "\"\\u009b\\u202e\"");
    }
}
