//! A line of the log: what it says, and how that is written, as text or as JSON.

use std::fmt;

use clap::ValueEnum;
use jiff::Timestamp;
use serde_json::Value;

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// `signed identity=web uid=1000 …`, for people
    Text,
    /// one JSON object a line, for programs
    Json,
}

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// The agent, or a thread of it, cannot go on.
    Error,
    /// An operator should look at it.
    Warn,
    /// As it should be.
    Info,
}

/// What a line says, in its order.
pub type Fields = Vec<(&'static str, Value)>;

/// One line.
pub(super) struct Line<'a> {
    pub(super) level: Level,
    pub(super) event: Event<'a>,
    pub(super) fields: Fields,
}

/// What a line is about.
#[derive(Clone, Copy)]
pub(super) enum Event<'a> {
    /// A request was decided, in that way.
    Decision(&'static str),
    /// Something that has a name and fields.
    Named(&'a str),
    /// Anything else, in words.
    Message(&'a str),
}

/// How lines are written to where they go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    pub(super) format: Format,
    /// With the syslog priority in front, which systemd's journal reads.
    pub(super) journal: bool,
}

/// The longest value, in characters. An ARN has at most some 700; beyond that, a caller wants the line to
/// be long.
const VALUE_LIMIT: usize = 1024;

impl Style {
    /// The whole line, its end included.
    pub(super) fn render(self, line: &Line, now: Timestamp) -> String {
        let mut text = String::new();
        if self.journal {
            text += &format!("<{}>", line.level.priority());
        }
        match self.format {
            Format::Text if self.journal => {} // the journal has its own time
            Format::Text => text += &format!("{now:.3} "),
            Format::Json => {}
        }
        text += &match self.format {
            Format::Text => line.text(),
            Format::Json => line.json(now),
        };
        let mut text = escape_controls(&text);
        text.push('\n');
        text
    }
}

impl Line<'_> {
    fn text(&self) -> String {
        let mut text = match self.event {
            Event::Decision(word) | Event::Named(word) => word.to_owned(),
            Event::Message(message) => truncate(message),
        };
        for (key, value) in &self.fields {
            match value {
                Value::Null => {}
                Value::String(value) => text += &format!(" {key}={}", quote(&truncate(value))),
                value => text += &format!(" {key}={value}"),
            }
        }
        text
    }

    fn json(&self, now: Timestamp) -> String {
        let mut members = vec![
            ("time", Value::from(format!("{now:.3}"))),
            ("level", self.level.to_string().into()),
        ];
        match self.event {
            Event::Decision(decision) => {
                members.push(("event", "decision".into()));
                members.push(("decision", decision.into()));
            }
            Event::Named(name) => members.push(("event", name.into())),
            Event::Message(message) => {
                members.push(("event", "message".into()));
                members.push(("message", message.into()));
            }
        }
        let members: Vec<String> = members
            .iter()
            .chain(&self.fields)
            .map(|(key, value)| match value {
                Value::String(value) => format!("\"{key}\":{}", Value::from(truncate(value))),
                value => format!("\"{key}\":{value}"),
            })
            .collect();
        format!("{{{}}}", members.join(","))
    }
}

impl Level {
    fn priority(self) -> u8 {
        match self {
            Level::Error => 3,
            Level::Warn => 4,
            Level::Info => 6,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
        })
    }
}

fn truncate(text: &str) -> String {
    match text.char_indices().nth(VALUE_LIMIT) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// A value of a text line: bare where no reader could take it for anything else, quoted as in JSON elsewhere.
fn quote(value: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || "-._~:/@+,*%[]".contains(c);
    if !value.is_empty() && value.chars().all(bare) {
        value.to_owned()
    } else {
        Value::from(value).to_string()
    }
}

/// Escapes as JSON does what would end the line, drive a terminal, or show it in another order than it
/// has: controls, line and paragraph separators, invisible and bidirectional format characters.
fn escape_controls(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    for c in line.chars() {
        let quoting = matches!(c, '"' | '\'' | '\\'); // has its meaning, and no other
        if quoting || c.escape_debug().len() == 1 {
            text.push(c);
            continue;
        }
        if c == '\n' {
            text += "\\n";
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            text += &format!("\\u{unit:04x}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: Style = Style {
        format: Format::Text,
        journal: false,
    };
    const JSON: Style = Style {
        format: Format::Json,
        ..TEXT
    };

    fn render(style: Style, event: Event, fields: Fields) -> String {
        let line = Line {
            level: Level::Warn,
            event,
            fields,
        };
        style.render(&line, Timestamp::UNIX_EPOCH)
    }

    fn fields() -> Fields {
        vec![
            ("identity", "web".into()),
            ("role", Value::Null),
            ("why", "no such thing".into()),
            ("pid", 7.into()),
        ]
    }

    #[test]
    fn text_is_for_people() {
        assert_eq!(
            render(TEXT, Event::Decision("refused"), fields()),
            "1970-01-01T00:00:00.000Z refused identity=web why=\"no such thing\" pid=7\n"
        );
        assert_eq!(
            render(TEXT, Event::Message("listening at /x"), Vec::new()),
            "1970-01-01T00:00:00.000Z listening at /x\n"
        );
    }

    #[test]
    fn json_is_for_programs() {
        assert_eq!(
            render(JSON, Event::Decision("refused"), fields()),
            "{\"time\":\"1970-01-01T00:00:00.000Z\",\"level\":\"warn\",\"event\":\"decision\",\
             \"decision\":\"refused\",\"identity\":\"web\",\"role\":null,\"why\":\"no such thing\",\
             \"pid\":7}\n"
        );
        assert_eq!(
            render(JSON, Event::Message("a \"b\""), Vec::new()),
            "{\"time\":\"1970-01-01T00:00:00.000Z\",\"level\":\"warn\",\"event\":\"message\",\
             \"message\":\"a \\\"b\\\"\"}\n"
        );
    }

    #[test]
    fn the_journal_is_told_the_priority_and_has_its_own_time() {
        let journal = |style| Style {
            journal: true,
            ..style
        };
        let text = render(journal(TEXT), Event::Named("ready"), Vec::new());
        assert_eq!(text, "<4>ready\n");
        let json = render(journal(JSON), Event::Named("ready"), Vec::new());
        assert!(json.starts_with("<4>{\"time\":"), "{json}");
    }

    /// What a caller could put into a name, a path or an ARN, in both formats.
    #[test]
    fn no_line_is_forged() {
        let hostile = "x\n2026-01-01T00:00:00.000Z signed\r\0 \x1b[2J\u{9b}31m \u{202e}gis\u{2066} \
                       \u{2028}\u{85}\u{200b}\u{feff}\u{e0041} \" identity=\"admin\" \\";
        for style in [TEXT, JSON] {
            for line in [
                render(style, Event::Message(hostile), Vec::new()),
                render(style, Event::Named("x"), vec![("name", hostile.into())]),
            ] {
                let inside = line.strip_suffix('\n').unwrap();
                let bad = |c: char| c.is_control() || !(c.is_ascii() || c.is_alphanumeric());
                assert!(!inside.contains(bad), "{inside:?}");
            }
        }
        let json = render(JSON, Event::Named("x"), vec![("name", hostile.into())]);
        let read: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(read["name"], hostile); // nothing is lost, either
        let text = render(TEXT, Event::Named("x"), vec![("name", hostile.into())]);
        let value = text.split_once("name=").unwrap().1;
        assert_eq!(serde_json::from_str::<String>(value).unwrap(), hostile);
    }

    #[test]
    fn what_looks_like_a_field_is_quoted() {
        for (value, expected) in [
            ("a role=b", "\"a role=b\""),
            ("a=b", "\"a=b\""),
            ("", "\"\""),
            ("Zürich", "\"Zürich\""),
            ("arn:aws:iam::1:role/web-*", "arn:aws:iam::1:role/web-*"),
        ] {
            assert_eq!(quote(value), expected);
        }
    }

    #[test]
    fn a_long_value_is_cut() {
        let long = "é".repeat(VALUE_LIMIT + 1);
        let json = render(JSON, Event::Named("x"), vec![("name", long.into())]);
        let read: Value = serde_json::from_str(&json).unwrap();
        let name = read["name"].as_str().unwrap();
        assert_eq!(name.chars().count(), VALUE_LIMIT + 1);
        assert!(name.ends_with("é…"));
    }
}
