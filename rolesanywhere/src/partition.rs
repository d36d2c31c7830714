//! AWS partitions and regions, and the service's host name in them.

use std::fmt;
use std::str::FromStr;

/// A group of AWS regions with DNS suffixes of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // named as AWS names them: see `id`
pub enum Partition {
    Aws,
    AwsCn,
    AwsUsGov,
    AwsEusc,
    AwsIso,
    AwsIsoB,
    AwsIsoE,
    AwsIsoF,
}

impl Partition {
    /// All of them.
    pub const ALL: [Partition; 8] = [
        Partition::Aws,
        Partition::AwsCn,
        Partition::AwsUsGov,
        Partition::AwsEusc,
        Partition::AwsIso,
        Partition::AwsIsoB,
        Partition::AwsIsoE,
        Partition::AwsIsoF,
    ];

    /// The second member of an ARN.
    pub fn id(self) -> &'static str {
        self.facts().0
    }

    /// The service's host name: `rolesanywhere[-fips].REGION.SUFFIX`.
    pub fn host(self, region: &Region, fips: bool, dual_stack: bool) -> String {
        let (_, suffix, dual_stack_suffix) = self.facts();
        let service = if fips {
            "rolesanywhere-fips"
        } else {
            "rolesanywhere"
        };
        let suffix = if dual_stack {
            dual_stack_suffix
        } else {
            suffix
        };
        format!("{service}.{region}.{suffix}")
    }

    /// Whether `host` is one of the service's four names in `region`.
    pub fn serves(self, host: &str, region: &Region) -> bool {
        [(false, false), (false, true), (true, false), (true, true)]
            .into_iter()
            .any(|(fips, dual_stack)| self.host(region, fips, dual_stack) == host)
    }

    /// Id, DNS suffix, dual-stack DNS suffix.
    fn facts(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Partition::Aws => ("aws", "amazonaws.com", "api.aws"),
            Partition::AwsCn => ("aws-cn", "amazonaws.com.cn", "api.amazonwebservices.com.cn"),
            Partition::AwsUsGov => ("aws-us-gov", "amazonaws.com", "api.aws"),
            Partition::AwsEusc => ("aws-eusc", "amazonaws.eu", "api.amazonwebservices.eu"),
            Partition::AwsIso => ("aws-iso", "c2s.ic.gov", "api.aws.ic.gov"),
            Partition::AwsIsoB => ("aws-iso-b", "sc2s.sgov.gov", "api.aws.scloud"),
            Partition::AwsIsoE => ("aws-iso-e", "cloud.adc-e.uk", "api.cloud-aws.adc-e.uk"),
            Partition::AwsIsoF => ("aws-iso-f", "csp.hci.ic.gov", "api.aws.hci.ic.gov"),
        }
    }
}

/// An AWS region's name, such as `eu-central-1`: safe to put into a host name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region(String);

impl FromStr for Region {
    type Err = String;

    fn from_str(text: &str) -> Result<Region, String> {
        // The longest so far has 15 characters; a DNS label may have 63.
        match text.len() <= 63 && has_form(text) {
            true => Ok(Region(text.to_owned())),
            false => Err(format!(
                "{text:?} is not an AWS region; write one like eu-central-1"
            )),
        }
    }
}

/// Words, of which none has begun with a digit yet, and a number: what the region patterns of all partitions have in
/// common. New regions begin with words that no pattern of today knows.
fn has_form(text: &str) -> bool {
    let is_word = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_lowercase())
            && word
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    let Some((words, number)) = text.rsplit_once('-') else {
        return false;
    };
    words.contains('-')
        && words.split('-').all(is_word)
        && !number.is_empty()
        && number.bytes().all(|b| b.is_ascii_digit())
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_follow_the_partition() {
        let region: Region = "us-gov-west-1".parse().unwrap();
        let host = |partition: Partition, fips, dual| partition.host(&region, fips, dual);
        assert_eq!(
            host(Partition::AwsUsGov, true, false),
            "rolesanywhere-fips.us-gov-west-1.amazonaws.com"
        );
        assert_eq!(
            host(Partition::AwsEusc, false, true),
            "rolesanywhere.us-gov-west-1.api.amazonwebservices.eu"
        );
        for partition in Partition::ALL {
            assert!(partition.serves(&host(partition, true, true), &region));
            assert!(!partition.serves("rolesanywhere.eu-west-1.amazonaws.com", &region));
        }
    }

    #[test]
    fn a_region_cannot_smuggle_a_host() {
        for text in [
            "eu-central-1",
            "ap-southeast-12",
            "us-gov-west-1",
            "us-isob-east-1",
            "eusc-de-east-1",
        ] {
            assert_eq!(text.parse::<Region>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "eu",
            "-eu-1",
            "eu-1-",
            "eu-1.evil",
            "EU-west-1",
            "eu-1/x",
            "eu-1#",
            "1-a",
            "eu-central",
            "eu-1",
            "eu--1",
            "eu-central-",
            "eu-central-1a",
            "eu-central-1-lab",
            "eu-3central-1",
        ] {
            assert!(text.parse::<Region>().is_err(), "{text}");
        }
    }
}
