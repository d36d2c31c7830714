//! What the agent tells its operator, on standard error: a line for each decision and each event.
//! Never a PIN, a signature or a credential. What a caller sent is quoted.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use jiff::Timestamp;
use wire::Refusal;

use crate::create_session::CreateSession;
use crate::peer::Peer;

/// Says a line about something that is as it should be.
pub fn info(text: &str) {
    line(6, text);
}

/// Says a line about something that an operator should look at.
pub fn warn(text: &str) {
    line(4, text);
}

/// One whole line at once, so that lines of several threads do not mix. With the syslog priority in
/// front where systemd's journal reads it, with the time everywhere else.
fn line(priority: u8, text: &str) {
    let mut stderr = std::io::stderr().lock();
    let journal = std::env::var_os("JOURNAL_STREAM").is_some() && !stderr.is_terminal();
    let line = if journal {
        format!("<{priority}>{text}\n")
    } else {
        format!("{:.3} {text}\n", Timestamp::now())
    };
    let _ = stderr.write_all(line.as_bytes()); // nobody left to tell
}

/// A request that was decided.
#[derive(Debug)]
pub struct Decision<'a> {
    /// Who asked.
    pub peer: &'a Peer,
    /// For which identity, where it came so far.
    pub identity: Option<&'a str>,
    /// What for, where it could be read.
    pub request: Option<&'a CreateSession>,
    /// The certificate's serial number that was signed for, or why not.
    pub outcome: Result<&'a str, &'a Refusal>,
    /// From reading the request to having the answer.
    pub took: Duration,
}

impl Decision<'_> {
    /// Says it.
    pub fn log(&self) {
        let mut text = match self.outcome {
            Ok(serial) => format!("signed serial={serial}"),
            Err(refusal) => format!("refused reason={:?}", refusal.to_string()),
        };
        text += &format!(" {}", self.peer);
        if let Some(identity) = self.identity {
            text += &format!(" identity={identity}");
        }
        if let Some(request) = self.request {
            let target = request.target();
            text += &format!(
                " role={} profile={} trust-anchor={} host={}",
                target.role(),
                target.profile(),
                target.trust_anchor(),
                request.host()
            );
            if let Some(duration) = request.duration() {
                text += &format!(" duration={}s", duration.seconds());
            }
            if let Some(name) = request.session_name() {
                text += &format!(" session={name}");
            }
        }
        text += &format!(" took={}us", self.took.as_micros());
        match self.outcome {
            Ok(_) => info(&text),
            Err(_) => warn(&text),
        }
    }
}
