//! The names that a CA may issue (RFC 5280, section 4.2.1.10).
//!
//! Where the RFC leaves a case open, it is decided as OpenSSL does: the subject's emailAddress counts beside the
//! subject alternative names, too, and an empty constraint on URIs or on mailboxes matches none of them.

use std::fmt;

use der::asn1::{Ia5String, ObjectIdentifier};
use x509_cert::ext::pkix::NameConstraints;
use x509_cert::ext::pkix::constraints::name::GeneralSubtree;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::name::{Name, RelativeDistinguishedName};

use super::{AlternativeName, Certificate, CertificateError, extensions, name};

/// Why a CA may not have issued a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Violation {
    name: AlternativeName,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    NotPermitted,
    Excluded,
    /// A form that RFC 5280 defines no comparison for, or a malformed name.
    NotComparable,
}

/// How a name relates to a constraint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    OtherForm,
    Inside,
    Outside,
    NotComparable,
}

/// Reads those of a CA.
pub(super) fn of(ca: &Certificate) -> Result<Option<NameConstraints>, CertificateError> {
    extensions::extension(ca)
}

/// Finds the first name of `issued` that the constraints forbid. The error is about `issued`.
pub(super) fn violation(
    constraints: &NameConstraints,
    issued: &Certificate,
) -> Result<Option<Violation>, CertificateError> {
    let mut names = names(issued)?.into_iter();
    Ok(names.find_map(|name| {
        let kind = judge(constraints, &name)?;
        let name = AlternativeName::of(&name);
        Some(Violation { name, kind })
    }))
}

/// The subject, its mailboxes, and the subject alternative names.
fn names(certificate: &Certificate) -> Result<Vec<GeneralName>, CertificateError> {
    let subject = certificate.tbs().subject();
    let mut names = Vec::new();
    if !subject.is_empty() {
        names.push(GeneralName::DirectoryName(subject.clone()));
    }
    for attribute in subject.iter().filter(|one| one.oid == EMAIL_ADDRESS) {
        let text = name::text(&attribute.value).unwrap_or_default();
        let ascii = text.replace(|c: char| !c.is_ascii(), "?");
        names.extend(Ia5String::new(&ascii).map(GeneralName::Rfc822Name));
    }
    names.extend(extensions::general_names(certificate)?);
    Ok(names)
}

/// `id-emailAddress`
const EMAIL_ADDRESS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.1");

fn judge(constraints: &NameConstraints, name: &GeneralName) -> Option<Kind> {
    let relations = |subtrees: &Option<Vec<GeneralSubtree>>| -> Vec<Relation> {
        let subtrees = subtrees.iter().flatten();
        subtrees.map(|one| relation(one, name)).collect()
    };
    let permitted = relations(&constraints.permitted_subtrees);
    let excluded = relations(&constraints.excluded_subtrees);
    let is_permitted = permitted.contains(&Relation::Inside);
    if excluded.contains(&Relation::Inside) {
        Some(Kind::Excluded)
    } else if excluded.contains(&Relation::NotComparable)
        || !is_permitted && permitted.contains(&Relation::NotComparable)
    {
        Some(Kind::NotComparable)
    } else if !is_permitted && permitted.contains(&Relation::Outside) {
        Some(Kind::NotPermitted)
    } else {
        None
    }
}

fn relation(subtree: &GeneralSubtree, name: &GeneralName) -> Relation {
    use GeneralName as G;
    let inside = match (&subtree.base, name) {
        (G::DnsName(base), G::DnsName(name)) => Some(dns(base.as_str(), name.as_str())),
        (G::Rfc822Name(base), G::Rfc822Name(name)) => mailbox(base.as_str(), name.as_str()),
        (G::UniformResourceIdentifier(base), G::UniformResourceIdentifier(name)) => {
            host(name.as_str()).map(|host| domain(base.as_str(), host))
        }
        (G::DirectoryName(base), G::DirectoryName(name)) => Some(directory(base, name)),
        (G::IpAddress(base), G::IpAddress(name)) => address(base.as_bytes(), name.as_bytes()),
        (G::OtherName(base), G::OtherName(name)) if base.type_id == name.type_id => None,
        (G::RegisteredId(_), G::RegisteredId(_)) | (G::EdiPartyName(_), G::EdiPartyName(_)) => None,
        _ => return Relation::OtherForm,
    };
    // RFC 5280 uses neither, and lets a reader refuse them.
    let has_distance = subtree.minimum != 0 || subtree.maximum.is_some();
    match inside {
        _ if has_distance => Relation::NotComparable,
        None => Relation::NotComparable,
        Some(true) => Relation::Inside,
        Some(false) => Relation::Outside,
    }
}

/// Labels may be added on the left. A period in front, which the RFC does not have here, wants at least one.
fn dns(base: &str, name: &str) -> bool {
    let (base, name) = (base.to_ascii_lowercase(), name.to_ascii_lowercase());
    let added = name.strip_suffix(&base);
    added.is_some_and(|added| {
        added.is_empty() || added.ends_with('.') || base.starts_with('.') || base.is_empty()
    })
}

/// A constraint is a mailbox, a host, or, with a period in front, the hosts of a domain.
fn mailbox(base: &str, name: &str) -> Option<bool> {
    let (local, host) = name.rsplit_once('@')?;
    Some(match base.rsplit_once('@') {
        Some((base_local, base_host)) => {
            (base_local.is_empty() || base_local == local) && base_host.eq_ignore_ascii_case(host)
        }
        None => domain(base, host),
    })
}

/// A constraint is a host, or, with a period in front, the hosts of a domain.
fn domain(base: &str, host: &str) -> bool {
    match base.starts_with('.') {
        true => host.len() > base.len() && dns(base, host),
        false => !base.is_empty() && host.eq_ignore_ascii_case(base),
    }
}

/// The host of a URI; `None` where it has none, or an address in its place.
fn host(uri: &str) -> Option<&str> {
    let (_scheme, rest) = uri.split_once(':')?;
    let authority = rest.strip_prefix("//")?.split(['/', '?', '#']).next()?;
    let host = authority.rsplit('@').next()?;
    let host = host.split(':').next()?; // an IPv6 address becomes "["
    let is_name = !host.is_empty() && !host.starts_with('[');
    (is_name && host.parse::<std::net::Ipv4Addr>().is_err()).then_some(host)
}

/// A constraint is an address and a mask. IPv4 and IPv6 are one form of name.
fn address(base: &[u8], name: &[u8]) -> Option<bool> {
    if !matches!(base.len(), 8 | 32) || !matches!(name.len(), 4 | 16) {
        return None;
    }
    let (address, mask) = base.split_at(base.len() / 2);
    let bits = name.iter().zip(address).zip(mask);
    Some(
        name.len() == address.len() && { bits }
            .all(|((one, other), mask)| (one ^ other) & mask == 0),
    )
}

/// The constraint is the beginning of the name.
fn directory(base: &Name, name: &Name) -> bool {
    let (base, name): (Vec<_>, Vec<_>) = (
        base.iter_rdn().map(canonical).collect(),
        name.iter_rdn().map(canonical).collect(),
    );
    name.starts_with(&base)
}

/// The attributes as RFC 5280, section 7.1, compares them: type; text without case and surplus spaces, or the bytes.
fn canonical(rdn: &RelativeDistinguishedName) -> Vec<(ObjectIdentifier, Option<String>, Vec<u8>)> {
    let attributes = rdn
        .iter()
        .map(|attribute| match name::text(&attribute.value) {
            Some(text) => {
                let words: Vec<String> = text.split_whitespace().map(str::to_lowercase).collect();
                (attribute.oid, Some(words.join(" ")), Vec::new())
            }
            None => (attribute.oid, None, attribute.value.value().to_vec()),
        });
    let mut attributes: Vec<_> = attributes.collect();
    attributes.sort();
    attributes
}

/// About the certificate that was issued; the caller adds whose constraints.
impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let name = &self.name;
        match self.kind {
            Kind::NotPermitted => write!(f, "its name {name} is not permitted by"),
            Kind::Excluded => write!(f, "its name {name} is excluded by"),
            Kind::NotComparable => write!(f, "its name {name} cannot be compared with"),
        }
    }
}

#[cfg(test)]
mod tests;
