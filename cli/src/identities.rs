//! `roleseal identities`

use std::io;
use std::path::Path;

use wire::{Identity, State};

use crate::error::Error;
use crate::table::table;
use crate::{agent, output};

pub(crate) fn run(socket: &Path, json: bool) -> Result<(), Error> {
    let identities = agent::identities(socket)?;
    let text = if json {
        let json = serde_json::to_string_pretty(&identities).map_err(io::Error::from)?;
        json + "\n"
    } else {
        show(&identities)
    };
    Ok(output::print_text(&text)?)
}

/// Where there is none.
pub(crate) const NONE: &str = "\
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

/// As people read them.
fn show(identities: &[Identity]) -> String {
    if identities.is_empty() {
        return NONE.to_owned();
    }
    let rows: Vec<_> = identities
        .iter()
        .map(|identity| (row(identity), remarks(identity)))
        .collect();
    table(HEADINGS, &rows)
}

/// Why it does not sign, and what should not stay so.
pub(crate) fn remarks(identity: &Identity) -> Vec<String> {
    let warnings = identity.warnings.iter();
    let warnings = warnings.map(|warning| format!("warning: {warning}"));
    identity.message.iter().cloned().chain(warnings).collect()
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
}

/// The wire's words, so that the tables and the JSON say the same.
pub(crate) fn state(state: State) -> &'static str {
    match state {
        State::Opening => "opening",
        State::Ready => "ready",
        State::Unavailable => "unavailable",
        State::PinRejected => "pinRejected",
        State::Unusable => "unusable",
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Of an agent that does not count.
    pub(crate) fn identity(name: &str, state: State) -> Identity {
        Identity {
            name: name.into(),
            key_algorithm: Some("EC-P-256".into()),
            subject: Some("CN=web".into()),
            issuer: Some("CN=ca".into()),
            serial: Some("42".into()),
            not_before: Some("2026-01-01T00:00:00Z".into()),
            not_after: Some("2027-01-01T00:00:00Z".into()),
            key_uri: "pkcs11:object=web".into(),
            state,
            message: (state != State::Ready).then(|| "it says why".into()),
            warnings: vec![],
            pin_source: None,
            signatures: None,
            last_signed: None,
        }
    }

    #[test]
    fn the_table_is_aligned_and_says_what_is_wrong() {
        let ready = Identity {
            subject: Some("CN=wéb".into()),
            key_uri: "pkcs11:token=lab;object=web".into(),
            warnings: vec!["the key is extractable".into()],
            ..identity("web", State::Ready)
        };
        let locked = Identity {
            key_algorithm: None,
            subject: None,
            serial: None,
            not_after: None,
            key_uri: ready.key_uri.clone(),
            message: Some("the PIN was refused\nchange it".into()),
            ..identity("locked", State::PinRejected)
        };
        assert_eq!(
            show(&[ready, locked]),
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
