//! What the agent tells of its identities.

use std::path::PathBuf;

use client::agent_client::{self, AgentError};
use jiff::Timestamp;
use wire::Identity;

use crate::identity_words::{NONE, remarks, state};
use crate::table::table;
use crate::time_left::rough;

pub(super) struct AgentStatus {
    pub(super) socket: PathBuf,
    pub(super) identities: Result<Vec<Identity>, AgentError>,
}

impl AgentStatus {
    pub(super) fn ask(socket: PathBuf) -> AgentStatus {
        AgentStatus {
            identities: agent_client::identities(&socket),
            socket,
        }
    }

    pub(super) fn show(&self, now: Timestamp) -> String {
        let socket = self.socket.display();
        match &self.identities {
            Ok(identities) => format!("roleseal-agent at {socket}\n{}", show(identities, now)),
            Err(_) => format!("roleseal-agent at {socket}: no answer\n"),
        }
    }
}

const HEADINGS: [&str; 5] = [
    "IDENTITY",
    "STATE",
    "SIGNED",
    "LAST SIGNED",
    "CERTIFICATE UNTIL",
];

fn show(identities: &[Identity], now: Timestamp) -> String {
    if identities.is_empty() {
        return NONE.to_owned();
    }
    let rows: Vec<_> = identities
        .iter()
        .map(|identity| (row(identity, now), remarks(identity)))
        .collect();
    table(HEADINGS, &rows)
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

#[cfg(test)]
mod tests {
    use wire::State;

    use super::*;
    use crate::identities::tests::identity;

    #[test]
    fn people_see_what_was_signed_and_until_when_it_goes_on() {
        let web = Identity {
            signatures: Some(12),
            last_signed: Some("2026-12-01T08:00:00Z".into()),
            warnings: vec!["renewal failed at 2026-12-03T00:00:00Z: no CA".into()],
            ..identity("web", State::Ready)
        };
        let expired = Identity {
            signatures: Some(0),
            not_after: Some("2026-12-02T00:00:00Z".into()),
            ..identity("expired", State::Unusable)
        };
        let of_old_agent = Identity {
            not_after: None,
            message: None,
            ..identity("old", State::Opening)
        };
        let now = "2026-12-03T00:00:00Z".parse().unwrap();
        assert_eq!(
            show(&[web, expired, of_old_agent], now),
            "\
IDENTITY  STATE     SIGNED  LAST SIGNED           CERTIFICATE UNTIL
web       ready     12      2026-12-01T08:00:00Z  2027-01-01T00:00:00Z (29 days)
  warning: renewal failed at 2026-12-03T00:00:00Z: no CA
expired   unusable  0       -                     2026-12-02T00:00:00Z
  it says why
old       opening   -       -                     -
"
        );
    }
}
