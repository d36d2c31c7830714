//! Endorsement certificates: what a TPM's vendor says of its endorsement key.

use rolesanywhere::certificate::{Certificate, parse};

/// The CAs of TPM vendors that a verifier trusts, each by itself.
#[derive(Debug)]
pub(crate) struct EndorsementCas(Vec<Certificate>);

impl EndorsementCas {
    /// From a PEM text, or one in DER.
    pub(crate) fn parse(bytes: &[u8]) -> Result<EndorsementCas, String> {
        let cas = parse(bytes).map_err(|error| error.to_string())?;
        match cas.iter().find(|ca| !ca.is_ca()) {
            None => Ok(EndorsementCas(cas)),
            Some(other) => Err(format!("{} is not a CA", other.subject())),
        }
    }

    /// Says which of them has issued this certificate, or why none has.
    pub(crate) fn issuer_of(&self, der: &[u8]) -> Result<String, String> {
        let certificate = Certificate::from_der(der.to_vec()).map_err(|error| error.to_string())?;
        let issuer = certificate.issuer();
        let mut named = self.0.iter().filter(|ca| ca.subject() == issuer);
        if named.any(|ca| certificate.is_signed_by(ca) == Some(true)) {
            let serial = certificate.serial().hex();
            return Ok(format!("number {serial} is issued by {issuer}"));
        }
        Err(format!("{issuer} is none of --ek-ca, or has not signed it"))
    }
}
