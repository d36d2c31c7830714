//! `roleseal identities`

use std::path::Path;

use client::agent_client;
use wire::Identity;

use crate::common::CommandError;
use crate::identity_words::{NONE, remarks, state};
use crate::output::{self, OutputError};
use crate::table::table;

pub(crate) fn run(socket: &Path, json: bool) -> Result<(), CommandError> {
    let identities = agent_client::identities(socket).map_err(client::Error::from)?;
    let text = if json {
        let json = serde_json::to_string_pretty(&identities).map_err(OutputError::from)?;
        json + "\n"
    } else {
        show(&identities)
    };
    Ok(output::print_text(&text)?)
}

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

#[cfg(test)]
pub(crate) mod tests {
    use wire::State;

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
}
