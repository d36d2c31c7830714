//! One renewal: from the certificate request to the new certificate in its file.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::Path;

use config::IdentityConfig;
use config::certificate::{Certificate, CertificateSource, Stamp};
use config::renewal::{self, Record, RenewalInput, Settings};
use files::Place;
use jiff::Timestamp;

use crate::command::{self, CommandError, Stop};
use crate::lock::Lock;
use crate::new_certificate::{await_validity, check};
use crate::replace_file;

/// Of a new certificate's file, and of its record: they are public.
const MODE: u32 = 0o644;

/// An identity whose certificate can be renewed.
#[derive(Debug)]
pub(super) struct Renewal<'a> {
    pub(super) name: &'a str,
    settings: &'a Settings,
    source: &'a CertificateSource,
    certificate: &'a Path,
}

/// How a renewal went.
#[derive(Debug)]
pub(super) enum Report {
    /// The file has a new certificate.
    Renewed {
        serial: String,
        not_after: Timestamp,
    },
    /// The certificate ends late enough: it is due then.
    NotDue(Timestamp),
    /// Another process renews it.
    UnderWay,
}

/// Why there is no new certificate.
#[derive(Debug)]
pub(super) enum NotRenewed {
    /// A signal asked this process to end.
    Stopped,
    /// It failed.
    Failed(String),
}

impl From<String> for NotRenewed {
    fn from(why: String) -> NotRenewed {
        NotRenewed::Failed(why)
    }
}

impl<'a> Renewal<'a> {
    /// `None` where the configuration has no `renew` for the identity.
    pub(super) fn of(identity: &'a IdentityConfig) -> Option<Renewal<'a>> {
        Some(Renewal {
            name: &identity.name,
            settings: identity.renewal.as_ref()?,
            source: &identity.certificate,
            certificate: renewal::file(&identity.certificate).ok()?,
        })
    }

    /// What is run for a new certificate.
    pub(super) fn command(&self) -> &str {
        &self.settings.command
    }

    /// When the certificate that is there is due; `None` where there is none, which is due now.
    pub(super) fn due_at(&self) -> Result<Option<Timestamp>, String> {
        let present = RenewalInput::read(self.source, self.settings)?;
        Ok(self.due_at_of(present.certificate.as_ref()))
    }

    /// Renews it; `force`: also before it is due. How that went is left beside the certificate.
    pub(super) fn run(&self, force: bool, stop: &Stop) -> Result<Report, NotRenewed> {
        let result = match self.not_due(&self.present()?, force) {
            Some(due) => Ok(Report::NotDue(due)),
            None => self.run_locked(force, stop),
        };
        let (now, before) = (Timestamp::now(), Record::read(self.certificate));
        let record = match &result {
            Ok(Report::Renewed { not_after, .. }) => Record::after_success(now, *not_after),
            // Somebody else has put a certificate there since.
            Ok(Report::NotDue(_)) if before.failure.is_some() => before.without_failures(),
            Ok(Report::NotDue(_) | Report::UnderWay) | Err(NotRenewed::Stopped) => return result,
            Err(NotRenewed::Failed(why)) => before.after_failure(now, why),
        };
        // It is for the agent to tell: without it, the renewal went all the same.
        if let Err(error) = self.leave(&record) {
            crate::output::note(&format!("{}: {error}", self.name));
        }
        result
    }

    fn run_locked(&self, force: bool, stop: &Stop) -> Result<Report, NotRenewed> {
        let Renewal {
            settings, source, ..
        } = self;
        let (path, csr) = (self.certificate, &settings.csr);
        let place = self.place()?;
        let Some(_lock) =
            Lock::on(&place).map_err(|error| format!("cannot lock {}: {error}", path.display()))?
        else {
            return Ok(Report::UnderWay);
        };
        let stamp = Stamp::of(source.files());
        let present = self.present()?;
        if let Some(due) = self.not_due(&present, force) {
            return Ok(Report::NotDue(due)); // another renewal has just put it there
        }
        let environment = [
            ("ROLESEAL_IDENTITY", OsStr::new(self.name)),
            ("ROLESEAL_CERTIFICATE", path.as_os_str()),
            ("ROLESEAL_CSR", csr.as_os_str()),
        ];
        let request = open_request(csr)?;
        let answer = command::run(
            &settings.command,
            request,
            &environment,
            settings.timeout,
            stop,
        )
        .map_err(|error| match error {
            CommandError::Stopped => NotRenewed::Stopped,
            error => NotRenewed::Failed(error.to_string()),
        })?;
        let (new, pem) = check(&answer, &present, source)
            .map_err(|error| format!("cannot install the command's output: {error}"))?;
        await_validity(&new, stop)?;
        if Stamp::of(source.files()) != stamp {
            let replaced = "another program has replaced the certificate meanwhile: it stays";
            return Err(NotRenewed::Failed(replaced.to_owned()));
        }
        replace_file::replace(&place, pem.as_bytes(), MODE).map_err(|error| error.to_string())?;
        Ok(Report::Renewed {
            serial: new.serial,
            not_after: new.not_after,
        })
    }

    fn present(&self) -> Result<RenewalInput, String> {
        RenewalInput::read(self.source, self.settings)
    }

    /// When it is due, if that is later.
    fn not_due(&self, present: &RenewalInput, force: bool) -> Option<Timestamp> {
        let due = self.due_at_of(present.certificate.as_ref())?;
        (!force && Timestamp::now() < due).then_some(due)
    }

    fn due_at_of(&self, certificate: Option<&Certificate>) -> Option<Timestamp> {
        let certificate = certificate?;
        let record = Record::read(self.certificate);
        let (from, until) = (certificate.not_before, certificate.not_after);
        Some(self.settings.due_at(from, until, &record))
    }

    fn place(&self) -> Result<Place, String> {
        replace_file::place(self.certificate).map_err(|error| error.to_string())
    }

    fn leave(&self, record: &Record) -> Result<(), String> {
        let place = self.place()?; // root writes beside no file that another user's link names
        let beside = renewal::beside(&place.path, "renewal")
            .and_then(|path| place.beside(path.file_name().unwrap_or_default()));
        let place = beside.map_err(|error| error.to_string())?;
        let text = serde_json::to_vec(record).map_err(|error| error.to_string())?;
        replace_file::replace(&place, &text, MODE).map_err(|error| error.to_string())
    }
}

/// Behind no link of another user: root would send that user's choice of file to the CA.
fn open_request(path: &Path) -> Result<File, String> {
    let cannot = |why: String| format!("cannot read certificate request {}: {why}", path.display());
    let opened = Place::find(path).and_then(|place| place.open());
    match opened.map_err(|error| cannot(error.to_string()))? {
        Some((file, _)) => Ok(file),
        None => Err(cannot(io::Error::from(ErrorKind::NotFound).to_string())),
    }
}
