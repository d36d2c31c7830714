//! `roleseal identities`

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use wire::{Identity, State};

use crate::error::Error;
use crate::{agent, output};

pub(crate) fn run(socket: &Path, json: bool) -> Result<(), Error> {
    let identities = agent::identities(socket)?;
    let text = if json {
        let json = serde_json::to_string_pretty(&identities).map_err(io::Error::from)?;
        json + "\n"
    } else if identities.is_empty() {
        NONE.to_owned()
    } else {
        table(&identities)
    };
    Ok(output::print_text(&text)?)
}

const NONE: &str = "\
The agent has no identity that you may use.
Its operator permits one to you with an [[identity.allow]] rule in the agent's configuration.
";

const HEADINGS: [&str; 7] = [
    "NAME",
    "STATE",
    "KEY",
    "SUBJECT",
    "SERIAL",
    "NOT AFTER",
    "KEY URI",
];

/// One line for each identity, its message and warnings indented under it.
fn table(identities: &[Identity]) -> String {
    let rows: Vec<[String; 7]> = identities.iter().map(row).collect();
    let mut widths = HEADINGS.map(str::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = line(&HEADINGS.map(str::to_owned), &widths);
    for (identity, row) in identities.iter().zip(&rows) {
        text += &line(row, &widths);
        if let Some(message) = &identity.message {
            text += &format!("  {}\n", message.replace('\n', "\n  "));
        }
        for warning in &identity.warnings {
            text += &format!("  warning: {}\n", warning.replace('\n', "\n  "));
        }
    }
    text
}

fn row(identity: &Identity) -> [String; 7] {
    let known = |member: &Option<String>| member.clone().unwrap_or_else(|| "-".to_owned());
    [
        identity.name.clone(),
        state(identity.state).to_owned(),
        known(&identity.key_algorithm),
        known(&identity.subject),
        known(&identity.serial),
        known(&identity.not_after),
        identity.key_uri.clone(),
    ]
    .map(|cell| cell.replace('\n', " "))
}

/// The wire's words, so that the table and the JSON say the same.
fn state(state: State) -> &'static str {
    match state {
        State::Opening => "opening",
        State::Ready => "ready",
        State::Unavailable => "unavailable",
        State::PinRejected => "pinRejected",
        State::Unusable => "unusable",
    }
}

fn line(cells: &[String; 7], widths: &[usize; 7]) -> String {
    let mut line = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        let _ = write!(line, "{cell:width$}  "); // a String takes any text
    }
    line.truncate(line.trim_end().len());
    line + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_aligned_and_says_what_is_wrong() {
        let ready = Identity {
            name: "web".into(),
            key_algorithm: Some("EC-P-256".into()),
            subject: Some("CN=wéb".into()),
            issuer: Some("CN=ca".into()),
            serial: Some("42".into()),
            not_before: None,
            not_after: Some("2027-01-01T00:00:00Z".into()),
            key_uri: "pkcs11:token=lab;object=web".into(),
            state: State::Ready,
            message: None,
            warnings: vec!["the key is extractable".into()],
        };
        let locked = Identity {
            name: "locked".into(),
            key_algorithm: None,
            subject: None,
            serial: None,
            not_after: None,
            state: State::PinRejected,
            message: Some("the PIN was refused\nchange it".into()),
            warnings: vec![],
            ..ready.clone()
        };
        assert_eq!(
            table(&[ready, locked]),
            "\
NAME    STATE        KEY       SUBJECT  SERIAL  NOT AFTER             KEY URI
web     ready        EC-P-256  CN=wéb   42      2027-01-01T00:00:00Z  pkcs11:token=lab;object=web
  warning: the key is extractable
locked  pinRejected  -         -        -       -                     pkcs11:token=lab;object=web
  the PIN was refused
  change it
"
        );
    }

    #[test]
    fn states_are_named_as_on_the_wire() {
        for one in [
            State::Opening,
            State::Ready,
            State::Unavailable,
            State::PinRejected,
            State::Unusable,
        ] {
            assert_eq!(
                serde_json::to_string(&one).unwrap(),
                format!("{:?}", state(one))
            );
        }
    }
}
