//! How the last renewals of a certificate went: `roleseal-admin renew` leaves it beside the certificate, and the agent
//! tells it in its list of identities and in its metrics.

use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What is in the file, as JSON. Members of later versions are ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Record {
    /// The last success.
    pub renewed: Option<Renewed>,
    /// Failures in a row since then.
    pub failures: u32,
    /// The last of them.
    pub failure: Option<Failure>,
}

/// A renewal that succeeded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Renewed {
    /// When.
    #[serde(with = "seconds")]
    pub at: Timestamp,
    /// The end of the new certificate.
    #[serde(with = "seconds")]
    pub not_after: Timestamp,
}

/// A renewal that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Failure {
    /// When.
    #[serde(with = "seconds")]
    pub at: Timestamp,
    /// Why.
    pub message: String,
}

/// The largest record that is read, in bytes: a message and two times take less than 4 KiB.
const SIZE_LIMIT: u64 = 16 * 1024;

/// Of a message, what is kept, in characters.
const MESSAGE_LIMIT: usize = 500;

impl Record {
    /// Where the record of a certificate file is: `.NAME.roleseal-renewal` in its directory, behind symbolic links.
    pub fn path(certificate: &Path) -> io::Result<PathBuf> {
        beside(&target(certificate), "renewal")
    }

    /// The record of a certificate file. One that is missing or unreadable tells of nothing.
    pub fn read(certificate: &Path) -> Record {
        let text = Record::path(certificate).and_then(|path| files::read(&path, SIZE_LIMIT));
        let record = text
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok());
        let mut record: Record = record.unwrap_or_default();
        if let Some(failure) = &mut record.failure {
            failure.message = shortened(&failure.message); // whoever wrote it
        }
        record
    }

    /// The record after a renewal that succeeded.
    #[must_use]
    pub fn after_success(at: Timestamp, not_after: Timestamp) -> Record {
        Record {
            renewed: Some(Renewed { at, not_after }),
            ..Record::default()
        }
    }

    /// The record once the certificate is no longer due, however that came: the failures are over.
    #[must_use]
    pub fn without_failures(self) -> Record {
        Record {
            failures: 0,
            failure: None,
            ..self
        }
    }

    /// The record after a renewal that failed.
    #[must_use]
    pub fn after_failure(self, at: Timestamp, message: &str) -> Record {
        let message = shortened(message);
        Record {
            failures: self.failures.saturating_add(1),
            failure: Some(Failure { at, message }),
            ..self
        }
    }
}

/// Behind the links of the last name.
pub fn target(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// The hidden file for that purpose in the directory of `target`.
pub fn beside(target: &Path, purpose: &str) -> io::Result<PathBuf> {
    let name = target
        .file_name()
        .ok_or_else(|| io::Error::other("not a file's name"))?;
    Ok(target.with_file_name(format!(".{}.roleseal-{purpose}", name.display())))
}

fn shortened(message: &str) -> String {
    message.chars().take(MESSAGE_LIMIT).collect()
}

/// A time as seconds since the epoch.
mod seconds {
    use jiff::Timestamp;
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;

    pub(super) fn serialize<S: Serializer>(time: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_i64(time.as_second())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
        Timestamp::from_second(i64::deserialize(from)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let certificate = directory.path().join("web.pem");
        assert_eq!(Record::read(&certificate), Record::default());
        let (at, end) = (time("2026-11-29T12:00:00Z"), time("2026-12-29T12:00:00Z"));
        let record = Record::after_success(at, end)
            .after_failure(at, "no")
            .after_failure(at, &"n".repeat(100_000));
        assert_eq!(record.failures, 2);
        let path = Record::path(&certificate).unwrap();
        std::fs::write(&path, serde_json::to_vec(&record).unwrap()).unwrap();
        assert_eq!(Record::read(&certificate), record);
        for garbage in [
            "",
            "{",
            "[]",
            "{\"failures\":-1}",
            &"{\"x\":".repeat(10_000),
        ] {
            std::fs::write(&path, garbage).unwrap();
            assert_eq!(Record::read(&certificate), Record::default());
        }
        std::fs::write(&path, "{\"failures\":3,\"later\":[]}").unwrap();
        assert_eq!(Record::read(&certificate).failures, 3);
    }
}
