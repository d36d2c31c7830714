//! New certificate requests (PKCS#10, RFC 2986), for what AWS wants of a leaf: `digitalSignature`, `clientAuth`, no CA.

mod names;

use der::asn1::{Any, BitString, ObjectIdentifier, SetOfVec};
use der::{Decode, Encode};
use rolesanywhere::certificate::{CertificationRequest, KeyKind, PublicKey};
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

use crate::failure::Failure;
pub(crate) use names::{AltNameArguments, Subject};

/// What is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// The subject of the certificate.
    pub(crate) subject: Name,
    /// Its subject alternative names.
    pub(crate) alt_names: Vec<GeneralName>,
}

const SHA256_WITH_RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");
const ECDSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
const CLIENT_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2");

impl Wanted {
    /// Encodes the `CertificationRequestInfo` (RFC 2986, 4.1) that the key signs.
    pub(crate) fn info(&self, key: &PublicKeyInfo) -> Result<Vec<u8>, Failure> {
        let fault = |error: der::Error| Failure::failed(format!("cannot encode the CSR: {error}"));
        let public_key = SubjectPublicKeyInfo::from_der(&key.0).map_err(|error| {
            Failure::failed(format!("cannot decode the token's public key: {error}"))
        })?;
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

/// Assembles the CSR from the signed info and its signature, which it verifies with the key in the info.
pub(crate) fn assemble(
    info: &[u8],
    signature: &Signature,
) -> Result<CertificationRequest, Failure> {
    let assembled = || -> der::Result<Vec<u8>> {
        let info = CertReqInfo::from_der(info)?;
        let key = PublicKey::from_der(&info.public_key.to_der()?);
        let algorithm = match key.map(|key| key.kind()) {
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
    let der =
        assembled().map_err(|error| Failure::failed(format!("cannot encode the CSR: {error}")))?;
    CertificationRequest::from_der(&der).map_err(|fault| {
        Failure::failed(format!(
            "cannot use the token's signature: {fault}; no file was written"
        ))
    })
}

#[cfg(test)]
mod tests;
