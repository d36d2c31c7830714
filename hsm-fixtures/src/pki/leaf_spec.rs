//! What a leaf certificate says: good by default, spoiled field by field.

use jiff::{SignedDuration, Timestamp};
use openssl::hash::MessageDigest;

/// Certificates are valid from a little before now: other machines' clocks, and the second that just began.
pub(super) const BACKDATE: SignedDuration = SignedDuration::from_mins(5);

const LIFETIME: SignedDuration = SignedDuration::from_hours(30 * 24);

/// What a leaf certificate shall say. [`LeafSpec::new`] is what IAM Roles Anywhere asks for; each field spoils or
/// varies one thing: `LeafSpec { digital_signature: false, ..LeafSpec::new("web") }`.
#[derive(Clone, Debug)]
pub struct LeafSpec {
    /// Subject CN.
    pub common_name: String,
    /// Subject O.
    pub organization: Option<String>,
    /// Start of validity.
    pub not_before: Timestamp,
    /// End of validity.
    pub not_after: Timestamp,
    /// The serial number; `None` for a random one of 127 bits.
    pub serial: Option<u128>,
    /// basicConstraints: CA:TRUE or CA:FALSE, or no such extension.
    pub basic_constraints: Option<bool>,
    /// keyUsage digitalSignature; `false` leaves keyUsage with keyEncipherment alone.
    pub digital_signature: bool,
    /// extendedKeyUsage with this purpose alone, or no such extension.
    pub extended_key_usage: Option<Purpose>,
    /// SAN: DNS names.
    pub dns_names: Vec<String>,
    /// SAN: IP addresses, in their usual text form.
    pub ip_addresses: Vec<String>,
    /// Who signs it.
    pub issuer: Issuer,
    /// The hash under the issuer's signature.
    pub digest: Digest,
    /// X.509 version, 3 or 1; version 1 has no extensions.
    pub version: u8,
}

impl LeafSpec {
    /// A good leaf: v3, valid for 30 days, CA:FALSE, digitalSignature, clientAuth, issued by the intermediate.
    #[must_use]
    pub fn new(common_name: &str) -> LeafSpec {
        let now = Timestamp::now();
        LeafSpec {
            common_name: common_name.to_owned(),
            organization: Some("roleseal fixtures".to_owned()),
            not_before: now - BACKDATE,
            not_after: now + LIFETIME,
            serial: None,
            basic_constraints: Some(false),
            digital_signature: true,
            extended_key_usage: Some(Purpose::ClientAuth),
            dns_names: Vec::new(),
            ip_addresses: Vec::new(),
            issuer: Issuer::Intermediate,
            digest: Digest::Sha256,
            version: 3,
        }
    }

    /// A leaf whose validity ended a minute ago.
    #[must_use]
    pub fn expired(common_name: &str) -> LeafSpec {
        let now = Timestamp::now();
        LeafSpec {
            not_before: now - SignedDuration::from_hours(24),
            not_after: now - SignedDuration::from_mins(1),
            ..LeafSpec::new(common_name)
        }
    }
}

/// Which CA of a PKI signs a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[expect(missing_docs, reason = "each name says it")]
pub enum Issuer {
    Root,
    Intermediate,
}

/// A purpose in extendedKeyUsage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each name says it")]
pub enum Purpose {
    ClientAuth,
    ServerAuth,
}

/// A hash under a certificate's signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each name says it")]
pub enum Digest {
    Sha1,
    Sha256,
    Sha384,
}

impl Digest {
    pub(super) fn message_digest(self) -> MessageDigest {
        match self {
            Digest::Sha1 => MessageDigest::sha1(),
            Digest::Sha256 => MessageDigest::sha256(),
            Digest::Sha384 => MessageDigest::sha384(),
        }
    }
}
