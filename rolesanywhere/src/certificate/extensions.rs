//! The extensions that AWS looks at.

use std::fmt;
use std::net::IpAddr;

use der::Decode;
use der::asn1::ObjectIdentifier;
use der::oid::AssociatedOid;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{
    BasicConstraints, CertificatePolicies, CrlDistributionPoints, ExtendedKeyUsage,
    InhibitAnyPolicy, KeyUsage, NameConstraints, PolicyConstraints, PolicyMappings, SubjectAltName,
};

use super::{Attribute, Certificate, CertificateError, name};

/// A subject alternative name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AlternativeName {
    /// A DNS name.
    Dns(String),
    /// A URI.
    Uri(String),
    /// A directory name, attribute by attribute.
    Directory(Vec<Attribute>),
    /// Any other, which AWS makes nothing of: its kind, and its text.
    Other(&'static str, String),
}

/// `clientAuth`
const CLIENT_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2");

/// `anyExtendedKeyUsage`
const ANY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37.0");

/// CA:TRUE or CA:FALSE, and the limit of CAs below; `None` without the extension.
pub(super) fn basic_constraints(
    certificate: &Certificate,
) -> Result<Option<(bool, Option<u8>)>, CertificateError> {
    let constraints = extension::<BasicConstraints>(certificate)?;
    Ok(constraints.map(|constraints| (constraints.ca, constraints.path_len_constraint)))
}

/// keyUsage; `None` without the extension.
pub(super) fn key_usage(certificate: &Certificate) -> Result<Option<KeyUsage>, CertificateError> {
    extension::<KeyUsage>(certificate)
}

/// Whether extendedKeyUsage has clientAuth; `None` without the extension.
pub(super) fn client_auth(certificate: &Certificate) -> Result<Option<bool>, CertificateError> {
    let usage = extension::<ExtendedKeyUsage>(certificate)?;
    Ok(usage.map(|usage| usage.0.contains(&CLIENT_AUTH)))
}

/// The extensions that a reader of certificates acts on (RFC 5280, 4.2 and 4.2.1). The others that the RFC defines must
/// not be critical.
const UNDERSTOOD: [ObjectIdentifier; 10] = [
    KeyUsage::OID,
    CertificatePolicies::OID,
    PolicyMappings::OID,
    SubjectAltName::OID,
    BasicConstraints::OID,
    NameConstraints::OID,
    PolicyConstraints::OID,
    ExtendedKeyUsage::OID,
    CrlDistributionPoints::OID,
    InhibitAnyPolicy::OID,
];

/// Returns the first critical extension that a reader does not understand.
pub(super) fn unknown_critical(certificate: &Certificate) -> Option<ObjectIdentifier> {
    let mut extensions = certificate.tbs().extensions().into_iter().flatten();
    let unknown = extensions.find(|one| one.critical && !UNDERSTOOD.contains(&one.extn_id));
    unknown.map(|one| one.extn_id)
}

/// Whether the certificate demands a policy, or forbids one to be mapped.
pub(super) fn has_policy_constraints(certificate: &Certificate) -> bool {
    let mut extensions = certificate.tbs().extensions().into_iter().flatten();
    extensions.any(|one| one.extn_id == PolicyConstraints::OID)
}

/// Whether extendedKeyUsage of a CA has clientAuth or any usage; `None` without the extension.
pub(super) fn issues_for_clients(ca: &Certificate) -> Result<Option<bool>, CertificateError> {
    let usage = extension::<ExtendedKeyUsage>(ca)?;
    Ok(usage.map(|usage| usage.0.contains(&CLIENT_AUTH) || usage.0.contains(&ANY_USAGE)))
}

pub(super) fn alternative_names(certificate: &Certificate) -> Vec<AlternativeName> {
    let names = general_names(certificate).unwrap_or_default();
    names.iter().map(AlternativeName::of).collect()
}

/// The subject alternative names as they are encoded.
pub(super) fn general_names(
    certificate: &Certificate,
) -> Result<Vec<GeneralName>, CertificateError> {
    let names = extension::<SubjectAltName>(certificate)?;
    Ok(names.map(|names| names.0).unwrap_or_default())
}

impl AlternativeName {
    pub(super) fn of(name: &GeneralName) -> AlternativeName {
        match name {
            GeneralName::DnsName(text) => AlternativeName::Dns(text.to_string()),
            GeneralName::UniformResourceIdentifier(text) => AlternativeName::Uri(text.to_string()),
            GeneralName::DirectoryName(name) => AlternativeName::Directory(name::attributes(name)),
            GeneralName::Rfc822Name(text) => AlternativeName::Other("email", text.to_string()),
            GeneralName::IpAddress(bytes) => AlternativeName::Other("IP", ip(bytes.as_bytes())),
            GeneralName::RegisteredId(oid) => AlternativeName::Other("RID", oid.to_string()),
            GeneralName::OtherName(other) => {
                AlternativeName::Other("otherName", other.type_id.to_string())
            }
            GeneralName::EdiPartyName(_) => AlternativeName::Other("ediPartyName", String::new()),
        }
    }
}

impl fmt::Display for AlternativeName {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            AlternativeName::Dns(text) => write!(f, "DNS:{text}"),
            AlternativeName::Uri(text) => write!(f, "URI:{text}"),
            AlternativeName::Directory(attributes) => {
                f.write_str("DirName:")?;
                attributes.iter().try_for_each(|attribute| {
                    let value = attribute.value.as_deref().unwrap_or("?");
                    write!(f, "/{}={value}", attribute.name)
                })
            }
            AlternativeName::Other(kind, text) => write!(f, "{kind}:{text}"),
        }
    }
}

fn ip(bytes: &[u8]) -> String {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        IpAddr::from(four).to_string()
    } else if let Ok(sixteen) = <[u8; 16]>::try_from(bytes) {
        IpAddr::from(sixteen).to_string()
    } else {
        "malformed".to_owned()
    }
}

pub(super) fn extension<'a, T: Decode<'a, Error = der::Error> + AssociatedOid>(
    certificate: &'a Certificate,
) -> Result<Option<T>, CertificateError> {
    match certificate.tbs().get_extension::<T>() {
        Ok(found) => Ok(found.map(|(_critical, extension)| extension)),
        Err(fault) => Err(CertificateError::new(format!(
            "an extension cannot be read: {fault}"
        ))),
    }
}
