//! What a CA's command answers: whether it is a certificate that may be installed.

use std::time::{Duration, Instant};

use config::certificate::{Certificate, CertificateSource, read_file};
use config::renewal::RenewalInput;
use der::pem::LineEnding;
use jiff::Timestamp;
use rolesanywhere::certificate::parse_pem;

use crate::command::Stop;

/// A CA whose clock is ahead of this one's by so much is waited for.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(60);

/// Checks that AWS accepts the certificate in a command's output for this key, and that it is newer than the current one.
///
/// Returns it with the text to write: the certificates alone.
pub(crate) fn check(
    answer: &str,
    present: &RenewalInput,
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
        return Err("its public key is not the CSR's".to_owned());
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
            "it expires on {}, not after the current certificate, {}",
            new.not_after, old.not_after
        ));
    }
    if old.has_issuer && !new.has_issuer && new.issuer == old.issuer {
        return Err(format!(
            "the certificate of its issuer ({}) is missing, which the current file has: the command must \
             write the chain, too",
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
            "the new certificate is not valid before {from}: set this host's clock, or the CA's"
        ));
    }
    stop.pause(Instant::now() + ahead)
        .map_err(|error| error.to_string())
}
