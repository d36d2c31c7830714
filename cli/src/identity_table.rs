//! The table of the agent's identities, as `roleseal identities` and `roleseal status` show it.

use jiff::Timestamp;
use wire::{Identity, State};

use crate::table::table;
use crate::time_left::rough;

const HEADINGS: [&str; 5] = [
    "IDENTITY",
    "STATE",
    "SIGNED",
    "LAST SIGNED",
    "CERTIFICATE UNTIL",
];

const NONE: &str = "\
The agent has no identity that you may use.
Its operator permits one to you with an [[identity.allow]] rule in the agent's configuration.
";

/// Renders a line for each identity, and under it its key, why it does not sign, and the agent's warnings.
pub(crate) fn identity_table(identities: &[Identity], now: Timestamp) -> String {
    if identities.is_empty() {
        return NONE.to_owned();
    }
    let rows: Vec<_> = identities
        .iter()
        .map(|identity| (row(identity, now), remarks(identity)))
        .collect();
    table(HEADINGS, &rows)
}

/// Describes the key and its certificate in one line.
pub(crate) fn key_and_certificate(identity: &Identity) -> String {
    let known = |member: &Option<String>| member.clone().unwrap_or_else(|| "unknown".to_owned());
    format!(
        "{} key {}, certificate {} (serial {})",
        known(&identity.key_algorithm),
        identity.key_uri,
        known(&identity.subject),
        known(&identity.serial),
    )
}

fn row(identity: &Identity, now: Timestamp) -> [String; 5] {
    let known = |member: Option<String>| member.unwrap_or_else(|| "-".to_owned());
    let until = |end: &String| match end.parse::<Timestamp>() {
        Ok(time) if time > now => format!("{end} ({})", rough(time.duration_since(now))),
        _ => end.clone(),
    };
    [
        identity.name.clone(),
        state(identity.state).to_owned(),
        known(identity.signatures.map(|count| count.to_string())),
        known(identity.last_signed.clone()),
        known(identity.not_after.as_ref().map(until)),
    ]
}

fn remarks(identity: &Identity) -> Vec<String> {
    let warnings = identity.warnings.iter();
    let warnings = warnings.map(|warning| format!("warning: {warning}"));
    let is_refused = identity.state == State::PinRejected;
    let hint = is_refused.then(|| {
        let retry = retry_pin(&identity.name);
        format!("hint: if the PIN is right by now: {retry}")
    });
    [key_and_certificate(identity)]
        .into_iter()
        .chain(identity.message.clone())
        .chain(hint)
        .chain(warnings)
        .collect()
}

/// Returns the command after which the agent tries a refused PIN once more.
pub(crate) fn retry_pin(identity: &str) -> String {
    format!("sudo roleseal-admin pin retry {identity}")
}

/// Names a state as on the wire, so that the table and the JSON agree.
fn state(state: State) -> &'static str {
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
        let web = Identity {
            subject: Some("CN=wéb".into()),
            signatures: Some(12),
            last_signed: Some("2026-12-01T08:00:00Z".into()),
            warnings: vec!["renewal failed at 2026-12-03T00:00:00Z: no CA".into()],
            ..identity("web", State::Ready)
        };
        let expired = Identity {
            signatures: Some(0),
            not_after: Some("2026-12-02T00:00:00Z".into()),
            message: Some("the certificate expired\nrenew it".into()),
            ..identity("expired", State::Unusable)
        };
        let of_old_agent = Identity {
            key_algorithm: None,
            subject: None,
            serial: None,
            not_after: None,
            message: None,
            ..identity("old", State::Opening)
        };
        let now = "2026-12-03T00:00:00Z".parse().unwrap();
        assert_eq!(
            identity_table(&[web, expired, of_old_agent], now),
            "\
IDENTITY  STATE     SIGNED  LAST SIGNED           CERTIFICATE UNTIL
web       ready     12      2026-12-01T08:00:00Z  2027-01-01T00:00:00Z (29 days)
  EC-P-256 key pkcs11:object=web, certificate CN=wéb (serial 42)
  warning: renewal failed at 2026-12-03T00:00:00Z: no CA
expired   unusable  0       -                     2026-12-02T00:00:00Z
  EC-P-256 key pkcs11:object=web, certificate CN=web (serial 42)
  the certificate expired
  renew it
old       opening   -       -                     -
  unknown key pkcs11:object=web, certificate unknown (serial unknown)
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
            let json = serde_json::to_string(&one).unwrap();
            assert_eq!(json, format!("{:?}", state(one)));
        }
    }
}
