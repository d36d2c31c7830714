//! Endorsement certificates: what a TPM's vendor says of its endorsement key.

use jiff::Timestamp;
use rolesanywhere::certificate::{Certificate, check_validity, parse};

/// The CAs of TPM vendors that a verifier trusts, each by itself.
#[derive(Debug)]
pub(crate) struct EndorsementCas {
    cas: Vec<Certificate>,
    now: Timestamp,
}

impl EndorsementCas {
    /// From a PEM text, or one in DER; to judge certificates by at this time.
    pub(crate) fn parse(bytes: &[u8], now: Timestamp) -> Result<EndorsementCas, String> {
        let cas = parse(bytes).map_err(|error| error.to_string())?;
        match cas.iter().find(|ca| !ca.is_ca()) {
            None => Ok(EndorsementCas { cas, now }),
            Some(other) => Err(format!("{} is not a CA", other.subject())),
        }
    }

    /// Says which of them has issued this certificate, or why it proves nothing.
    pub(crate) fn issuer_of(&self, der: &[u8]) -> Result<String, String> {
        let certificate = Certificate::from_der(der.to_vec()).map_err(|error| error.to_string())?;
        let (issuer, serial) = (certificate.issuer(), certificate.serial().hex());
        let fault = |why: String| Err(format!("number {serial} of {issuer}: {why}"));
        let mut named = self
            .cas
            .iter()
            .filter(|ca| ca.subject() == issuer)
            .peekable();
        if named.peek().is_none() {
            return fault("its issuer is not in --ek-ca".to_owned());
        }
        if let Some(hash) = certificate.weak_hash() {
            return fault(format!(
                "it is signed with {hash}, which is broken: ask the vendor for a newer certificate"
            ));
        }
        let signed: Vec<_> = named.map(|ca| certificate.is_signed_by(ca)).collect();
        match (signed.contains(&Some(true)), signed.contains(&None)) {
            (true, _) => {}
            (false, true) => {
                let algorithm = certificate.signature_algorithm();
                return fault(format!(
                    "cannot verify its signature: {algorithm} is not supported"
                ));
            }
            (false, false) => return fault("it is not signed by the CA in --ek-ca".to_owned()),
        }
        let (from, until) = (certificate.not_before(), certificate.not_after());
        if let Err(error) = check_validity(from, until, self.now) {
            return fault(error.to_string());
        }
        Ok(format!(
            "number {serial} is issued by {issuer}, valid until {until}"
        ))
    }
}
