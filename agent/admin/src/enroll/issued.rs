//! The certificate: from a command, or from a file that somebody puts there; checked as AWS would.

use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use rolesanywhere::certificate::CertificationRequest;

use super::EnrollArguments;
use super::plan::Plan;
use crate::command::{self, CommandError, Stop};
use crate::failure::Failure;
use crate::input::read_text;
use crate::new_certificate::{await_validity, check};
use crate::output;
use crate::replace_file;
use config::certificate::{Certificate, CertificateSource, LeafSource};
use config::renewal::RenewalInput;
use token::signals::Signals;

/// How long a command may take: a CA may have somebody look at a first request.
const COMMAND_LIMIT: Duration = Duration::from_secs(600);

/// How long it waits for a file. Later, the same command goes on.
const FILE_LIMIT: Duration = Duration::from_secs(24 * 3600);

/// Between two looks at the file.
const PAUSE: Duration = Duration::from_millis(500);

/// A certificate is public.
const MODE: u32 = 0o644;

/// Gets it, and puts it in its place.
pub(super) fn obtain(
    arguments: &EnrollArguments,
    plan: &Plan,
    request: &CertificationRequest,
) -> Result<Certificate, Failure> {
    let stop =
        Stop::new().map_err(|error| Failure::failed(format!("cannot handle signals: {error}")))?;
    let judge = Judge::new(plan, request);
    let path = &plan.certificate;
    // Of an earlier run.
    let there = match arguments.cert {
        None if path.exists() => judge.read(path).ok(),
        _ => None,
    };
    let (certificate, pem) = match (there, &arguments.issue) {
        (Some(there), _) => there,
        (None, Some(command)) => judge.issue(command, plan, &stop)?,
        (None, None) => {
            let awaited = arguments.cert.as_deref().unwrap_or(path);
            judge.wait_for(awaited, plan, &stop)?
        }
    };
    await_validity(&certificate, &stop).map_err(|error| or_interrupted(error.as_str()))?;
    drop(stop);
    replace_file::replace(&replace_file::place(path)?, pem.as_bytes(), MODE)?;
    plan.give(path)?;
    Ok(certificate)
}

/// Whether a certificate is one for this request.
struct Judge {
    present: RenewalInput,
    source: CertificateSource,
}

impl Judge {
    fn new(plan: &Plan, request: &CertificationRequest) -> Judge {
        Judge {
            present: RenewalInput {
                request: request.clone(),
                certificate: None,
            },
            source: CertificateSource {
                leaf: LeafSource::File(plan.certificate.clone()),
                chain: None,
            },
        }
    }

    /// The certificate, and the PEM to install.
    fn judge(&self, text: &str) -> Result<(Certificate, String), String> {
        check(text, &self.present, &self.source)
    }

    fn read(&self, path: &Path) -> Result<(Certificate, String), Failure> {
        let fault =
            |what| Failure::failed(format!("cannot use certificate {}: {what}", path.display()));
        self.judge(&read_text(path)?).map_err(fault)
    }

    fn issue(
        &self,
        command: &str,
        plan: &Plan,
        stop: &Stop,
    ) -> Result<(Certificate, String), Failure> {
        let path = &plan.request;
        let request = File::open(path)
            .map_err(|error| Failure::failed(format!("cannot read {}: {error}", path.display())))?;
        let environment = [
            ("ROLESEAL_IDENTITY", OsStr::new(&plan.name)),
            ("ROLESEAL_CERTIFICATE", plan.certificate.as_os_str()),
            ("ROLESEAL_CSR", path.as_os_str()),
        ];
        let answer = command::run(command, request, &environment, COMMAND_LIMIT, stop);
        let answer = answer.map_err(|error| failure(&error))?;
        self.judge(&answer).map_err(|fault| {
            Failure::failed(format!("cannot install the command's output: {fault}"))
        })
    }

    fn wait_for(
        &self,
        path: &Path,
        plan: &Plan,
        stop: &Stop,
    ) -> Result<(Certificate, String), Failure> {
        let deadline = Instant::now() + FILE_LIMIT;
        let mut told = None;
        let mut last = None;
        loop {
            let fault = match path.exists() {
                true => match self.read(path) {
                    Ok(found) if is_settled(&mut last, &found.1) => return Ok(found),
                    Ok(_) => None,
                    Err(fault) => Some(format!("not yet: {fault}")),
                },
                false => Some(format!(
                    "waiting for {}: have CSR {} signed, and put leaf and intermediates there (PEM); if this ends \
                     meanwhile, the same command continues later",
                    path.display(),
                    plan.request.display()
                )),
            };
            if fault.is_some() && told != fault {
                fault.iter().for_each(|fault| output::note(fault));
                told = fault;
            }
            if Instant::now() >= deadline {
                return Err(Failure::failed(format!(
                    "cannot read certificate {}: it did not come within a day",
                    path.display()
                )));
            }
            stop.pause(Instant::now() + PAUSE)
                .map_err(|error| failure(&error))?;
        }
    }
}

/// The same twice: somebody may still be writing the intermediates behind the leaf.
fn is_settled(last: &mut Option<String>, pem: &str) -> bool {
    let same = last.as_deref() == Some(pem);
    *last = Some(pem.to_owned());
    same
}

fn failure(error: &CommandError) -> Failure {
    or_interrupted(&error.to_string())
}

/// A signal that was held back ends the command as it would have.
fn or_interrupted(error: &str) -> Failure {
    let signals = Signals::of_process().ok();
    match signals.and_then(Signals::arrived) {
        Some(signal) => Failure::Interrupted(signal),
        None => Failure::failed(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_grows_is_not_taken() {
        let mut last = None;
        let looks = ["leaf", "leaf, chain", "leaf, chain"];
        let taken = looks.map(|pem| is_settled(&mut last, pem));
        assert_eq!(taken, [false, false, true]);
    }
}
