//! Which attributes of a certificate become session tags.
//!
//! From "Certificate attribute mapping" in the IAM Roles Anywhere user guide, and "Passing session tags" in the IAM user
//! guide.

use super::attribute_mapping::Mapping;
use super::attributes::Attributes;

/// Session tags: at most this many, their values at most so long, of `[\p{L}\p{Z}\p{N}_.:/=+\-@]` ("Session tagging
/// operations", and the STS API's `Tag`).
pub(crate) const TAGS: usize = 50;
const TAG_VALUE_CHARS: usize = 256;

/// The tags of a session, and what the certificate had that became none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tags {
    /// Such as `x509Subject/CN`, with the value.
    pub(crate) tags: Vec<(String, String)>,
    /// The tag that it would have been, and why it is none.
    pub(crate) ignored: Vec<(String, String)>,
}

impl Attributes {
    /// The tags that `mapping` makes of them.
    pub(crate) fn tags(&self, mapping: &Mapping) -> Tags {
        let mut tags = Tags::default();
        for (name, value) in mapping.apply(self) {
            match unfit(&value) {
                // "The service ignores values that do not match this pattern. You cannot use these values in policy
                // conditions." That a value which is too long is ignored too, and no error, is a guess.
                Some(why) => tags.ignored.push((name, why)),
                None => tags.tags.push((name, value)),
            }
        }
        tags
    }
}

/// Why a value can be no session tag.
fn unfit(value: &str) -> Option<String> {
    let fits = |c: char| {
        // is_alphabetic is a little more than \p{L}: it has the vowel signs of Indic scripts too.
        c.is_alphabetic()
            || c.is_numeric()
            || (c.is_whitespace() && !c.is_control())
            || "_.:/=+-@".contains(c)
    };
    if let Some(c) = value.chars().find(|c| !fits(*c)) {
        return Some(format!("{value:?} has {c:?}, which a session tag cannot"));
    }
    let length = value.chars().count();
    if length > TAG_VALUE_CHARS {
        return Some(format!(
            "{length} characters; a session tag has {TAG_VALUE_CHARS} at the most"
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::attribute_mapping::{AttributeMapping, CertificateField};
    use super::super::certificate::Certificate;
    use super::*;
    use crate::command;

    /// A self-signed certificate, made by openssl.
    fn certificate(subject: &str, san: &str) -> Certificate {
        let dir = tempfile::tempdir().unwrap();
        let config = format!(
            "[req]\ndistinguished_name=dn\nx509_extensions=ext\nprompt=no\nstring_mask=utf8only\n[dn]\n{subject}\n\
             [ext]\nsubjectAltName={san}\n[dir]\nCN=Alice in the SAN\n"
        );
        std::fs::write(dir.path().join("config"), config).unwrap();
        let mut openssl = command::clean("openssl");
        openssl.current_dir(dir.path()).args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-utf8",
            "-config",
            "config",
            "-keyout",
            "key",
            "-days",
            "1",
        ]);
        let pem = String::from_utf8(command::output(&mut openssl).unwrap()).unwrap();
        Certificate::bundle_from_pem(&pem).unwrap().remove(0)
    }

    fn alice() -> Certificate {
        certificate(
            "CN=Alice\n0.OU=Security\n1.OU=Engineering\n2.OU=Research\nC=US\nemailAddress=alice@example.com",
            "DNS:example.com,DNS:second.example,URI:spiffe://example.com/workload/alice,email:a@example.com,dirName:dir",
        )
    }

    fn mapping(field: CertificateField, specifiers: &[&str]) -> Result<Mapping, String> {
        Mapping::new(&[AttributeMapping {
            certificate_field: field,
            specifiers: specifiers.iter().map(|text| (*text).to_owned()).collect(),
        }])
    }

    fn names(tags: &Tags) -> Vec<&str> {
        tags.tags.iter().map(|(name, _)| name.as_str()).collect()
    }

    #[test]
    fn by_default_every_recognised_attribute_is_a_tag() {
        let tags = alice().attributes().tags(&Mapping::default());
        let value = |name: &str| {
            let found = tags.tags.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.as_str())
        };
        assert_eq!(value("x509Subject/CN"), Some("Alice"));
        assert_eq!(
            value("x509Subject/OU"),
            Some("Security/Engineering/Research")
        );
        assert_eq!(value("x509Issuer/C"), Some("US"));
        assert_eq!(value("x509SAN/DNS"), Some("example.com"));
        assert_eq!(
            value("x509SAN/URI"),
            Some("spiffe://example.com/workload/alice")
        );
        assert_eq!(value("x509SAN/Name/CN"), Some("Alice in the SAN"));
        assert_eq!(tags.tags.len(), 9, "{:?}", names(&tags));
        assert_eq!(tags.ignored, []);
    }

    #[test]
    fn a_mapping_replaces_the_default_of_its_field_alone() {
        use CertificateField::{Issuer, San, Subject};
        let attributes = alice();
        let tags = |field, specifiers: &[&str]| {
            let mapping = mapping(field, specifiers).unwrap();
            attributes.attributes().tags(&mapping)
        };
        assert_eq!(
            names(&tags(Issuer, &["O"]))[..3],
            ["x509Subject/CN", "x509Subject/OU", "x509Subject/C"]
        );
        assert!(!names(&tags(Issuer, &["O"])).contains(&"x509Issuer/CN"));
        assert!(!names(&tags(Subject, &[])).contains(&"x509Subject/CN"));
        // emailAddress, which has no short name here.
        assert!(
            names(&tags(Subject, &["1.2.840.113549.1.9.1"]))
                .contains(&"x509Subject/1.2.840.113549.1.9.1")
        );
        let san = tags(San, &["URI", "Name/"]);
        assert!(
            names(&san).ends_with(&["x509SAN/URI", "x509SAN/Name/CN"]),
            "{san:?}"
        );
        for (field, specifier) in [
            (Subject, "cn"),
            (Subject, "DNS"),
            (San, "*"),
            (San, "CN"),
            (San, "Name/DNS"),
        ] {
            let error = mapping(field, &[specifier]).unwrap_err();
            assert!(error.contains(specifier), "{error}");
        }
    }

    #[test]
    fn what_a_session_tag_cannot_be_is_ignored_and_told() {
        let odd = certificate(
            "CN=web; drop\nO=Müller & Söhne\nL=Düsseldorf",
            &format!("DNS:{}", "a".repeat(257)),
        );
        let tags = odd
            .attributes()
            .tags(&mapping(CertificateField::Issuer, &[]).unwrap());
        assert_eq!(
            tags.tags,
            [("x509Subject/L".to_owned(), "Düsseldorf".to_owned())]
        );
        let ignored: Vec<&str> = tags.ignored.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(ignored, ["x509Subject/CN", "x509Subject/O", "x509SAN/DNS"]);
        assert!(
            tags.ignored[0].1.contains("';'") && tags.ignored[2].1.contains("257"),
            "{:?}",
            tags.ignored
        );
    }
}
