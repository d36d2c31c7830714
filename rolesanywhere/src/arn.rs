//! The three ARNs of a CreateSession request, and what must agree among them.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::{Partition, Region};

/// `arn:PARTITION:iam::ACCOUNT:role/PATH/NAME`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleArn(Arn);

/// `arn:PARTITION:rolesanywhere:REGION:ACCOUNT:profile/ID`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileArn(Arn, Region);

/// `arn:PARTITION:rolesanywhere:REGION:ACCOUNT:trust-anchor/ID`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustAnchorArn(Arn, Region);

/// What a session is asked for: role, profile and trust anchor, which agree in partition and
/// account, and the last two in region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    role: RoleArn,
    profile: ProfileArn,
    trust_anchor: TrustAnchorArn,
}

/// Why a text is no such ARN, or three of them do not fit together.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ArnError {
    /// Not an ARN of the kind that was asked for.
    #[error("{text:?} is not the ARN of a {kind}: {fault}; write it like {example}")]
    Malformed {
        /// What was read.
        text: String,
        /// `role`, `profile` or `trust anchor`.
        kind: &'static str,
        /// Where it deviates.
        fault: &'static str,
        /// How it should look.
        example: &'static str,
    },
    /// Two ARNs differ where they must agree.
    #[error(
        "{first} and {second} are of different {what}: IAM Roles Anywhere needs them in the same"
    )]
    Disagree {
        /// `partitions`, `accounts` or `regions`.
        what: &'static str,
        /// One of them.
        first: String,
        /// The other.
        second: String,
    },
}

impl Target {
    /// Puts the three together, or says which two do not agree.
    pub fn new(
        role: RoleArn,
        profile: ProfileArn,
        trust_anchor: TrustAnchorArn,
    ) -> Result<Target, ArnError> {
        agree(
            "regions",
            (&profile.0, &profile.1),
            (&trust_anchor.0, &trust_anchor.1),
        )?;
        for arn in [&profile.0, &role.0] {
            agree(
                "partitions",
                (arn, arn.partition),
                (&trust_anchor.0, trust_anchor.0.partition),
            )?;
            agree(
                "accounts",
                (arn, &arn.account),
                (&trust_anchor.0, &trust_anchor.0.account),
            )?;
        }
        Ok(Target {
            role,
            profile,
            trust_anchor,
        })
    }

    /// The role.
    pub fn role(&self) -> &RoleArn {
        &self.role
    }

    /// The profile.
    pub fn profile(&self) -> &ProfileArn {
        &self.profile
    }

    /// The trust anchor.
    pub fn trust_anchor(&self) -> &TrustAnchorArn {
        &self.trust_anchor
    }

    /// The partition of all three.
    pub fn partition(&self) -> Partition {
        self.trust_anchor.0.partition
    }

    /// The region of profile and trust anchor: the only one where the request can succeed.
    pub fn region(&self) -> &Region {
        &self.trust_anchor.1
    }
}

fn agree<T: PartialEq>(
    what: &'static str,
    (first, one): (&Arn, T),
    (second, other): (&Arn, T),
) -> Result<(), ArnError> {
    if one == other {
        return Ok(());
    }
    Err(ArnError::Disagree {
        what,
        first: first.text.clone(),
        second: second.text.clone(),
    })
}

/// What the three kinds share.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Arn {
    text: String,
    partition: Partition,
    account: String,
}

/// How one kind of ARN looks.
struct Kind {
    name: &'static str,
    service: &'static str,
    resource: &'static str,
    example: &'static str,
}

const ROLE: Kind = Kind {
    name: "role",
    service: "iam",
    resource: "role/",
    example: "arn:aws:iam::123456789012:role/NAME",
};
const PROFILE: Kind = Kind {
    name: "profile",
    service: "rolesanywhere",
    resource: "profile/",
    example: "arn:aws:rolesanywhere:REGION:123456789012:profile/ID",
};
const TRUST_ANCHOR: Kind = Kind {
    name: "trust anchor",
    service: "rolesanywhere",
    resource: "trust-anchor/",
    example: "arn:aws:rolesanywhere:REGION:123456789012:trust-anchor/ID",
};

/// IAM: a path has at most 512 characters, a role's name 64.
const RESOURCE_LIMIT: usize = 512 + 64;

impl Kind {
    /// Reads an ARN of this kind; the region is returned as text, empty where there is none.
    fn read<'t>(&self, text: &'t str) -> Result<(Arn, &'t str), ArnError> {
        let mut members = text.splitn(6, ':');
        let mut member = || members.next().unwrap_or_default();
        if member() != "arn" {
            return Err(self.malformed(text, "it does not start with \"arn:\""));
        }
        let id = member();
        let partition = Partition::ALL
            .into_iter()
            .find(|partition| partition.id() == id)
            .ok_or_else(|| self.malformed(text, "the partition is unknown"))?;
        if member() != self.service {
            return Err(self.malformed(text, "it is of another service"));
        }
        let region = member();
        let account = member().to_owned();
        if account.len() != 12 || !account.bytes().all(|b| b.is_ascii_digit()) {
            return Err(self.malformed(text, "the account is not 12 digits"));
        }
        let name = member()
            .strip_prefix(self.resource)
            .ok_or_else(|| self.malformed(text, "it is of another resource type"))?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "_+=,.@-/".contains(c);
        if name.is_empty() || name.len() > RESOURCE_LIMIT || !name.chars().all(plain) {
            return Err(self.malformed(text, "the resource's name is empty, too long or malformed"));
        }
        let arn = Arn {
            text: text.to_owned(),
            partition,
            account,
        };
        Ok((arn, region))
    }

    fn regional(&self, text: &str) -> Result<(Arn, Region), ArnError> {
        let (arn, region) = self.read(text)?;
        let region = region
            .parse()
            .map_err(|_| self.malformed(text, "the region is missing or malformed"))?;
        Ok((arn, region))
    }

    fn malformed(&self, text: &str, fault: &'static str) -> ArnError {
        ArnError::Malformed {
            // Whatever a caller sent goes into a log line and an answer: bounded.
            text: text.chars().take(128).collect(),
            kind: self.name,
            fault,
            example: self.example,
        }
    }
}

impl FromStr for RoleArn {
    type Err = ArnError;

    fn from_str(text: &str) -> Result<RoleArn, ArnError> {
        match ROLE.read(text)? {
            (arn, "") => Ok(RoleArn(arn)),
            _ => Err(ROLE.malformed(text, "a role has no region")),
        }
    }
}

impl FromStr for ProfileArn {
    type Err = ArnError;

    fn from_str(text: &str) -> Result<ProfileArn, ArnError> {
        let (arn, region) = PROFILE.regional(text)?;
        Ok(ProfileArn(arn, region))
    }
}

impl FromStr for TrustAnchorArn {
    type Err = ArnError;

    fn from_str(text: &str) -> Result<TrustAnchorArn, ArnError> {
        let (arn, region) = TRUST_ANCHOR.regional(text)?;
        Ok(TrustAnchorArn(arn, region))
    }
}

impl TrustAnchorArn {
    /// Its account's number.
    pub fn account(&self) -> &str {
        &self.0.account
    }
}

/// As text, and only as text: `Display` and `AsRef<str>`.
macro_rules! as_text {
    ($($kind:ident)*) => {$(
        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str(&self.0.text)
            }
        }

        impl AsRef<str> for $kind {
            fn as_ref(&self) -> &str {
                &self.0.text
            }
        }
    )*};
}
as_text! { RoleArn ProfileArn TrustAnchorArn }

#[cfg(test)]
mod tests {
    use super::*;

    const ROLE_TEXT: &str = "arn:aws:iam::123456789012:role/path/web-1";
    const PROFILE_TEXT: &str = "arn:aws:rolesanywhere:eu-central-1:123456789012:profile/0a1b";
    const ANCHOR_TEXT: &str = "arn:aws:rolesanywhere:eu-central-1:123456789012:trust-anchor/2c3d";

    fn target(role: &str, profile: &str, anchor: &str) -> Result<Target, ArnError> {
        Target::new(role.parse()?, profile.parse()?, anchor.parse()?)
    }

    #[test]
    fn a_target_agrees_with_itself() {
        let target = target(ROLE_TEXT, PROFILE_TEXT, ANCHOR_TEXT).unwrap();
        assert_eq!(target.partition(), Partition::Aws);
        assert_eq!(target.region().to_string(), "eu-central-1");
        assert_eq!(target.role().to_string(), ROLE_TEXT);
    }

    #[test]
    fn disagreement_names_what_differs() {
        let cases = [
            (
                ROLE_TEXT,
                PROFILE_TEXT.replace("eu-central-1", "eu-west-1"),
                "regions",
            ),
            (
                ROLE_TEXT,
                PROFILE_TEXT.replace("123456789012", "210987654321"),
                "accounts",
            ),
            (
                &ROLE_TEXT.replace("123456789012", "210987654321"),
                PROFILE_TEXT.into(),
                "accounts",
            ),
            (
                &ROLE_TEXT.replace("aws", "aws-cn"),
                PROFILE_TEXT.into(),
                "partitions",
            ),
        ];
        for (role, profile, expected) in cases {
            match target(role, &profile, ANCHOR_TEXT) {
                Err(ArnError::Disagree { what, .. }) => assert_eq!(what, expected),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn other_arns_are_refused_with_the_reason() {
        let cases = [
            ("", "start"),
            ("arn", "partition"),
            ("arn:aws-mars:iam::123456789012:role/x", "partition"),
            ("arn:aws:sts::123456789012:role/x", "service"),
            ("arn:aws:iam::12345678901:role/x", "12 digits"),
            ("arn:aws:iam::12345678901x:role/x", "12 digits"),
            ("arn:aws:iam::123456789012:user/x", "resource type"),
            ("arn:aws:iam::123456789012:role/", "name is empty"),
            ("arn:aws:iam::123456789012:role/a b", "malformed"),
            ("arn:aws:iam::123456789012:role/a\n", "malformed"),
            ("arn:aws:iam:eu-west-1:123456789012:role/a", "no region"),
        ];
        for (text, fault) in cases {
            let message = text.parse::<RoleArn>().unwrap_err().to_string();
            assert!(message.contains(fault), "{message}");
        }
        assert!(PROFILE_TEXT.parse::<TrustAnchorArn>().is_err());
        assert!(
            PROFILE_TEXT
                .replace("eu-central-1", "")
                .parse::<ProfileArn>()
                .is_err()
        );
    }
}
