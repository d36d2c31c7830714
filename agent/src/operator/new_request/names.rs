//! The names in a certificate request, as the command line has them.

use std::net::IpAddr;
use std::str::FromStr;

use clap::Args;
use der::Tagged;
use der::asn1::{Ia5String, Ia5StringRef, PrintableStringRef, Utf8StringRef};
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

/// RFC 5280, ub-common-name and its like: most have 64; no name of a subject has more.
const VALUE_LIMIT: usize = 256;

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
        const USAGE: &str = "write it as RFC 4514 has it, without blanks around = and commas: \
                             'CN=web,O=Example'; a comma in a name as \\,";
        if text.is_empty() {
            return Err(format!("a subject has at least one name: {USAGE}"));
        }
        let name: Name = text
            .parse()
            .map_err(|_| format!("not a subject: {USAGE}"))?;
        for attribute in name.iter() {
            let value = &attribute.value;
            let text = PrintableStringRef::try_from(value).map(|text| text.as_str().to_owned());
            let text = text
                .or_else(|_| Utf8StringRef::try_from(value).map(|text| text.as_str().to_owned()));
            let text = text
                .or_else(|_| Ia5StringRef::try_from(value).map(|text| text.as_str().to_owned()));
            let fault = match text {
                Ok(text) if text.is_empty() => "is empty",
                Ok(text) if text.len() > VALUE_LIMIT => "is too long",
                Ok(text) if text.chars().any(char::is_control) => "has a control character",
                Ok(text) if text.trim() != text => "begins or ends with a blank",
                Ok(text) if attribute.oid == COUNTRY && text.len() != 2 => {
                    "is no code of two letters"
                }
                Ok(_) => continue,
                Err(_) => "has a character that this attribute does not take",
            };
            let tag = value.tag();
            return Err(format!(
                "the value of {} ({tag}) {fault}: {USAGE}",
                attribute.oid
            ));
        }
        Ok(Subject(name))
    }
}

const COUNTRY: der::asn1::ObjectIdentifier = der::asn1::ObjectIdentifier::new_unwrap("2.5.4.6");

impl FromStr for DnsName {
    type Err = String;

    /// Labels of letters, digits and `-`, the first of them perhaps `*`.
    fn from_str(text: &str) -> Result<DnsName, String> {
        let fits = |(at, label): (usize, &str)| {
            let plain = label
                .bytes()
                .all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_');
            let whole = (1..=63).contains(&label.len());
            (at == 0 && label == "*")
                || (plain && whole && !label.starts_with('-') && !label.ends_with('-'))
        };
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
