//! What a certificate says of its subject, its issuer and in its SAN.
//!
//! From "Trust policy" (the trust model) and "Certificate attribute mapping" in the IAM Roles Anywhere user guide.

use x509_parser::prelude::{GeneralName, X509Certificate, X509Name};

/// The RDNs that have a short name in RFC 4514. The user guide maps "all recognizable RDNs" and shows C, CN, L, O, OU,
/// ST and UID; that it is these nine is a guess.
const RDNS: [(&str, &str); 9] = [
    ("CN", "2.5.4.3"),
    ("O", "2.5.4.10"),
    ("OU", "2.5.4.11"),
    ("C", "2.5.4.6"),
    ("ST", "2.5.4.8"),
    ("L", "2.5.4.7"),
    ("STREET", "2.5.4.9"),
    ("DC", "0.9.2342.19200300.100.1.25"),
    ("UID", "0.9.2342.19200300.100.1.1"),
];

const UNREADABLE_NAME: &str = "the certificate's SAN has a name that cannot be read";

/// Everything in a certificate that a mapping can name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attributes {
    pub(super) subject: Name,
    pub(super) issuer: Name,
    /// The first DNS name, URI and directory name of the SAN: "will map the first value of the following types".
    pub(super) dns: Option<String>,
    pub(super) uri: Option<String>,
    pub(super) directory: Name,
}

/// A distinguished name: object identifier and text of each attribute, in the certificate's order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Name(Vec<(String, String)>);

impl Attributes {
    pub(crate) fn read(certificate: &X509Certificate<'_>) -> Result<Attributes, String> {
        let mut attributes = Attributes {
            subject: Name::read(certificate.subject()),
            issuer: Name::read(certificate.issuer()),
            ..Attributes::default()
        };
        let names = certificate
            .subject_alternative_name()
            .map_err(|error| format!("cannot read the certificate's SAN: {error}"))?;
        for name in names.iter().flat_map(|found| &found.value.general_names) {
            match name {
                GeneralName::Invalid(..) => return Err(UNREADABLE_NAME.to_owned()),
                // The parser takes UTF-8; the type is IA5String (RFC 5280, 4.2.1.6).
                GeneralName::RFC822Name(text)
                | GeneralName::DNSName(text)
                | GeneralName::URI(text)
                    if !text.is_ascii() =>
                {
                    return Err(UNREADABLE_NAME.to_owned());
                }
                GeneralName::DNSName(name) if attributes.dns.is_none() => {
                    attributes.dns = Some((*name).to_owned());
                }
                GeneralName::URI(uri) if attributes.uri.is_none() => {
                    attributes.uri = Some((*uri).to_owned());
                }
                GeneralName::DirectoryName(name) if attributes.directory.0.is_empty() => {
                    attributes.directory = Name::read(name);
                }
                _ => {}
            }
        }
        Ok(attributes)
    }

    /// The subject's common name; several are put together as in a tag, which for the source identity is a guess.
    pub(crate) fn common_name(&self) -> Option<String> {
        self.subject.value("CN")
    }
}

impl Name {
    fn read(name: &X509Name<'_>) -> Name {
        let text = |attribute: &x509_parser::prelude::AttributeTypeAndValue<'_>| {
            let value = attribute.as_str().ok()?.to_owned();
            Some((attribute.attr_type().to_id_string(), value))
        };
        Name(name.iter_attributes().filter_map(text).collect())
    }

    /// Every recognised attribute by its short name, with its value.
    pub(super) fn values(&self) -> impl Iterator<Item = (&'static str, String)> {
        RDNS.iter()
            .filter_map(|(name, _)| self.value(name).map(|value| (*name, value)))
    }

    /// The value of the attribute with this short name or object identifier: "IAM Roles Anywhere combines multiple values
    /// into a single string, separating them with forward slashes (/) in the order they appear in the certificate".
    pub(super) fn value(&self, name: &str) -> Option<String> {
        let oid = oid_of(name)?;
        let values: Vec<&str> = self
            .0
            .iter()
            .filter(|(known, _)| known == oid)
            .map(|(_, value)| value.as_str())
            .collect();
        (!values.is_empty()).then(|| values.join("/"))
    }
}

/// The object identifier that a specifier means: "a string enforced by a standard (for example, OID)".
pub(super) fn oid_of(name: &str) -> Option<&str> {
    let known = RDNS.iter().find(|(short, _)| *short == name);
    known.map(|(_, oid)| *oid).or_else(|| {
        let is_oid = name.contains('.')
            && name
                .split('.')
                .all(|arc| !arc.is_empty() && arc.bytes().all(|byte| byte.is_ascii_digit()));
        is_oid.then_some(name)
    })
}
