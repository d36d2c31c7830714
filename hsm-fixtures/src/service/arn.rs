//! The ARNs that CreateSession names, parsed.

use std::fmt;

/// `arn:PARTITION:SERVICE:REGION:ACCOUNT:RESOURCE`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Arn {
    pub(crate) partition: String,
    pub(crate) service: String,
    /// Empty for IAM.
    pub(crate) region: String,
    /// Twelve digits.
    pub(crate) account: String,
    pub(crate) resource: String,
}

impl fmt::Display for Arn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Arn {
            partition,
            service,
            region,
            account,
            resource,
        } = self;
        write!(f, "arn:{partition}:{service}:{region}:{account}:{resource}")
    }
}

impl Arn {
    pub(crate) fn trust_anchor(text: &str) -> Result<Arn, String> {
        Arn::parse(text)?.expect_roles_anywhere("trust-anchor")
    }

    pub(crate) fn profile(text: &str) -> Result<Arn, String> {
        Arn::parse(text)?.expect_roles_anywhere("profile")
    }

    pub(crate) fn role(text: &str) -> Result<Arn, String> {
        let arn = Arn::parse(text)?;
        if arn.service != "iam" || !arn.region.is_empty() || arn.name_after("role").is_none() {
            return Err(format!("no ARN of an IAM role: {text}"));
        }
        Ok(arn)
    }

    /// The last part of a role's path: session ARNs leave the rest out.
    pub(crate) fn role_name(&self) -> &str {
        self.resource.rsplit('/').next().unwrap_or_default()
    }

    fn parse(text: &str) -> Result<Arn, String> {
        let fields: Vec<&str> = text.splitn(6, ':').collect();
        let ["arn", partition, service, region, account, resource] = fields[..] else {
            return Err(format!("no ARN: {text}"));
        };
        if account.len() != 12 || !account.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(format!("no ARN with an account of twelve digits: {text}"));
        }
        Ok(Arn {
            partition: partition.to_owned(),
            service: service.to_owned(),
            region: region.to_owned(),
            account: account.to_owned(),
            resource: resource.to_owned(),
        })
    }

    fn expect_roles_anywhere(self, kind: &str) -> Result<Arn, String> {
        if self.service != "rolesanywhere"
            || self.region.is_empty()
            || self.name_after(kind).is_none()
        {
            return Err(format!("no ARN of a {kind}: {self}"));
        }
        Ok(self)
    }

    fn name_after(&self, kind: &str) -> Option<&str> {
        self.resource
            .strip_prefix(kind)?
            .strip_prefix('/')
            .filter(|name| !name.is_empty() && !name.ends_with('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arn_is_printed_as_it_was_read() {
        let role = "arn:aws:iam::123456789012:role/path/to/web";
        let parsed = Arn::role(role).unwrap();
        assert_eq!(parsed.to_string(), role);
        assert_eq!(parsed.role_name(), "web");
        let anchor =
            Arn::trust_anchor("arn:aws:rolesanywhere:eu-central-1:123456789012:trust-anchor/1")
                .unwrap();
        assert_eq!(anchor.region, "eu-central-1");
    }

    #[test]
    fn each_kind_refuses_the_others() {
        let anchor = "arn:aws:rolesanywhere:eu-central-1:123456789012:trust-anchor/1";
        let profile = "arn:aws:rolesanywhere:eu-central-1:123456789012:profile/1";
        let role = "arn:aws:iam::123456789012:role/web";
        assert!(Arn::profile(anchor).is_err() && Arn::role(anchor).is_err());
        assert!(Arn::trust_anchor(profile).is_err() && Arn::role(profile).is_err());
        assert!(Arn::trust_anchor(role).is_err() && Arn::profile(role).is_err());
        for text in [
            "",
            "arn",
            "arn:aws:iam::1:role/web",
            "arn:aws:iam::123456789012:role/",
            "arn:aws:iam::123456789012:user/a",
        ] {
            assert!(Arn::role(text).is_err(), "{text}");
        }
    }
}
