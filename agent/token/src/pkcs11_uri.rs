//! PKCS#11 URIs, RFC 7512. Strict: an attribute that is unknown, repeated or malformed is an error,
//! since a URI that matches more than its writer meant can name another key.

use std::fmt::{self, Write};
use std::path::PathBuf;
use std::str::FromStr;

use percent_encoding::percent_decode_str;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::PinSource;

/// A PKCS#11 URI. `Display` and the link's form leave the PIN out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pkcs11Uri {
    /// Which token.
    pub token: TokenMatch,
    /// Which object on it.
    pub object: ObjectMatch,
    /// `module-path`
    pub module_path: Option<PathBuf>,
    /// `pin-source` or `pin-value`
    pub pin: Option<PinSource>,
}

/// The attributes that choose a token; `None` matches any.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Pkcs11Uri", into = "Pkcs11Uri")]
pub struct TokenMatch {
    /// `token`: CK_TOKEN_INFO.label
    pub label: Option<String>,
    /// `manufacturer`: CK_TOKEN_INFO.manufacturerID
    pub manufacturer: Option<String>,
    /// `model`: CK_TOKEN_INFO.model
    pub model: Option<String>,
    /// `serial`: CK_TOKEN_INFO.serialNumber
    pub serial: Option<String>,
    /// `slot-description`: CK_SLOT_INFO.slotDescription
    pub slot_description: Option<String>,
    /// `slot-manufacturer`: CK_SLOT_INFO.manufacturerID
    pub slot_manufacturer: Option<String>,
    /// `slot-id`: CK_SLOT_ID
    pub slot_id: Option<u64>,
}

/// The attributes that choose an object; `None` matches any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObjectMatch {
    /// `object`: CKA_LABEL
    pub label: Option<String>,
    /// `id`: CKA_ID
    pub id: Option<Vec<u8>>,
    /// `type`: CKA_CLASS, as `private`, `cert` …
    pub class: Option<String>,
}

/// Why a text is no PKCS#11 URI that we accept. The text itself is not repeated: it may hold a PIN.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UriError {
    /// It starts otherwise.
    #[error("a PKCS#11 URI starts with \"pkcs11:\", as in pkcs11:token=lab;object=web")]
    Scheme,
    /// An attribute without `=`.
    #[error("attribute {0} has no value; write NAME=VALUE")]
    NoValue(String),
    /// An attribute that we do not know.
    #[error("attribute {0:?} is not known here (RFC 7512, section 2.3)")]
    Unknown(String),
    /// An attribute on the wrong side of the question mark, and where it belongs.
    #[error("attribute {0:?} belongs {1}")]
    Misplaced(String, &'static str),
    /// The same attribute twice.
    #[error("attribute {0:?} is given more than once")]
    Repeated(String),
    /// A value with a character that may not stand for itself, and how to write that.
    #[error("attribute {0:?} has a character that must be percent-encoded: write {1} for it")]
    Unencoded(String, String),
    /// A value that does not fit.
    #[error("attribute {0:?} {1}")]
    Value(String, &'static str),
}

impl TokenMatch {
    /// Whether some token could match both.
    pub fn overlaps(&self, other: &TokenMatch) -> bool {
        fn agree<T: PartialEq>(one: &Option<T>, other: &Option<T>) -> bool {
            one.is_none() || other.is_none() || one == other
        }
        agree(&self.label, &other.label)
            && agree(&self.manufacturer, &other.manufacturer)
            && agree(&self.model, &other.model)
            && agree(&self.serial, &other.serial)
            && agree(&self.slot_description, &other.slot_description)
            && agree(&self.slot_manufacturer, &other.slot_manufacturer)
            && agree(&self.slot_id, &other.slot_id)
    }
}

impl From<TokenMatch> for Pkcs11Uri {
    fn from(token: TokenMatch) -> Pkcs11Uri {
        Pkcs11Uri {
            token,
            ..Pkcs11Uri::default()
        }
    }
}

impl From<Pkcs11Uri> for TokenMatch {
    fn from(uri: Pkcs11Uri) -> TokenMatch {
        uri.token
    }
}

impl FromStr for Pkcs11Uri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Pkcs11Uri, UriError> {
        let (scheme, rest) = text.split_once(':').ok_or(UriError::Scheme)?;
        if !scheme.eq_ignore_ascii_case("pkcs11") {
            return Err(UriError::Scheme);
        }
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut uri = Pkcs11Uri::default();
        for attribute in path.split(';').filter(|attribute| !attribute.is_empty()) {
            uri.take_path_attribute(attribute)?;
        }
        for attribute in query.split('&').filter(|attribute| !attribute.is_empty()) {
            uri.take_query_attribute(attribute)?;
        }
        Ok(uri)
    }
}

impl Pkcs11Uri {
    fn take_path_attribute(&mut self, attribute: &str) -> Result<(), UriError> {
        let (name, value) = split(attribute)?;
        // "&" may stand for itself here, and a PIN behind it would be shown as part of a name.
        let in_value = |query: &&str| value.contains(&format!("&{query}="));
        if let Some(query) = QUERY_ATTRIBUTES.into_iter().find(in_value) {
            return Err(misplaced(query));
        }
        let (token, object) = (&mut self.token, &mut self.object);
        match name {
            "token" => set(name, &mut token.label, unpadded(name, value)?),
            "manufacturer" => set(name, &mut token.manufacturer, unpadded(name, value)?),
            "model" => set(name, &mut token.model, unpadded(name, value)?),
            "serial" => set(name, &mut token.serial, unpadded(name, value)?),
            "slot-description" => set(name, &mut token.slot_description, unpadded(name, value)?),
            "slot-manufacturer" => set(name, &mut token.slot_manufacturer, unpadded(name, value)?),
            "slot-id" => set(name, &mut token.slot_id, number(name, value)?),
            "object" => set(name, &mut object.label, text(name, value)?),
            "id" => set(name, &mut object.id, bytes(name, value)?),
            "type" => set(name, &mut object.class, class(value)?),
            "library-manufacturer" | "library-description" | "library-version" => {
                Err(UriError::Value(
                    name.to_owned(),
                    "is not supported: choose the library by module-path",
                ))
            }
            name if QUERY_ATTRIBUTES.contains(&name) => Err(misplaced(name)),
            _ => Err(UriError::Unknown(name.to_owned())),
        }
    }

    fn take_query_attribute(&mut self, attribute: &str) -> Result<(), UriError> {
        // Not repeated: it may be the end of a PIN with an unescaped '&'.
        let (name, value) =
            split(attribute).map_err(|_| UriError::NoValue("after \"?\"".to_owned()))?;
        match name {
            "module-path" => set(name, &mut self.module_path, absolute(name, value)?),
            "pin-source" => {
                let source = text(name, value)?;
                if source.starts_with('|') {
                    return Err(UriError::Value(
                        name.to_owned(),
                        "is a command, which is not supported: write the PIN's file, \
                         pin-source=/absolute/path",
                    ));
                }
                let path = source.strip_prefix("file:").unwrap_or(&source);
                let path = path.strip_prefix("//").unwrap_or(path); // file:///path
                set(name, &mut self.pin, PinSource::File(absolute(name, path)?))
            }
            "pin-value" => {
                let pin = PinSource::Value(text(name, value)?.into());
                set(name, &mut self.pin, pin)
            }
            "module-name" => Err(UriError::Value(
                name.to_owned(),
                "is not supported: write module-path=/absolute/path.so",
            )),
            // Nor is this, for the same reason.
            _ if self.pin.is_some() => Err(UriError::Unknown("after the PIN".to_owned())),
            name if PATH_ATTRIBUTES.contains(&name) => Err(UriError::Misplaced(
                name.to_owned(),
                "before \"?\", with \";\" between attributes",
            )),
            _ => Err(UriError::Unknown(name.to_owned())),
        }
    }
}

/// RFC 7512, section 2.3.
const PATH_ATTRIBUTES: [&str; 10] = [
    "token",
    "manufacturer",
    "model",
    "serial",
    "slot-description",
    "slot-manufacturer",
    "slot-id",
    "object",
    "id",
    "type",
];
const QUERY_ATTRIBUTES: [&str; 4] = ["pin-source", "pin-value", "module-name", "module-path"];

fn misplaced(query: &str) -> UriError {
    UriError::Misplaced(
        query.to_owned(),
        "behind \"?\", as in pkcs11:token=lab;object=web?module-path=/path.so&pin-source=/path",
    )
}

fn split(attribute: &str) -> Result<(&str, &str), UriError> {
    attribute
        .split_once('=')
        .ok_or_else(|| UriError::NoValue(format!("{attribute:?}")))
}

fn set<T>(name: &str, place: &mut Option<T>, value: T) -> Result<(), UriError> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(UriError::Repeated(name.to_owned())),
    }
}

fn bytes(name: &str, value: &str) -> Result<Vec<u8>, UriError> {
    let malformed = |fault| UriError::Value(name.to_owned(), fault);
    // RFC 7512, section 2.3: everything but these is percent-encoded ("/" and "?" in the query only,
    // but nobody reads them otherwise in a path).
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-._~:[]@!$'()*+,=&/?|%".contains(c);
    if let Some(one) = value.chars().find(|c| !allowed(*c)) {
        // Not the value: where a separator was forgotten, a PIN is in it.
        return Err(UriError::Unencoded(name.to_owned(), encoded(one)));
    }
    for (at, _) in value.match_indices('%') {
        let digits = value.get(at + 1..at + 3).unwrap_or_default();
        if digits.len() != 2 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(malformed("has a % without two hex digits"));
        }
    }
    Ok(percent_decode_str(value).collect())
}

/// Percent-encoded.
fn encoded(c: char) -> String {
    let mut bytes = [0; 4];
    let bytes = c.encode_utf8(&mut bytes).bytes();
    bytes.map(|byte| format!("%{byte:02X}")).collect()
}

fn text(name: &str, value: &str) -> Result<String, UriError> {
    String::from_utf8(bytes(name, value)?)
        .map_err(|_| UriError::Value(name.to_owned(), "is not UTF-8"))
}

/// What `CK_TOKEN_INFO` and `CK_SLOT_INFO` pad with blanks, and some modules with zeros. Tools print the padding.
fn unpadded(name: &str, value: &str) -> Result<String, UriError> {
    let mut text = text(name, value)?;
    text.truncate(unpad(&text).len());
    Ok(text)
}

/// A text of `CK_TOKEN_INFO` or `CK_SLOT_INFO` without its padding.
pub fn unpad(padded: &str) -> &str {
    padded.trim_end_matches([' ', '\0'])
}

fn number(name: &str, value: &str) -> Result<u64, UriError> {
    let digits = value.bytes().all(|digit| digit.is_ascii_digit());
    match value.parse() {
        Ok(number) if digits => Ok(number),
        _ => Err(UriError::Value(name.to_owned(), "is not a number")),
    }
}

fn absolute(name: &str, value: &str) -> Result<PathBuf, UriError> {
    let path = PathBuf::from(text(name, value)?);
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(UriError::Value(name.to_owned(), "is not an absolute path"))
    }
}

fn class(value: &str) -> Result<String, UriError> {
    match value {
        "private" | "public" | "cert" | "secret-key" | "data" => Ok(value.to_owned()),
        _ => Err(UriError::Value(
            "type".to_owned(),
            "is none of private, public, cert, secret-key and data",
        )),
    }
}

impl fmt::Display for Pkcs11Uri {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("pkcs11:")?;
        let (token, object) = (&self.token, &self.object);
        let slot_id = token.slot_id.map(|id| id.to_string());
        let attributes = [
            ("token", token.label.as_deref()),
            ("manufacturer", token.manufacturer.as_deref()),
            ("model", token.model.as_deref()),
            ("serial", token.serial.as_deref()),
            ("slot-description", token.slot_description.as_deref()),
            ("slot-manufacturer", token.slot_manufacturer.as_deref()),
            ("slot-id", slot_id.as_deref()),
            ("object", object.label.as_deref()),
            ("type", object.class.as_deref()),
        ];
        let mut separator = "";
        for (name, value) in attributes {
            if let Some(value) = value {
                write!(f, "{separator}{name}=")?;
                write_encoded(f, value)?;
                separator = ";";
            }
        }
        if let Some(id) = &object.id {
            write!(f, "{separator}id=")?;
            for byte in id {
                write!(f, "%{byte:02X}")?;
            }
        }
        if let Some(path) = &self.module_path {
            f.write_str("?module-path=")?;
            write_encoded(f, &path.to_string_lossy())?;
        }
        Ok(())
    }
}

fn write_encoded(f: &mut fmt::Formatter, value: &str) -> fmt::Result {
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:/".contains(&byte) {
            f.write_char(byte.into())?;
        } else {
            write!(f, "%{byte:02X}")?;
        }
    }
    Ok(())
}

impl Serialize for Pkcs11Uri {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Pkcs11Uri {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Pkcs11Uri, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Pkcs11Uri {
        text.parse()
            .unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn attributes_arrive_decoded() {
        let uri = parse(
            "pkcs11:token=The%20Software%20PKCS%2311;manufacturer=Snake%20Oil;model=1.0;serial=42;\
             slot-id=18446744073709551615;slot-description=s;slot-manufacturer=m;\
             object=my-key;type=private;id=%69%95%3E%00%fF\
             ?module-path=/usr/lib/a.so&pin-source=file:/etc/token_pin",
        );
        assert_eq!(uri.token.label.as_deref(), Some("The Software PKCS#11"));
        assert_eq!(uri.token.slot_id, Some(u64::MAX));
        assert_eq!(uri.object.id, Some(vec![0x69, 0x95, 0x3e, 0, 0xff]));
        assert_eq!(uri.object.class.as_deref(), Some("private"));
        assert_eq!(uri.module_path, Some("/usr/lib/a.so".into()));
        assert_eq!(uri.pin, Some(PinSource::File("/etc/token_pin".into())));
    }

    #[test]
    fn the_empty_uri_matches_anything() {
        for text in ["pkcs11:", "PKCS11:", "pkcs11:?"] {
            assert_eq!(parse(text), Pkcs11Uri::default());
        }
    }

    #[test]
    fn pin_sources_are_files() {
        for source in ["/etc/pin", "file:/etc/pin", "file:///etc/pin"] {
            let uri = parse(&format!("pkcs11:?pin-source={source}"));
            assert_eq!(uri.pin, Some(PinSource::File("/etc/pin".into())));
        }
        for source in ["pin", "file:pin", "|/bin/pinentry", "http://host/pin"] {
            let uri = format!("pkcs11:?pin-source={source}").parse::<Pkcs11Uri>();
            assert!(matches!(uri, Err(UriError::Value(name, _)) if name == "pin-source"));
        }
    }

    #[test]
    fn the_pin_is_never_shown() {
        let uri = parse("pkcs11:object=web?pin-value=12%334");
        assert_eq!(uri.pin, Some(PinSource::Value("1234".to_owned().into())));
        assert_eq!(uri.to_string(), "pkcs11:object=web");
        assert!(!format!("{uri:?}").contains("1234"));
        for text in [
            "pkcs11:x?pin-value=1234",
            "pkcs11:?pin-value=12&1234",
            "pkcs11:?pin-value=12&1234=x",
            "pkcs11:?pin-value=%zz1234",
            "pkcs11:token=lab;pin-value=1234",
            "pkcs11:pin-value=1234;token=lab?pin-value=1234",
            "pkcs11:token=lab&pin-value=1234&x",
            "pkcs11:?pin-value=12&token=1234",
        ] {
            let error = text.parse::<Pkcs11Uri>().unwrap_err();
            assert!(!error.to_string().contains("1234"), "{error}");
        }
    }

    #[test]
    fn padding_is_no_part_of_a_tokens_or_slots_name() {
        let padded = "a%00%00 %20%00".replace(' ', "%20");
        let names = ["token", "manufacturer", "model", "serial"];
        let names = names
            .into_iter()
            .chain(["slot-description", "slot-manufacturer"]);
        for name in names {
            let uri = parse(&format!("pkcs11:{name}={padded}"));
            assert_eq!(uri, parse(&format!("pkcs11:{name}=a")), "{name}");
        }
        let label = parse("pkcs11:token=%20a%20b%20").token.label;
        assert_eq!(label.as_deref(), Some(" a b"));
        // CKA_LABEL is not padded.
        let label = parse("pkcs11:object=a%20").object.label;
        assert_eq!(label.as_deref(), Some("a "));
    }

    #[test]
    fn display_reads_back() {
        for text in [
            "pkcs11:",
            "pkcs11:token=a%20b%3Bc%C3%A4;serial=1;slot-id=7;object=%25;type=cert;id=%00%FF",
            "pkcs11:object=web?module-path=/usr/lib/my%20module.so",
        ] {
            assert_eq!(parse(text).to_string(), text);
        }
    }

    #[test]
    fn anything_else_is_refused_by_name() {
        for (text, expected) in [
            ("", "starts with"),
            ("object=web", "starts with"),
            ("pkcs12:object=web", "starts with"),
            ("pkcs11:web", "has no value"),
            ("pkcs11:object=web;object=web", "more than once"),
            ("pkcs11:?pin-value=1&pin-source=/p", "more than once"),
            ("pkcs11:colour=red", "not known"),
            ("pkcs11:x-vendor=red", "not known"),
            ("pkcs11:library-version=1.0", "module-path"),
            ("pkcs11:Object=web", "not known"),
            ("pkcs11:token=lab?object=web", "belongs before"),
            ("pkcs11:token=lab;module-path=/m.so", "belongs behind"),
            ("pkcs11:pin-source=/p;token=lab", "belongs behind"),
            ("pkcs11:token=lab;module-name=m", "belongs behind"),
            ("pkcs11:?pin-source=|/bin/pin", "command"),
            ("pkcs11:?pin-source=%7C/bin/pin", "command"),
            ("pkcs11:object=a b", "percent-encoded: write %20 for it"),
            ("pkcs11:object=ä", "percent-encoded: write %C3%A4 for it"),
            (
                "pkcs11:object=web pin-value=98765",
                "percent-encoded: write %20 for it",
            ),
            ("pkcs11:object=a%2", "two hex digits"),
            ("pkcs11:object=a%", "two hex digits"),
            ("pkcs11:object=%2g", "two hex digits"),
            ("pkcs11:object=%+1", "two hex digits"),
            ("pkcs11:object=%ff", "UTF-8"),
            ("pkcs11:slot-id=", "not a number"),
            ("pkcs11:slot-id=-1", "not a number"),
            ("pkcs11:slot-id=+1", "not a number"),
            ("pkcs11:slot-id=18446744073709551616", "not a number"),
            ("pkcs11:type=key", "none of"),
            ("pkcs11:?module-path=lib.so", "absolute"),
            ("pkcs11:?module-name=softhsm2", "module-path"),
        ] {
            let message = text.parse::<Pkcs11Uri>().unwrap_err().to_string();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }
}
