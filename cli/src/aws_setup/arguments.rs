//! The options of `roleseal aws-setup`. What goes into a name of AWS's is one once read.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use rolesanywhere::{Partition, Region};

use crate::binding::By;

/// What is to be made, and in which language.
#[derive(Debug, Args)]
pub(crate) struct AwsSetupArguments {
    /// The certificates of the CA that is to be trusted: PEM or DER
    #[arg(long, value_name = "FILE")]
    pub(super) ca_file: PathBuf,
    /// What trust anchor, profile and target are called, and the role unless --role-name says otherwise
    #[arg(long, value_name = "NAME")]
    pub(super) name: SetupName,
    /// What to print
    #[arg(long, value_enum)]
    pub(super) format: Format,
    /// The role's name [default: NAME]
    #[arg(long, value_name = "NAME")]
    pub(super) role_name: Option<RoleName>,
    /// The certificate that the role is for, with its intermediates
    #[arg(long, value_name = "FILE", conflicts_with = "common_name")]
    pub(super) certificate: Option<PathBuf>,
    /// What of that certificate the role is bound to; may be a list [default: cn, else uri, else dns]
    #[arg(
        long,
        value_enum,
        value_name = "WHAT",
        value_delimiter = ',',
        requires = "certificate"
    )]
    pub(super) by: Vec<By>,
    /// The common name of the certificates that the role is for, where there is none yet [default: NAME]
    #[arg(long, value_name = "CN")]
    pub(super) common_name: Option<String>,
    /// A policy, JSON, that the profile caps every session with
    #[arg(long, value_name = "FILE")]
    pub(super) session_policy: Option<PathBuf>,
    /// A managed policy for the role; may be repeated
    #[arg(long, value_name = "ARN")]
    pub(super) managed_policy: Vec<ManagedPolicyArn>,
    /// The region of trust anchor and profile [default: the one that AWS's tools are set to]
    #[arg(long)]
    pub(super) region: Option<Region>,
    /// The account: the script ends, and Terraform refuses, when it runs in another
    #[arg(long, value_name = "ID")]
    pub(super) account: Option<Account>,
}

pub(crate) const EXAMPLES: &str = "\
Examples:
  roleseal aws-setup --ca-file ca.pem --name web --format cli > setup.sh
    then read it, and: sh setup.sh >> ~/.config/roleseal/targets.toml
  roleseal aws-setup --ca-file ca.pem --name web --certificate web.pem --by uri \\
    --session-policy cap.json --managed-policy arn:aws:iam::aws:policy/ReadOnlyAccess \\
    --format terraform > web.tf

";

/// A language.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A script of AWS CLI commands
    Cli,
    /// A CloudFormation template, YAML
    Cloudformation,
    /// A Terraform file
    Terraform,
}

/// A text of a form that AWS demands.
macro_rules! checked {
    ($(#[$doc:meta])* $kind:ident, $fits:expr, $form:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub(crate) struct $kind(String);

        impl FromStr for $kind {
            type Err = &'static str;

            fn from_str(text: &str) -> Result<$kind, &'static str> {
                let fits: fn(&str) -> bool = $fits;
                match fits(text) {
                    true => Ok($kind(text.to_owned())),
                    false => Err($form),
                }
            }
        }

        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

checked! {
    /// Good as the name of a trust anchor, a profile, a role and a target.
    SetupName,
    |text| {
        text.len() <= 64
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
    },
    "a name has 1 to 64 letters, digits, - or _, and begins with a letter or digit"
}

checked! {
    /// IAM's form of a role's name.
    RoleName,
    |text| {
        (1..=64).contains(&text.len())
            && !text.starts_with('-') // the AWS CLI would take it for an option
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c))
    },
    "a role's name has 1 to 64 letters, digits or any of _+=,.@-, and here does not begin with -"
}

checked! {
    /// AWS's own, or the account's.
    ManagedPolicyArn,
    is_managed_policy,
    "write it like arn:aws:iam::aws:policy/NAME or arn:aws:iam::123456789012:policy/NAME"
}

checked! {
    /// An account's number.
    Account,
    is_account,
    "an account has 12 digits"
}

fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())
}

/// IAM: a path has at most 512 characters, a policy's name 128.
const RESOURCE_LIMIT: usize = 512 + 128;

fn is_managed_policy(text: &str) -> bool {
    let members: Vec<&str> = text.splitn(6, ':').collect();
    let [arn, partition, service, region, account, resource] = members[..] else {
        return false;
    };
    let name = resource.strip_prefix("policy/").unwrap_or_default();
    arn == "arn"
        && Partition::ALL.iter().any(|known| known.id() == partition)
        && (service, region) == ("iam", "")
        && (account == "aws" || is_account(account))
        && (1..=RESOURCE_LIMIT).contains(&name.len())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_+=,.@-/".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_aws_names() {
        for (text, fits) in [
            ("web", true),
            ("Web_1-b", true),
            ("", false),
            ("-web", false),
            ("we b", false),
            ("web.x", false),
            ("web'", false),
            ("$(id)", false),
            ("wéb", false),
        ] {
            assert_eq!(text.parse::<SetupName>().is_ok(), fits, "{text}");
        }
        assert!("x".repeat(65).parse::<SetupName>().is_err());
        assert!("web.x@y".parse::<RoleName>().is_ok());
        assert!("a b".parse::<RoleName>().is_err());
        assert!("-web".parse::<RoleName>().is_err());
        for (text, fits) in [
            ("arn:aws:iam::aws:policy/ReadOnlyAccess", true),
            ("arn:aws-cn:iam::aws:policy/job-function/Billing", true),
            ("arn:aws:iam::123456789012:policy/web", true),
            ("arn:aws:iam::123456789012:role/web", false),
            ("arn:aws:iam::aws:policy/", false),
            ("arn:aws:iam::aws:policy/a'b", false),
            ("arn:aws:iam:eu-west-1:aws:policy/a", false),
            ("arn:mars:iam::aws:policy/a", false),
        ] {
            assert_eq!(text.parse::<ManagedPolicyArn>().is_ok(), fits, "{text}");
        }
        assert!("12345678901".parse::<Account>().is_err());
    }
}
