//! A profile's attribute mappings ("Certificate attribute mapping" in the user guide).

use serde::Deserialize;

use super::attributes::{Attributes, oid_of};

/// Which attributes of one field of the certificate become session tags; it replaces the field's default.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct AttributeMapping {
    /// The field.
    pub certificate_field: CertificateField,
    /// For subject and issuer `*`, or short names such as `CN`; for the SAN `DNS`, `URI`, `Name/*`, or `Name/CN`. An
    /// empty list maps nothing, as after all rules were deleted.
    pub specifiers: Vec<String>,
}

/// A field of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "each name says it")]
pub enum CertificateField {
    #[serde(rename = "x509Subject")]
    Subject,
    #[serde(rename = "x509Issuer")]
    Issuer,
    #[serde(rename = "x509SAN")]
    San,
}

/// Mappings, validated, with the defaults for fields that have none.
#[derive(Clone, Debug)]
pub(crate) struct Mapping {
    subject: Vec<Rdn>,
    issuer: Vec<Rdn>,
    san: Vec<San>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Rdn {
    All,
    One(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum San {
    Dns,
    Uri,
    Name(Rdn),
}

impl Default for Mapping {
    /// "The default mapping rules".
    fn default() -> Mapping {
        Mapping {
            subject: vec![Rdn::All],
            issuer: vec![Rdn::All],
            san: vec![San::Dns, San::Uri, San::Name(Rdn::All)],
        }
    }
}

impl Mapping {
    pub(crate) fn new(mappings: &[AttributeMapping]) -> Result<Mapping, String> {
        let mut mapping = Mapping::default();
        for (
            at,
            AttributeMapping {
                certificate_field,
                specifiers,
            },
        ) in mappings.iter().enumerate()
        {
            let mut earlier = mappings.iter().take(at);
            if earlier.any(|other| other.certificate_field == *certificate_field) {
                return Err(format!("{certificate_field:?} is mapped twice"));
            }
            let rdns = || {
                let rules = specifiers.iter().map(|text| Rdn::parse(text));
                rules.collect::<Result<Vec<_>, _>>()
            };
            match certificate_field {
                CertificateField::Subject => mapping.subject = rdns()?,
                CertificateField::Issuer => mapping.issuer = rdns()?,
                CertificateField::San => {
                    let rules = specifiers.iter().map(|text| San::parse(text));
                    mapping.san = rules.collect::<Result<_, _>>()?;
                }
            }
        }
        Ok(mapping)
    }

    /// Names and values of the tags, before it is known whether they can be tags.
    pub(super) fn apply(&self, attributes: &Attributes) -> Vec<(String, String)> {
        let mut tags = Vec::new();
        for (field, name, rules) in [
            ("x509Subject", &attributes.subject, &self.subject),
            ("x509Issuer", &attributes.issuer, &self.issuer),
        ] {
            for rule in rules {
                tags.extend(
                    rule.apply(name)
                        .into_iter()
                        .map(|(key, value)| (format!("{field}/{key}"), value)),
                );
            }
        }
        for rule in &self.san {
            let found = match rule {
                San::Dns => one("DNS", &attributes.dns),
                San::Uri => one("URI", &attributes.uri),
                San::Name(rdn) => {
                    let name = rdn.apply(&attributes.directory);
                    name.into_iter()
                        .map(|(key, value)| (format!("Name/{key}"), value))
                        .collect()
                }
            };
            tags.extend(
                found
                    .into_iter()
                    .map(|(key, value)| (format!("x509SAN/{key}"), value)),
            );
        }
        tags
    }
}

impl Rdn {
    fn parse(text: &str) -> Result<Rdn, String> {
        match text {
            "*" => Ok(Rdn::All),
            _ if oid_of(text).is_some() => Ok(Rdn::One(text.to_owned())),
            _ => Err(format!("no specifier of a name's attribute: {text}")),
        }
    }

    fn apply(&self, name: &super::attributes::Name) -> Vec<(String, String)> {
        match self {
            Rdn::All => name
                .values()
                .map(|(key, value)| (key.to_owned(), value))
                .collect(),
            Rdn::One(key) => name
                .value(key)
                .map(|value| (key.clone(), value))
                .into_iter()
                .collect(),
        }
    }
}

impl San {
    /// "Both Name and Name/ are equivalent to Name/*"; `*` "does not have a defined behaviour" here.
    fn parse(text: &str) -> Result<San, String> {
        match text {
            "DNS" => Ok(San::Dns),
            "URI" => Ok(San::Uri),
            "Name" | "Name/" => Ok(San::Name(Rdn::All)),
            _ => text
                .strip_prefix("Name/")
                .and_then(|rdn| Rdn::parse(rdn).ok())
                .map(San::Name)
                .ok_or_else(|| {
                    format!("no specifier of x509SAN (DNS, URI, Name/*, Name/CN): {text}")
                }),
        }
    }
}

fn one(key: &str, value: &Option<String>) -> Vec<(String, String)> {
    value
        .iter()
        .map(|value| (key.to_owned(), value.clone()))
        .collect()
}
