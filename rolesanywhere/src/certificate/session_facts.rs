//! What a session that is made with a certificate carries: names and tags, for policies and for the audit.

use super::{AlternativeName, Attribute, Certificate};

/// What a session made with a leaf is called and tagged with, while the profile maps its attributes as AWS
/// does by default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionFacts {
    /// The default role session name: the serial number in hex.
    pub session_name: String,
    /// `sts:SourceIdentity`
    pub source_identity: String,
    /// The principal tags, `aws:PrincipalTag/NAME` in a policy.
    pub tags: Vec<Tag>,
    /// Tags that AWS does not set, and why.
    pub left_out: Vec<(String, &'static str)>,
}

/// A principal tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// Such as `x509Subject/CN`.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// The attributes that AWS's guide shows among the tags. It maps "all recognisable" ones, and lists them
/// nowhere.
const MAPPED: [&str; 6] = ["CN", "C", "O", "OU", "ST", "L"];

/// STS: a tag's value has at most so many characters.
const TAG_LIMIT: usize = 256;

impl SessionFacts {
    /// Of a leaf.
    pub fn of(leaf: &Certificate) -> SessionFacts {
        let mut facts = SessionFacts {
            session_name: leaf.serial().hex(),
            source_identity: source_identity(leaf),
            tags: Vec::new(),
            left_out: Vec::new(),
        };
        facts.add_names("x509Subject/", &leaf.subject_attributes());
        facts.add_names("x509Issuer/", &leaf.issuer_attributes());
        let names = leaf.alternative_names();
        // "The first value of the following types".
        let first = |pick: fn(&AlternativeName) -> Option<&String>| names.iter().find_map(pick);
        if let Some(name) = first(AlternativeName::dns) {
            facts.add("x509SAN/DNS".to_owned(), name.clone());
        }
        if let Some(name) = first(AlternativeName::uri) {
            facts.add("x509SAN/URI".to_owned(), name.clone());
        }
        if let Some(attributes) = names.iter().find_map(AlternativeName::directory) {
            facts.add_names("x509SAN/Name/", attributes);
        }
        facts
    }

    /// The value of the principal tag of that name.
    pub fn tag(&self, name: &str) -> Option<&str> {
        let tag = self.tags.iter().find(|tag| tag.name == name)?;
        Some(&tag.value)
    }

    /// A tag for each kind of attribute. A tag has one value: AWS joins those of one kind with slashes, in the
    /// certificate's order.
    fn add_names(&mut self, prefix: &str, attributes: &[Attribute]) {
        let mut kinds: Vec<&str> = Vec::new();
        for attribute in attributes {
            if !kinds.contains(&attribute.name.as_str()) {
                kinds.push(&attribute.name);
            }
        }
        for kind in kinds {
            let name = format!("{prefix}{kind}");
            let of_kind = attributes.iter().filter(|attribute| attribute.name == kind);
            let values: Option<Vec<&str>> = of_kind.map(|one| one.value.as_deref()).collect();
            match values {
                None => self.left_out.push((name, "its value is no text")),
                Some(_) if !MAPPED.contains(&kind) => {
                    self.left_out
                        .push((name, "AWS does not document that it maps it"));
                }
                Some(values) => self.add(name, values.join("/")),
            }
        }
    }

    fn add(&mut self, name: String, value: String) {
        if value.chars().count() > TAG_LIMIT {
            self.left_out
                .push((name, "its value is longer than a tag's may be, 256"));
        } else if value.is_empty() {
            self.left_out.push((name, "its value is empty"));
        } else if !value.chars().all(in_tags) {
            self.left_out
                .push((name, "its value has a character that a tag may not have"));
        } else {
            self.tags.push(Tag { name, value });
        }
    }
}

/// "Source identity rules" of the guide.
fn source_identity(leaf: &Certificate) -> String {
    match leaf.common_name() {
        None => format!("ID={}", leaf.serial().hex()),
        Some(name) if name.chars().count() <= 61 => format!("CN={name}"),
        Some(name) => name,
    }
}

/// Whether it can be a tag's value. The service ignores others.
pub fn is_tag_value(text: &str) -> bool {
    !text.is_empty() && text.chars().count() <= TAG_LIMIT && text.chars().all(in_tags)
}

/// STS's pattern of a tag's value: letters, digits, spaces and `_.:/=+-@`.
fn in_tags(c: char) -> bool {
    c.is_alphanumeric() || c == ' ' || c == '\u{a0}' || "_.:/=+-@".contains(c)
}

impl AlternativeName {
    fn dns(&self) -> Option<&String> {
        match self {
            AlternativeName::Dns(name) => Some(name),
            _ => None,
        }
    }

    fn uri(&self) -> Option<&String> {
        match self {
            AlternativeName::Uri(name) => Some(name),
            _ => None,
        }
    }

    fn directory(&self) -> Option<&Vec<Attribute>> {
        match self {
            AlternativeName::Directory(attributes) => Some(attributes),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use openssl::x509::X509;
    use openssl::x509::extension::SubjectAlternativeName;

    use super::super::testing::{Issued, alternative, constraints, ec_p256, signing};
    use super::*;

    fn tags(facts: &SessionFacts) -> Vec<(&str, &str)> {
        let tags = facts.tags.iter();
        tags.map(|tag| (&*tag.name, &*tag.value)).collect()
    }

    /// The example of the guide, with the name of another company.
    #[test]
    fn names_become_tags() {
        let key = ec_p256();
        let issuer = vec![
            ("C", "DE"),
            ("O", "Bank"),
            ("OU", "PKI"),
            ("ST", "Hessen"),
            ("CN", "Issuing CA"),
            ("L", "Frankfurt"),
        ];
        let builder = X509::builder().unwrap();
        let context = builder.x509v3_context(None, None);
        let names = SubjectAlternativeName::new()
            .email("a@bank.test")
            .dns("a.bank.test")
            .uri("spiffe://bank.test/a")
            .dns("b.bank.test")
            .uri("spiffe://bank.test/b")
            .ip("192.0.2.1")
            .build(&context)
            .unwrap();
        let leaf = Issued {
            issuer,
            serial: "291",
            ..Issued::leaf(&key).with(vec![constraints(false, None), signing(), names])
        }
        .read();
        let facts = SessionFacts::of(&leaf);
        assert_eq!(
            tags(&facts),
            [
                ("x509Subject/CN", "web"),
                ("x509Issuer/C", "DE"),
                ("x509Issuer/O", "Bank"),
                ("x509Issuer/OU", "PKI"),
                ("x509Issuer/ST", "Hessen"),
                ("x509Issuer/CN", "Issuing CA"),
                ("x509Issuer/L", "Frankfurt"),
                ("x509SAN/DNS", "a.bank.test"),
                ("x509SAN/URI", "spiffe://bank.test/a"),
            ]
        );
        assert_eq!(facts.tag("x509SAN/DNS"), Some("a.bank.test"));
        assert_eq!(facts.session_name, "0123");
        let names: Vec<String> = leaf
            .alternative_names()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(names[0], "email:a@bank.test");
        assert_eq!(names[5], "IP:192.0.2.1");
    }

    #[test]
    fn the_values_of_one_kind_are_joined_in_their_order() {
        let key = ec_p256();
        let subject = vec![
            ("CN", "alice"),
            ("OU", "Security"),
            ("OU", "Engineering"),
            ("OU", "Research"),
        ];
        let leaf = Issued {
            subject,
            ..Issued::leaf(&key)
        }
        .read();
        let facts = SessionFacts::of(&leaf);
        assert_eq!(
            facts.tag("x509Subject/OU"),
            Some("Security/Engineering/Research")
        );
    }

    #[test]
    fn the_source_identity_follows_the_common_name() {
        let key = ec_p256();
        let of = |name: Option<&str>, serial| {
            let name: Option<&'static str> =
                name.map(|name| &*Box::leak(name.to_owned().into_boxed_str()));
            let subject = name.map_or(vec![("O", "bank")], |name| vec![("CN", name)]);
            let leaf = Issued {
                subject,
                serial,
                ..Issued::leaf(&key)
            };
            SessionFacts::of(&leaf.read()).source_identity
        };
        let (short, long) = ("n".repeat(61), "n".repeat(62));
        assert_eq!(of(Some(&short), "1"), format!("CN={short}"));
        assert_eq!(of(Some(&long), "1"), long);
        assert_eq!(of(None, "291"), "ID=0123");
        assert_eq!(of(None, "17767"), "ID=4567");
    }

    #[test]
    fn what_aws_ignores_is_no_tag() {
        let key = ec_p256();
        let subject = vec![
            ("CN", "web"),
            ("O", "A&B"),
            ("DC", "bank"),
            ("OU", "Zürich 1"),
        ];
        let extensions = vec![
            constraints(false, None),
            signing(),
            alternative("*.bank.test"),
        ];
        let leaf = Issued {
            subject,
            ..Issued::leaf(&key).with(extensions)
        }
        .read();
        let facts = SessionFacts::of(&leaf);
        assert_eq!(
            tags(&facts),
            [
                ("x509Subject/CN", "web"),
                ("x509Subject/OU", "Zürich 1"),
                ("x509Issuer/CN", "ca"),
            ]
        );
        let left_out: Vec<&str> = facts.left_out.iter().map(|(name, _)| &**name).collect();
        assert_eq!(left_out, ["x509Subject/O", "x509Subject/DC", "x509SAN/DNS"]);
    }
}
