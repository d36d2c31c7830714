//! What is known of a request: condition keys and their values.

use std::collections::BTreeMap;

/// The keys that Roles Anywhere sets, or leaves out, as is documented.
const KNOWN: [&str; 7] = [
    "aws:sourcearn",
    "aws:sourceaccount",
    "aws:principalisawsservice",
    "aws:principalservicename",
    "aws:tagkeys",
    "sts:rolesessionname",
    "sts:sourceidentity",
];

const KNOWN_TAGS: [&str; 2] = ["aws:principaltag/", "aws:requesttag/"];

/// The tags of names, for "all recognizable RDNs" of them, and the attributes that the guide shows: of others it is
/// not known whether they become tags.
const NAMES: [&str; 3] = ["x509subject/", "x509issuer/", "x509san/name/"];
const ATTRIBUTES: [&str; 6] = ["c", "o", "ou", "st", "l", "cn"];

fn is_documented(tag: &str) -> bool {
    let attribute = NAMES.iter().find_map(|name| tag.strip_prefix(name));
    attribute.is_none_or(|attribute| ATTRIBUTES.contains(&attribute))
}

/// Condition keys with their values. "Condition key names are not case-sensitive" (IAM JSON policy elements: Condition).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// By the key in lower case; with the key as it was written.
    keys: BTreeMap<String, (String, Vec<String>)>,
}

impl Context {
    /// A request of which nothing is known.
    #[must_use]
    pub fn new() -> Context {
        Context::default()
    }

    /// The same with one more key; a key that was there is replaced, whatever its capitals.
    #[must_use]
    pub fn with(mut self, key: &str, value: &str) -> Context {
        self.set(key, vec![value.to_owned()]);
        self
    }

    /// Sets a key. No values is the same as no key.
    pub fn set(&mut self, key: &str, values: Vec<String>) {
        let place = key.to_lowercase();
        if values.is_empty() {
            self.keys.remove(&place);
        } else {
            self.keys.insert(place, (key.to_owned(), values));
        }
    }

    /// The values of a key; none where it is absent.
    #[must_use]
    pub fn values(&self, key: &str) -> &[String] {
        self.keys
            .get(&key.to_lowercase())
            .map_or(&[], |(_, values)| values)
    }

    /// Whether a request without the key is known to be without it. AWS puts more keys into a request than can be
    /// known here, such as its region.
    pub(crate) fn can_tell(&self, key: &str) -> bool {
        let key = key.to_lowercase();
        self.keys.contains_key(&key)
            || KNOWN.contains(&key.as_str())
            || KNOWN_TAGS
                .iter()
                .any(|prefix| key.strip_prefix(prefix).is_some_and(is_documented))
    }

    /// Every key as it was written, with its values, in alphabetical order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.keys
            .values()
            .map(|(key, values)| (key.as_str(), values.as_slice()))
    }
}
