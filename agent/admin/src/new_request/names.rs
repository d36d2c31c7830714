//! The names in a certificate request, as the command line has them.

use std::net::IpAddr;
use std::str::FromStr;

use clap::Args;
use der::asn1::{
    Any, Ia5String, Ia5StringRef, ObjectIdentifier, PrintableStringRef, Utf8StringRef,
};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::name::Name;

/// A subject: an RFC 4514 string, such as `CN=web,O=Example`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subject(pub Name);

/// Other names of the subject.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct AltNameArguments {
    /// A DNS name (repeat for more)
    #[arg(long, value_name = "NAME")]
    dns: Vec<DnsName>,
    /// A URI, such as spiffe://example.org/web
    #[arg(long, value_name = "URI")]
    san_uri: Vec<Uri>,
    /// An e-mail address
    #[arg(long, value_name = "ADDRESS")]
    email: Vec<Email>,
    /// An IP address
    #[arg(long, value_name = "ADDRESS")]
    ip: Vec<IpAddr>,
}

#[derive(Debug, Clone)]
struct DnsName(Ia5String);
#[derive(Debug, Clone)]
struct Uri(Ia5String);
#[derive(Debug, Clone)]
struct Email(Ia5String);

/// The longest other name, in bytes: SPIFFE IDs have up to 2048.
const NAME_LIMIT: usize = 2048;

impl AltNameArguments {
    /// All of them.
    pub(crate) fn names(&self) -> Vec<GeneralName> {
        let dns = self
            .dns
            .iter()
            .map(|name| GeneralName::DnsName(name.0.clone()));
        let uris = self.san_uri.iter();
        let uris = uris.map(|uri| GeneralName::UniformResourceIdentifier(uri.0.clone()));
        let emails = self
            .email
            .iter()
            .map(|name| GeneralName::Rfc822Name(name.0.clone()));
        let addresses = self.ip.iter().map(|address| GeneralName::from(*address));
        dns.chain(uris).chain(emails).chain(addresses).collect()
    }
}

impl FromStr for Subject {
    type Err = String;

    fn from_str(text: &str) -> Result<Subject, String> {
        const USAGE: &str = "write it in the syntax of RFC 4514, without blanks around = and commas: \
                             'CN=web,O=Example'; a comma in a name as \\,";
        if text.is_empty() {
            return Err(format!("the subject is empty: {USAGE}"));
        }
        if let Some(special) = unescaped(text, SPECIAL).next() {
            let special = special.1;
            return Err(format!(
                "unescaped {special}: write it as \\{special} in a name: {USAGE}"
            ));
        }
        let name: Name = text.parse().map_err(|_| match unknown_attribute(text) {
            Some(unknown) => format!("unknown attribute {unknown:?}: {USAGE}"),
            None => format!("not a distinguished name: {USAGE}"),
        })?;
        for attribute in name.iter() {
            if let Some(fault) = fault_of(&attribute.oid, &attribute.value) {
                return Err(format!("{} {fault}: {USAGE}", name_of(&attribute.oid)));
            }
        }
        Ok(Subject(name))
    }
}

/// Characters that RFC 4514 requires to be escaped, beside the comma and the plus: older syntaxes quote and separate
/// names with them.
const SPECIAL: &[char] = &['"', ';', '<', '>'];

/// Finds these characters where no `\` escapes them.
fn unescaped<'a>(
    text: &'a str,
    wanted: &'a [char],
) -> impl Iterator<Item = (usize, char)> + use<'a> {
    let mut after_escape = false;
    text.char_indices().filter(move |(_, c)| {
        let escaped = after_escape;
        after_escape = !escaped && *c == '\\';
        !escaped && wanted.contains(c)
    })
}

/// Finds the first unknown attribute type.
fn unknown_attribute(text: &str) -> Option<&str> {
    let mut start = 0;
    let ends = unescaped(text, &[',', '+']).map(|(at, _)| at);
    let mut names = ends.chain([text.len()]).filter_map(|end| {
        let part = text.get(std::mem::replace(&mut start, end + 1)..end)?;
        Some(part.split_once('=')?.0)
    });
    names.find(|name| format!("{name}=DE").parse::<Name>().is_err()) // DE: also a country
}

fn fault_of(oid: &ObjectIdentifier, value: &Any) -> Option<String> {
    let text = PrintableStringRef::try_from(value).map(|text| text.as_str().to_owned());
    let text =
        text.or_else(|_| Utf8StringRef::try_from(value).map(|text| text.as_str().to_owned()));
    let text = text.or_else(|_| Ia5StringRef::try_from(value).map(|text| text.as_str().to_owned()));
    let Ok(text) = text else {
        return Some("has a character that this attribute does not allow".to_owned());
    };
    let fault = match text.chars().count() {
        0 => "is empty",
        length if length > limit_of(oid) => {
            return Some(format!(
                "has {length} characters; X.509 allows at most {}",
                limit_of(oid)
            ));
        }
        length if *oid == COUNTRY && length != 2 => "is not a code of two letters",
        _ if text.chars().any(char::is_control) => "has a control character",
        _ if text.trim() != text => "begins or ends with a blank",
        _ => return None,
    };
    Some(fault.to_owned())
}

const COUNTRY: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.6");

/// Attribute types with short name and upper bound in characters (RFC 5280, appendix A.1).
const ATTRIBUTES: [(&str, ObjectIdentifier, usize); 8] = [
    ("CN", ObjectIdentifier::new_unwrap("2.5.4.3"), 64),
    ("serialNumber", ObjectIdentifier::new_unwrap("2.5.4.5"), 64),
    ("C", COUNTRY, OTHER_LIMIT), // two, which has an error of its own
    ("L", ObjectIdentifier::new_unwrap("2.5.4.7"), 128),
    ("ST", ObjectIdentifier::new_unwrap("2.5.4.8"), 128),
    ("O", ObjectIdentifier::new_unwrap("2.5.4.10"), 64),
    ("OU", ObjectIdentifier::new_unwrap("2.5.4.11"), 64),
    ("title", ObjectIdentifier::new_unwrap("2.5.4.12"), 64),
];

/// The upper bound of other attributes, in characters.
const OTHER_LIMIT: usize = 256;

fn name_of(oid: &ObjectIdentifier) -> String {
    let known = ATTRIBUTES.iter().find(|(_, known, _)| known == oid);
    known.map_or_else(|| oid.to_string(), |(name, ..)| (*name).to_owned())
}

fn limit_of(oid: &ObjectIdentifier) -> usize {
    let known = ATTRIBUTES.iter().find(|(_, known, _)| known == oid);
    known.map_or(OTHER_LIMIT, |(.., limit)| *limit)
}

impl FromStr for DnsName {
    type Err = String;

    /// Parses labels of letters, digits, `-` and `_`; the first label may be `*`.
    fn from_str(text: &str) -> Result<DnsName, String> {
        let fits = |(at, label): (usize, &str)| {
            let plain = label
                .bytes()
                .all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_');
            let whole = (1..=63).contains(&label.len());
            (at == 0 && label == "*")
                || (plain && whole && !label.starts_with('-') && !label.ends_with('-'))
        };
        if text.parse::<IpAddr>().is_ok() {
            return Err("an IP address, not a DNS name: use --ip".to_owned());
        }
        if text.len() > 253 || !text.split('.').enumerate().all(fits) {
            return Err("not a DNS name; write names in other scripts as xn--…".to_owned());
        }
        ia5(text).map(DnsName)
    }
}

impl FromStr for Uri {
    type Err = String;

    fn from_str(text: &str) -> Result<Uri, String> {
        let scheme = text
            .split_once(':')
            .map(|(scheme, rest)| (scheme.as_bytes(), rest));
        let whole = scheme.is_some_and(|(scheme, rest)| {
            scheme.first().is_some_and(u8::is_ascii_alphabetic)
                && scheme
                    .iter()
                    .all(|c| c.is_ascii_alphanumeric() || b"+-.".contains(c))
                && !rest.is_empty()
        });
        if !whole || !text.bytes().all(|c| c.is_ascii_graphic()) {
            return Err("not a URI with a scheme, such as spiffe://example.org/web".to_owned());
        }
        ia5(text).map(Uri)
    }
}

impl FromStr for Email {
    type Err = String;

    fn from_str(text: &str) -> Result<Email, String> {
        let whole = text.split_once('@').is_some_and(|(name, host)| {
            !name.is_empty() && !host.is_empty() && !host.contains('@')
        });
        if !whole || !text.bytes().all(|c| c.is_ascii_graphic()) {
            return Err("not an e-mail address".to_owned());
        }
        ia5(text).map(Email)
    }
}

fn ia5(text: &str) -> Result<Ia5String, String> {
    if text.len() > NAME_LIMIT {
        return Err(format!("longer than {NAME_LIMIT} characters"));
    }
    Ia5String::new(text).map_err(|error| error.to_string())
}
