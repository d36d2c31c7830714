//! What `renew` of an identity says, what there is to renew, and how the last renewals went.

mod record;

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rolesanywhere::certificate::{self, CertificationRequest, Proof};

use crate::certificate::{Certificate, CertificateSource, LeafSource};
pub use record::{Failure, Record, Renewed, beside, target};

/// `renew` of an identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// For `/bin/sh`.
    pub command: String,
    /// How long before the certificate's end; `None` for a third of its lifetime.
    pub before: Option<Duration>,
    /// The certificate request.
    pub csr: PathBuf,
    /// How long the command may take.
    pub timeout: Duration,
}

/// What there is to renew.
#[derive(Debug)]
pub struct RenewalInput {
    /// The certificate request.
    pub request: CertificationRequest,
    /// `None` where there is no such file: it was deleted, or never made.
    pub certificate: Option<Certificate>,
}

impl Settings {
    /// When a certificate with this validity is to be renewed. One that is due again as soon as it is issued, since the
    /// CA's certificates are shorter than `before`, is renewed when a third of its time is left.
    pub fn due_at(
        &self,
        not_before: Timestamp,
        not_after: Timestamp,
        record: &Record,
    ) -> Timestamp {
        let before = self
            .before
            .unwrap_or_else(|| third(not_before.duration_until(not_after)));
        let due = not_after.checked_sub(before).unwrap_or(Timestamp::MIN);
        match &record.renewed {
            Some(last) if last.not_after == not_after && due <= last.at => {
                let left = Duration::try_from(last.at.duration_until(not_after));
                let wait = left.unwrap_or_default() * 2 / 3;
                last.at.saturating_add(wait).unwrap_or(due)
            }
            _ => due,
        }
    }
}

fn third(lifetime: jiff::SignedDuration) -> Duration {
    Duration::try_from(lifetime).unwrap_or_default() / 3
}

impl RenewalInput {
    /// Reads request and certificate, which must be of one key.
    pub fn read(source: &CertificateSource, settings: &Settings) -> Result<RenewalInput, String> {
        let (request, _) = read_request(&settings.csr)?;
        let path = file(source)?;
        if is_missing(path) {
            let certificate = None;
            return Ok(RenewalInput {
                request,
                certificate,
            });
        }
        if holds_a_key(path) {
            return Err(format!(
                "{}: there is a private key in it, which a renewal would destroy: keep the certificate in a \
                 file of its own",
                path.display()
            ));
        }
        let certificate = source.load(None)?;
        if certificate.spki != request.public_key() {
            return Err(format!(
                "{}: the certificate request is for another key than the certificate {}: make one for this \
                 key",
                settings.csr.display(),
                path.display()
            ));
        }
        Ok(RenewalInput {
            request,
            certificate: Some(certificate),
        })
    }
}

/// The request of a file, which is PEM: the command is given the file as it is.
fn read_request(path: &Path) -> Result<(CertificationRequest, Proof), String> {
    let remedy = match is_missing(path) {
        true => {
            ": make it with the key (roleseal-admin csr --out), or say where it is: renew = { csr = … }"
        }
        false => "",
    };
    certificate::read(path)
        .and_then(|bytes| CertificationRequest::from_pem_for_ca(&String::from_utf8_lossy(&bytes)))
        .map_err(|error| {
            format!(
                "the certificate request {}: {error}{remedy}",
                path.display()
            )
        })
}

/// Whether there is no such file; one that this user may not see is not missing.
fn is_missing(path: &Path) -> bool {
    matches!(path.try_exists(), Ok(false))
}

/// The file of the leaf; only such certificates have settings.
pub fn file(source: &CertificateSource) -> Result<&Path, String> {
    match &source.leaf {
        LeafSource::File(path) => Ok(path),
        LeafSource::Token(_) => Err("its certificate is on the token".to_owned()),
    }
}

/// Why it cannot be told that the certificate request is its key's, which a CA may find out.
pub fn doubt(settings: &Settings) -> Option<String> {
    let (_, proof) = read_request(&settings.csr).ok()?;
    let path = settings.csr.display();
    let why = proof.err()?;
    Some(format!(
        "the certificate request {path}: {why}; renewals use it as it is"
    ))
}

/// Why a new certificate could not be put in its place, as far as this process can tell.
pub fn objection_to_writing(certificate: &Path) -> Option<String> {
    let target = target(certificate);
    let directory = target.parent()?;
    let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    let error = rustix::fs::access(directory, access).err()?;
    Some(format!(
        "a renewed certificate cannot be put into {}: {error}",
        directory.display()
    ))
}

/// Whether a file holds a private key beside certificates, which a renewal would destroy.
fn holds_a_key(path: &Path) -> bool {
    files::read(path, SIZE_LIMIT).is_ok_and(|text| {
        text.windows(KEY_MARK.len())
            .any(|window| window == KEY_MARK)
    })
}

/// Of a certificate file, in bytes: more than any chain has.
const SIZE_LIMIT: u64 = 1024 * 1024;

const KEY_MARK: &[u8] = b"PRIVATE KEY-----";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_missing_request_it_is_said_how_to_make_it() {
        let error = read_request(Path::new("/nonexistent/web.csr")).unwrap_err();
        assert!(error.contains("roleseal-admin csr --out"), "{error}");
    }

    /// A file where a directory should be, since root may enter every directory.
    #[test]
    fn what_cannot_be_reached_is_not_missing() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = read_request(&file.path().join("web.csr")).unwrap_err();
        assert!(!error.contains("make it"), "{error}");
        assert!(!is_missing(&file.path().join("web.pem")));
        assert!(is_missing(Path::new("/nonexistent/web.pem")));
    }

    #[test]
    fn the_window_opens_a_while_before_the_end() {
        let settings = |before: Option<u64>| Settings {
            command: "true".to_owned(),
            before: before.map(Duration::from_secs),
            csr: "/web.csr".into(),
            timeout: Duration::from_secs(1),
        };
        let time = |text: &str| text.parse::<Timestamp>().unwrap();
        let (from, until) = (time("2026-01-01T00:00:00Z"), time("2026-01-31T00:00:00Z"));
        for (before, expected) in [
            (None, "2026-01-21T00:00:00Z"),
            (Some(86_400), "2026-01-30T00:00:00Z"),
            (Some(864_000), "2026-01-21T00:00:00Z"),
            (Some(8_640_000), "2025-10-23T00:00:00Z"),
        ] {
            let due = settings(before).due_at(from, until, &Record::default());
            assert_eq!(due, time(expected), "{before:?}");
        }
        // One that ends before it begins, and the end of all time.
        assert_eq!(settings(None).due_at(until, from, &Record::default()), from);
        let due = settings(Some(86_400)).due_at(Timestamp::MIN, Timestamp::MIN, &Record::default());
        assert_eq!(due, Timestamp::MIN);
    }

    #[test]
    fn a_certificate_that_is_due_when_it_is_issued_waits_for_a_third_of_its_time() {
        let time = |text: &str| text.parse::<Timestamp>().unwrap();
        let settings = Settings {
            command: "true".to_owned(),
            before: Some(Duration::from_secs(10 * 86_400)),
            csr: "/web.csr".into(),
            timeout: Duration::from_secs(1),
        };
        let (from, until) = (time("2026-01-01T00:00:00Z"), time("2026-01-04T00:00:00Z"));
        let record = Record::after_success(from, until);
        let due = settings.due_at(from, until, &record);
        assert_eq!(due, time("2026-01-03T00:00:00Z"));
        // Another certificate is due as it says.
        let other = time("2026-01-05T00:00:00Z");
        assert!(settings.due_at(from, other, &record) < from);
    }
}
