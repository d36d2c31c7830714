//! Endorsement certificates: what a TPM's vendor says of its endorsement key.

use der::asn1::ObjectIdentifier;
use der::{Decode, Encode};
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    UnparsedPublicKey, VerificationAlgorithm,
};
use x509_cert::Certificate;
use x509_cert::ext::pkix::BasicConstraints;

use crate::certificate::parse_pem;

/// The CAs of TPM vendors that a verifier trusts, each by itself.
#[derive(Debug)]
pub(crate) struct EndorsementCas(Vec<Certificate>);

const SHA256_WITH_RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");
const SHA384_WITH_RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.12");
const SHA512_WITH_RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.13");
const ECDSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
const ECDSA_WITH_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");

const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");

impl EndorsementCas {
    /// From a PEM text.
    pub(crate) fn parse(text: &str) -> Result<EndorsementCas, String> {
        let ders = parse_pem(text).map_err(|error| error.to_string())?;
        let parse = |der: &Vec<u8>| Certificate::from_der(der).map_err(|error| error.to_string());
        let cas: Vec<Certificate> = ders.iter().map(parse).collect::<Result<_, _>>()?;
        match cas.iter().find(|ca| !is_ca(ca)) {
            None => Ok(EndorsementCas(cas)),
            Some(other) => Err(format!("{} is not a CA", other.tbs_certificate().subject())),
        }
    }

    /// Says which of them has issued this certificate, or why none has.
    pub(crate) fn issuer_of(&self, der: &[u8]) -> Result<String, String> {
        let certificate =
            Certificate::from_der(der).map_err(|error| format!("cannot be read: {error}"))?;
        let tbs = certificate.tbs_certificate();
        let issuer = tbs.issuer().to_string();
        let whole = certificate.to_der().is_ok_and(|whole| whole == der);
        if !whole || tbs.signature() != certificate.signature_algorithm() {
            return Err(format!("of {issuer}: its DER contradicts itself"));
        }
        let mut named = self
            .0
            .iter()
            .filter(|ca| ca.tbs_certificate().subject() == tbs.issuer());
        if named.any(|ca| has_signed(ca, &certificate).unwrap_or(false)) {
            let serial = hex::encode(tbs.serial_number().as_bytes());
            return Ok(format!("number {serial} is issued by {issuer}"));
        }
        Err(format!("{issuer} is none of --ek-ca, or has not signed it"))
    }
}

fn is_ca(certificate: &Certificate) -> bool {
    let constraints = certificate
        .tbs_certificate()
        .get_extension::<BasicConstraints>();
    matches!(
        constraints,
        Ok(Some((_, BasicConstraints { ca: true, .. })))
    )
}

/// `None` for a kind of signature that is not looked at.
fn has_signed(ca: &Certificate, certificate: &Certificate) -> Option<bool> {
    let key = ca.tbs_certificate().subject_public_key_info();
    let parameters = key.algorithm.parameters.as_ref();
    let curve = parameters.and_then(|curve| curve.decode_as::<ObjectIdentifier>().ok());
    let algorithm: &dyn VerificationAlgorithm = match (certificate.signature_algorithm().oid, curve)
    {
        (SHA256_WITH_RSA, None) => &RSA_PKCS1_2048_8192_SHA256,
        (SHA384_WITH_RSA, None) => &RSA_PKCS1_2048_8192_SHA384,
        (SHA512_WITH_RSA, None) => &RSA_PKCS1_2048_8192_SHA512,
        (ECDSA_WITH_SHA256, Some(P256)) => &ECDSA_P256_SHA256_ASN1,
        (ECDSA_WITH_SHA384, Some(P256)) => &ECDSA_P256_SHA384_ASN1,
        (ECDSA_WITH_SHA256, Some(P384)) => &ECDSA_P384_SHA256_ASN1,
        (ECDSA_WITH_SHA384, Some(P384)) => &ECDSA_P384_SHA384_ASN1,
        _ => return None,
    };
    let key = UnparsedPublicKey::new(algorithm, key.subject_public_key.as_bytes()?);
    let signed = certificate.tbs_certificate().to_der().ok()?;
    let signature = certificate.signature().as_bytes()?;
    Some(key.verify(&signed, signature).is_ok())
}
