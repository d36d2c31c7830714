//! Distinguished names, attribute by attribute.

use der::asn1::{
    Any, BmpString, Ia5StringRef, ObjectIdentifier, PrintableStringRef, TeletexStringRef,
    Utf8StringRef,
};
use der::{Tag, Tagged};
use x509_cert::name::Name;

/// One attribute of a distinguished name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// Its short name, such as `CN`; its object identifier where it has none.
    pub name: String,
    /// Its value; `None` where that is no text.
    pub value: Option<String>,
}

/// The short names of RFC 4519 and those that OpenSSL prints, for people.
const NAMES: [(&str, &str); 18] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.4", "SN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "street"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.12", "title"),
    ("2.5.4.42", "GN"),
    ("2.5.4.43", "initials"),
    ("2.5.4.44", "generationQualifier"),
    ("2.5.4.46", "dnQualifier"),
    ("2.5.4.65", "pseudonym"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];

/// All attributes of a name, in the order of the certificate.
pub(super) fn attributes(name: &Name) -> Vec<Attribute> {
    name.iter()
        .map(|attribute| Attribute {
            name: short_name(&attribute.oid),
            value: text(&attribute.value),
        })
        .collect()
}

fn short_name(oid: &ObjectIdentifier) -> String {
    let oid = oid.to_string();
    match NAMES.iter().find(|(known, _)| *known == oid) {
        Some((_, name)) => (*name).to_owned(),
        None => oid,
    }
}

/// The value of any of the string types of a DirectoryString, and of IA5String.
pub(super) fn text(value: &Any) -> Option<String> {
    match value.tag() {
        Tag::Utf8String => value
            .decode_as::<Utf8StringRef>()
            .ok()
            .map(|text| text.to_string()),
        Tag::PrintableString => value
            .decode_as::<PrintableStringRef>()
            .ok()
            .map(|text| text.to_string()),
        Tag::Ia5String => value
            .decode_as::<Ia5StringRef>()
            .ok()
            .map(|text| text.to_string()),
        Tag::TeletexString => value
            .decode_as::<TeletexStringRef>()
            .ok()
            .map(|text| text.to_string()),
        Tag::BmpString => value
            .decode_as::<BmpString>()
            .ok()
            .map(|text| text.to_string()),
        _ => None,
    }
}
