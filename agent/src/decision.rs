//! A request that was decided, as the log has it. docs/audit.md has the keys.

use std::time::Duration;

use rolesanywhere::{SessionDuration, Target};
use serde_json::Value;
use wire::Refusal;

use crate::create_session::CreateSession;
use crate::identity::Identity;
use crate::log::{self, Fields, Level};
use crate::peer::Peer;
use config::UnitName;

/// A request that was decided.
#[derive(Debug)]
pub struct Decision<'a> {
    /// Who asked.
    pub peer: &'a Peer,
    /// For which identity, where it came so far.
    pub identity: Option<&'a Identity>,
    /// What for, where it could be read.
    pub request: Option<&'a CreateSession>,
    /// The serial number of the certificate that was signed for, or would have been.
    pub serial: Option<&'a str>,
    /// How it was decided.
    pub outcome: Outcome<'a>,
    /// From handing the text to the token's queue to having its answer, where it came so far.
    pub token_time: Option<Duration>,
    /// From having read the request to having the answer.
    pub total_time: Duration,
}

/// How a request was decided.
#[derive(Debug, Clone, Copy)]
pub enum Outcome<'a> {
    /// It was signed.
    Signed,
    /// It would have been: nothing else was asked.
    Permitted,
    /// It was not, and why.
    Refused(&'a Refusal),
}

impl<'a> Outcome<'a> {
    /// Returns its name in the metrics: a refusal's is that of the protocol.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Signed => "signed",
            Outcome::Permitted => "permitted",
            Outcome::Refused(refusal) => refusal.name(),
        }
    }

    fn refusal(self) -> Option<&'a Refusal> {
        match self {
            Outcome::Signed | Outcome::Permitted => None,
            Outcome::Refused(refusal) => Some(refusal),
        }
    }
}

impl Decision<'_> {
    /// Says it. What was only permitted is not worth a line: whoever keeps a session asks once a minute.
    pub fn log(&self) {
        let say = |level, word, signed| log::decision(level, word, self.fields(), signed);
        match self.outcome {
            Outcome::Signed => say(Level::Info, "signed", true),
            Outcome::Permitted => {}
            Outcome::Refused(refusal) => log::refused(self.peer.refused(refusal.name()), || {
                say(Level::Warn, "refused", false);
            }),
        }
    }

    /// All of them in each line: null where something is not known.
    fn fields(&self) -> Fields {
        let request = self.request;
        let target = request.map(CreateSession::target);
        let duration = request.and_then(CreateSession::duration);
        let identity = self.identity.map(|identity| identity.name.as_str());
        let refusal = self.outcome.refusal();
        let process = self.peer.process();
        let mut fields = vec![
            ("reason", refusal.map(Refusal::name).into()),
            ("message", refusal.map(Refusal::to_string).into()),
            ("identity", identity.into()),
        ];
        fields.extend(self.peer.fields());
        fields.extend([
            ("executable", process.executable.as_deref().into()),
            ("unit", process.unit.as_ref().map(UnitName::as_str).into()),
            ("container", process.container.as_deref().into()),
            ("role", shown(target.map(Target::role))),
            ("profile", shown(target.map(Target::profile))),
            ("trust_anchor", shown(target.map(Target::trust_anchor))),
            ("region", shown(target.map(Target::region))),
            ("host", request.map(CreateSession::host).into()),
            (
                "session",
                shown(request.and_then(CreateSession::session_name)),
            ),
            ("duration", duration.map(SessionDuration::seconds).into()),
            ("serial", self.serial.into()),
            ("token_us", self.token_time.map(micros).into()),
            ("total_us", micros(self.total_time).into()),
        ]);
        fields
    }
}

fn shown(value: Option<impl ToString>) -> Value {
    value.map(|value| value.to_string()).into()
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
