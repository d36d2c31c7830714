//! The log's line after each try to get a session.

use client::Diagnostic;
use client::moment::Moment;
use client::progress::Progress;
use client::refresher::Status;

/// Says how it stands with the session of a target.
pub(super) fn tell(log: &Progress, name: &str, status: &Status) {
    let until = status
        .session
        .as_ref()
        .map(|session| session.credentials.expiration);
    match (&status.failure, until) {
        (None, Some(until)) => log.say(&format!("target {name}: a session until {until}")),
        (None, None) => {}
        (Some(failure), until) => {
            let still = match until {
                Some(until) if status.valid(Moment::now()) => {
                    format!("the present session ends at {until}")
                }
                Some(until) => format!("the latest session ended at {until}"),
                None => "there is no session".to_owned(),
            };
            let next = status
                .next(Moment::now())
                .map(|next| format!(", next try at {next:.0}"));
            log.warn(&format!(
                "target {name}: no new session since {:.0}; {still}{}\n{}",
                failure.since,
                next.unwrap_or_default(),
                failure.error.report()
            ));
        }
    }
}
