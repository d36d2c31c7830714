//! What the service knows: trust anchors, profiles and roles.

use jiff::SignedDuration;

use super::attribute_mapping::AttributeMapping;
use crate::pki::TlsIdentity;

/// The session duration of a profile that names none, in seconds: AWS's own default.
pub const DEFAULT_PROFILE_SECONDS: u32 = 3600;

/// Everything a [`super::Service`] is started with.
#[derive(Clone)]
pub struct ServiceConfig {
    /// TCP port on 127.0.0.1; 0 for any free one.
    pub port: u16,
    /// The server's certificate and key.
    pub tls: TlsIdentity,
    /// Where paths of certificates may end.
    pub trust_anchors: Vec<TrustAnchor>,
    /// What a session may be asked through.
    pub profiles: Vec<Profile>,
    /// The roles that exist.
    pub roles: Vec<Role>,
    /// How far the service's clock is ahead of this machine's; negative for behind.
    pub clock_offset: SignedDuration,
    /// How long every session lasts, whatever it was asked for and the profile says; in seconds.
    pub session_seconds: Option<u32>,
    /// Write one line for each decision to stderr.
    pub verbose: bool,
    /// Write how each CreateSession was decided to stderr, as a table.
    pub explain: bool,
}

/// A trust anchor with a certificate bundle.
#[derive(Clone, Debug)]
pub struct TrustAnchor {
    /// `arn:PARTITION:rolesanywhere:REGION:ACCOUNT:trust-anchor/ID`.
    pub arn: String,
    /// One or two CA certificates, PEM.
    pub bundle_pem: String,
    /// A disabled trust anchor gives no sessions.
    pub enabled: bool,
    /// Certificate revocation lists, each PEM or DER.
    pub crls: Vec<Vec<u8>>,
}

impl TrustAnchor {
    /// An enabled trust anchor without revocation lists.
    #[must_use]
    pub fn new(arn: &str, bundle_pem: &str) -> TrustAnchor {
        TrustAnchor {
            arn: arn.to_owned(),
            bundle_pem: bundle_pem.to_owned(),
            enabled: true,
            crls: Vec::new(),
        }
    }
}

/// A role.
#[derive(Clone, Debug)]
pub struct Role {
    /// `arn:PARTITION:iam::ACCOUNT:role/PATH/NAME`.
    pub arn: String,
    /// Its trust policy, JSON; without one, it lets Roles Anywhere in as the user guide's example does, for every
    /// certificate.
    pub trust_policy: Option<String>,
    /// Its MaxSessionDuration, in seconds; `None` for as long as a session may be at all.
    pub max_session_seconds: Option<u32>,
}

impl Role {
    /// A role that trusts Roles Anywhere.
    #[must_use]
    pub fn new(arn: &str) -> Role {
        Role {
            arn: arn.to_owned(),
            trust_policy: None,
            max_session_seconds: None,
        }
    }

    /// A role with a trust policy of its own.
    #[must_use]
    pub fn with_trust_policy(arn: &str, policy: &str) -> Role {
        Role {
            trust_policy: Some(policy.to_owned()),
            ..Role::new(arn)
        }
    }
}

/// A profile.
#[derive(Clone, Debug)]
pub struct Profile {
    /// `arn:PARTITION:rolesanywhere:REGION:ACCOUNT:profile/ID`.
    pub arn: String,
    /// A disabled profile gives no sessions.
    pub enabled: bool,
    /// ARNs of the roles that may be assumed through it.
    pub roles: Vec<String>,
    /// The longest session, and the length of one that asks for nothing; in seconds.
    pub duration_seconds: u32,
    /// Whether a client may set `roleSessionName`.
    pub accept_role_session_name: bool,
    /// Whether a client must send `instanceProperties`.
    pub require_instance_properties: bool,
    /// What a session may do at the most: JSON.
    pub session_policy: Option<String>,
    /// The same, as ARNs of managed policies.
    pub managed_policy_arns: Vec<String>,
    /// What replaces the default mapping of a field of the certificate.
    pub attribute_mappings: Vec<AttributeMapping>,
}

impl Profile {
    /// An enabled profile for `roles`, with AWS's defaults.
    #[must_use]
    pub fn new(arn: &str, roles: &[&str]) -> Profile {
        Profile {
            arn: arn.to_owned(),
            enabled: true,
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            duration_seconds: DEFAULT_PROFILE_SECONDS,
            accept_role_session_name: false,
            require_instance_properties: false,
            session_policy: None,
            managed_policy_arns: Vec::new(),
            attribute_mappings: Vec::new(),
        }
    }
}

impl ServiceConfig {
    /// A service on a free port that knows nobody yet.
    #[must_use]
    pub fn new(tls: TlsIdentity) -> ServiceConfig {
        ServiceConfig {
            port: 0,
            tls,
            trust_anchors: Vec::new(),
            profiles: Vec::new(),
            roles: Vec::new(),
            clock_offset: SignedDuration::ZERO,
            session_seconds: None,
            verbose: false,
            explain: false,
        }
    }
}
