//! One renewal: from the certificate request to the new certificate in its file.

use std::ffi::OsStr;
use std::fs::File;
use std::time::{Duration, Instant};

use der::pem::LineEnding;
use jiff::Timestamp;

use super::command::{self, Stop};
use super::install;
use super::lock::Lock;
use config::IdentityConfig;
use config::certificate::{Certificate, CertificateSource, Stamp, read_file};
use config::renewal::{self, Present, Report};
use rolesanywhere::certificate::parse_pem;

/// A CA whose clock is ahead of this one's by so much is waited for.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(60);

/// Of a new certificate's file: it is public.
const MODE: u32 = 0o644;

/// Renews the identity's certificate; `force`: also before it is due.
pub(super) fn renew(identity: &IdentityConfig, force: bool, stop: &Stop) -> Result<Report, String> {
    let settings = identity
        .renewal
        .as_ref()
        .ok_or("it has no renew = { command = … } in the configuration")?;
    let source = &identity.certificate;
    let path = renewal::file(source)?;
    let csr = &settings.csr;
    let is_due = |present: &Present| {
        let due_at = |old: &Certificate| settings.due_at(old.not_before, old.not_after);
        let old = present.certificate.as_ref();
        force || old.is_none_or(|old| Timestamp::now() >= due_at(old))
    };
    if !is_due(&Present::read(source, settings)?) {
        return Ok(Report::NotDue);
    }
    let place = install::place(path).map_err(|error| error.to_string())?;
    let _lock = Lock::on(&place)
        .map_err(|error| format!("cannot lock {}: {error}", path.display()))?
        .ok_or("another renewal of it is under way")?;
    let stamp = Stamp::of(source.files());
    let present = Present::read(source, settings)?;
    if !is_due(&present) {
        return Ok(Report::NotDue); // another renewal has just put it there
    }
    let environment = [
        ("ROLESEAL_IDENTITY", OsStr::new(&identity.name)),
        ("ROLESEAL_CERTIFICATE", path.as_os_str()),
        ("ROLESEAL_CSR", csr.as_os_str()),
    ];
    let request = File::open(csr)
        .map_err(|error| format!("the certificate request {}: {error}", csr.display()))?;
    let answer = command::run(
        &settings.command,
        request,
        &environment,
        settings.timeout,
        stop,
    )
    .map_err(|error| error.to_string())?;
    let (new, pem) = check(&answer, &present, source)
        .map_err(|error| format!("the command's answer is not installed: {error}"))?;
    await_validity(&new, stop)?;
    if Stamp::of(source.files()) != stamp {
        return Err(
            "its certificate was replaced by somebody else meanwhile: that one stays".to_owned(),
        );
    }
    install::replace(path, pem.as_bytes(), MODE).map_err(|error| error.to_string())?;
    Ok(Report::Renewed {
        serial: new.serial,
        not_after: new.not_after,
    })
}

/// The certificate in a command's answer, if AWS would take it for this key and it is newer; and what to write
/// of the answer, which are the certificates alone.
pub(crate) fn check(
    answer: &str,
    present: &Present,
    source: &CertificateSource,
) -> Result<(Certificate, String), String> {
    let ders = parse_pem(answer).map_err(|error| error.to_string())?;
    let pem = to_pem(&ders)?;
    let mut all = ders;
    if let Some(chain) = &source.chain {
        all.extend(read_file(chain).map_err(|error| format!("{}: {error}", chain.display()))?);
    }
    let new = Certificate::new(all).map_err(|error| error.to_string())?;
    if new.spki != present.request.public_key() {
        return Err("it is for another key than the certificate request".to_owned());
    }
    new.check_chain().map_err(|error| error.to_string())?;
    let now = Timestamp::now();
    new.check_validity(now.max(new.not_before)) // for that one can wait
        .map_err(|error| error.to_string())?;
    let Some(old) = &present.certificate else {
        return Ok((new, pem));
    };
    if new.not_after <= old.not_after {
        return Err(format!(
            "it ends on {}, no later than the certificate that is there, {}",
            new.not_after, old.not_after
        ));
    }
    if old.has_issuer && !new.has_issuer && new.issuer == old.issuer {
        return Err(format!(
            "it lacks the certificate of its issuer ({}), which the old one has in its file: the command has \
             to write the chain, too",
            new.issuer
        ));
    }
    Ok((new, pem))
}

fn to_pem(ders: &[Vec<u8>]) -> Result<String, String> {
    let pem = |der: &Vec<u8>| der::pem::encode_string("CERTIFICATE", LineEnding::LF, der);
    let pems: Result<Vec<String>, _> = ders.iter().map(pem).collect();
    Ok(pems.map_err(|error| error.to_string())?.concat())
}

pub(crate) fn await_validity(new: &Certificate, stop: &Stop) -> Result<(), String> {
    let ahead = Timestamp::now().duration_until(new.not_before);
    let Ok(ahead) = Duration::try_from(ahead) else {
        return Ok(()); // it has begun
    };
    if ahead > CLOCK_TOLERANCE {
        let from = new.not_before;
        return Err(format!(
            "the command's answer is not valid before {from}: set the clock, or the CA's"
        ));
    }
    stop.pause(Instant::now() + ahead)
        .map_err(|error| error.to_string())
}
