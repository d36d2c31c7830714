//! What is known of the renewal of an identity's certificate. `roleseal-admin renew` does it; the agent tells how it went, and
//! warns where nobody does it.

use std::sync::Mutex;
use std::time::Duration;

use config::certificate::{CertificateSource, Stamp};
use config::renewal::{self, Record, RenewalInput, Settings};
use jiff::Timestamp;

use crate::sync::lock;

/// Of one identity, for as long as its configuration has settings for it.
#[derive(Debug)]
pub struct RenewalView {
    settings: Settings,
    source: CertificateSource,
    /// What failed before is no news.
    since: Timestamp,
    seen: Mutex<Option<Seen>>,
}

/// What the files were like at the last look.
#[derive(Debug, Clone)]
struct Seen {
    stamp: Stamp,
    record: Record,
    /// When the certificate is due, and its end; why it cannot be renewed; `None` where there is none, which is due.
    due: Result<Option<(Timestamp, Timestamp)>, String>,
}

/// What a look at the files has found that was not so before.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// The certificate cannot be renewed.
    NotRenewable(String),
    /// A renewal failed.
    Failed(String),
}

/// Of the time that is left when a certificate is due, what a renewer may take: a timer looks several times in it.
const PATIENCE: u32 = 4;

/// And at the most so much.
const LONGEST_PATIENCE: Duration = Duration::from_secs(24 * 3600);

impl RenewalView {
    /// Nothing is known yet.
    pub fn new(settings: Settings, source: CertificateSource) -> RenewalView {
        RenewalView {
            settings,
            source,
            since: Timestamp::now(),
            seen: Mutex::default(),
        }
    }

    /// Looks at the files, if they have changed, and returns what is new. They are read without the lock: whoever asks
    /// meanwhile is told what was seen before.
    pub(crate) fn look(&self) -> Vec<News> {
        let Ok(certificate) = renewal::file(&self.source) else {
            return Vec::new();
        };
        let record = Record::path(certificate).ok();
        let files = [Some(self.settings.csr.as_path()), record.as_deref()];
        let stamp = Stamp::of(self.source.files().chain(files.into_iter().flatten()));
        if lock(&self.seen)
            .as_ref()
            .is_some_and(|last| last.stamp == stamp)
        {
            return Vec::new();
        }
        let record = Record::read(certificate);
        let due = RenewalInput::read(&self.source, &self.settings).map(|present| {
            let certificate = present.certificate?;
            let (from, until) = (certificate.not_before, certificate.not_after);
            Some((self.settings.due_at(from, until, &record), until))
        });
        let now = Seen { stamp, record, due };
        let last = lock(&self.seen).replace(now.clone());
        let mut news = Vec::new();
        if let Err(fault) = now.due
            && last
                .as_ref()
                .is_none_or(|last| last.due != Err(fault.clone()))
        {
            news.push(News::NotRenewable(fault));
        }
        let before = last.and_then(|last| last.record.failure);
        if let Some(failure) = now.record.failure
            && failure.at.as_second() >= self.since.as_second()
            && before.as_ref() != Some(&failure)
        {
            news.push(News::Failed(failure.message));
        }
        news
    }

    /// How the last renewals went.
    pub(crate) fn record(&self) -> Record {
        let seen = lock(&self.seen);
        let record = seen.as_ref().map(|seen| seen.record.clone());
        record.unwrap_or_default()
    }

    /// What an administrator should look at.
    pub(crate) fn warnings(&self, now: Timestamp) -> Vec<String> {
        let seen = lock(&self.seen);
        let Some(Seen { record, due, .. }) = seen.as_ref() else {
            return Vec::new();
        };
        let mut warnings = Vec::new();
        if let Err(fault) = due {
            warnings.push(format!("it cannot be renewed: {fault}"));
        }
        if let Some(failure) = &record.failure {
            let (at, message) = (failure.at, &failure.message);
            warnings.push(format!("renewal failed at {at:.0}: {message}"));
        } else if let Ok(Some((due, until))) = due
            && now > overdue_at(*due, *until)
        {
            warnings.push(format!(
                "it is due for renewal since {due:.0}, and no renewal has left a word: enable roleseal-renew.timer, or \
                 see `journalctl -u roleseal-renew`"
            ));
        }
        warnings
    }
}

/// When a renewer should have tried.
fn overdue_at(due: Timestamp, until: Timestamp) -> Timestamp {
    let left = Duration::try_from(due.duration_until(until)).unwrap_or_default();
    let patience = (left / PATIENCE).min(LONGEST_PATIENCE);
    due.saturating_add(patience).unwrap_or(until)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renewer_has_a_quarter_of_what_is_left_and_a_day_at_the_most() {
        let time = |text: &str| text.parse::<Timestamp>().unwrap();
        let due = time("2026-11-01T00:00:00Z");
        for (until, overdue) in [
            ("2026-11-01T04:00:00Z", "2026-11-01T01:00:00Z"),
            ("2026-11-11T00:00:00Z", "2026-11-02T00:00:00Z"),
            ("2026-10-01T00:00:00Z", "2026-11-01T00:00:00Z"),
        ] {
            assert_eq!(overdue_at(due, time(until)), time(overdue), "{until}");
        }
    }
}
