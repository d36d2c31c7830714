//! PKCS#10 certificate requests (RFC 2986) for what AWS wants of a leaf: `digitalSignature`, `clientAuth`, no CA.

mod names;

use der::asn1::{Any, BitString, ObjectIdentifier, SetOfVec};
use der::pem::LineEnding;
use der::{Decode, Encode};
use rolesanywhere::certificate::{KeyKind, PublicKey};
use token::Signature;
use token::operator::PublicKeyInfo;
use x509_cert::SubjectPublicKeyInfo;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{
    BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages, SubjectAltName,
};
use x509_cert::ext::{Extension, ToExtension};
use x509_cert::name::Name;
use x509_cert::request::{CertReq, CertReqInfo, ExtensionReq, Version};
use x509_cert::spki::AlgorithmIdentifier;

use super::Failure;
pub(crate) use names::{AltNameArguments, Subject};

/// A request whose signature is its own key's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CertificationRequest {
    /// As it is sent to a CA.
    pub(crate) der: Vec<u8>,
    /// DER of its `SubjectPublicKeyInfo`.
    pub(crate) public_key: Vec<u8>,
    /// Its subject, RFC 4514.
    pub(crate) subject: String,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// Whom the certificate is to name.
    pub(crate) subject: Name,
    /// By which other names.
    pub(crate) alt_names: Vec<GeneralName>,
}

const LABEL: &str = "CERTIFICATE REQUEST";
/// What older programs write.
const OLD_LABEL: &str = "NEW CERTIFICATE REQUEST";

const SHA256_WITH_RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");
const ECDSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
const CLIENT_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2");

impl Wanted {
    /// DER of the `CertificationRequestInfo` that the key is to sign.
    pub(crate) fn info(&self, key: &PublicKeyInfo) -> Result<Vec<u8>, Failure> {
        let fault = |error: der::Error| Failure::failed(format!("the request: {error}"));
        let public_key = SubjectPublicKeyInfo::from_der(&key.0)
            .map_err(|error| Failure::failed(format!("the token's public key: {error}")))?;
        let attributes = self.attributes().map_err(fault)?;
        let info = CertReqInfo {
            version: Version::V1,
            subject: self.subject.clone(),
            public_key,
            attributes,
        };
        info.to_der().map_err(fault)
    }

    fn attributes(&self) -> der::Result<SetOfVec<x509_cert::attr::Attribute>> {
        let usage = KeyUsage(KeyUsages::DigitalSignature.into());
        let purpose = ExtendedKeyUsage(vec![CLIENT_AUTH]);
        let constraints = BasicConstraints {
            ca: false,
            path_len_constraint: None,
        };
        let mut extensions: Vec<Extension> = vec![
            (&constraints).to_extension(&self.subject, &[])?,
            (&usage).to_extension(&self.subject, &[])?,
            (&purpose).to_extension(&self.subject, &[])?,
        ];
        if !self.alt_names.is_empty() {
            let names = SubjectAltName(self.alt_names.clone());
            extensions.push((&names).to_extension(&self.subject, &[])?);
        }
        SetOfVec::try_from(vec![ExtensionReq(extensions).try_into()?])
    }
}

impl CertificationRequest {
    /// From what was signed, and the signature, which must be the key's.
    pub(crate) fn assemble(
        info: &[u8],
        signature: &Signature,
    ) -> Result<CertificationRequest, Failure> {
        let assembled = || -> der::Result<Vec<u8>> {
            let info = CertReqInfo::from_der(info)?;
            let algorithm =
                match PublicKey::from_der(&info.public_key.to_der()?).map(|key| key.kind()) {
                    Ok(KeyKind::Rsa(_)) => AlgorithmIdentifier {
                        oid: SHA256_WITH_RSA,
                        parameters: Some(Any::null()),
                    },
                    _ => AlgorithmIdentifier {
                        oid: ECDSA_WITH_SHA256,
                        parameters: None,
                    },
                };
            let signature = BitString::from_bytes(&signature.0)?;
            CertReq {
                info,
                algorithm,
                signature,
            }
            .to_der()
        };
        let der = assembled().map_err(|error| Failure::failed(format!("the request: {error}")))?;
        CertificationRequest::from_der(&der).map_err(|fault| {
            Failure::failed(format!(
                "the token's signature is not good: {fault}; nothing was written"
            ))
        })
    }

    /// Reads one and checks its signature. The error says what is wrong with it.
    pub(crate) fn from_der(der: &[u8]) -> Result<CertificationRequest, String> {
        let request =
            CertReq::from_der(der).map_err(|error| format!("not a PKCS#10 request: {error}"))?;
        let parts = || -> der::Result<_> {
            let whole = request.to_der()?;
            let info = request.info.to_der()?;
            Ok((whole, info, request.info.public_key.to_der()?))
        };
        let (whole, info, public_key) = parts().map_err(|error| error.to_string())?;
        if whole != der {
            return Err("its DER is not the one way to write it".to_owned());
        }
        let key = PublicKey::from_der(&public_key).map_err(|error| error.to_string())?;
        let expected = match key.kind() {
            KeyKind::Rsa(_) => (SHA256_WITH_RSA, Some(Any::null())),
            _ => (ECDSA_WITH_SHA256, None),
        };
        if (request.algorithm.oid, request.algorithm.parameters) != expected {
            return Err(
                "it is signed in another way than with SHA-256 by its own kind of key".to_owned(),
            );
        }
        let signature = request.signature.as_bytes().unwrap_or_default();
        if !key.verifies(&info, signature) {
            return Err("its signature is not its key's".to_owned());
        }
        Ok(CertificationRequest {
            der: der.to_vec(),
            public_key,
            subject: request.info.subject.to_string(),
        })
    }

    /// From PEM or DER, and nothing else beside it.
    pub(crate) fn read(bytes: &[u8]) -> Result<CertificationRequest, String> {
        if !bytes.starts_with(b"-----BEGIN") {
            return CertificationRequest::from_der(bytes);
        }
        match der::pem::decode_vec(bytes) {
            Ok((LABEL | OLD_LABEL, der)) => CertificationRequest::from_der(&der),
            Ok((label, _)) => Err(format!("its PEM is a {label}, and no {LABEL}")),
            Err(error) => Err(format!("its PEM cannot be read: {error}")),
        }
    }

    /// As PEM.
    pub(crate) fn to_pem(&self) -> Result<String, Failure> {
        der::pem::encode_string(LABEL, LineEnding::LF, &self.der)
            .map_err(|error| Failure::failed(format!("the request: {error}")))
    }
}

#[cfg(test)]
mod tests;
