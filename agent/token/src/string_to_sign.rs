//! The one text that may be signed.
//!
//! SigV4-X509 ("Authentication: the signing process", IAM Roles Anywhere user guide):
//!
//! ```text
//! AWS4-X509-ECDSA-SHA256
//! 20261123T120000Z
//! 20261123/eu-central-1/rolesanywhere/aws4_request
//! <64 lower-case hex digits: SHA-256 of the canonical request>
//! ```

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;
use rolesanywhere::Region;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A SigV4-X509 string to sign for a Roles Anywhere request. `Display` is the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StringToSign {
    /// How it is signed, which must fit the key.
    pub algorithm: Algorithm,
    /// When.
    pub date: AmzDate,
    /// In which region.
    pub region: Region,
    /// SHA-256 of the canonical request.
    pub request_hash: [u8; 32],
}

/// A text that no key of ours signs.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("not a SigV4-X509 string to sign for rolesanywhere")]
pub struct NotASignableText;

/// How a request is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RsaSha256,
    /// ECDSA with SHA-256, on any curve.
    EcdsaSha256,
}

/// The time of a request in seconds, UTC. `Display` is the text of `X-Amz-Date`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AmzDate(DateTime);

/// Where and when a signature is good for: `20261123/eu-central-1/rolesanywhere/aws4_request`.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    date: AmzDate,
    region: &'a Region,
}

impl StringToSign {
    /// The credential scope.
    pub fn scope(&self) -> Scope<'_> {
        Scope {
            date: self.date,
            region: &self.region,
        }
    }
}

impl fmt::Display for StringToSign {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let hash = hex::encode(self.request_hash);
        write!(
            f,
            "{}\n{}\n{}\n{hash}",
            self.algorithm,
            self.date,
            self.scope()
        )
    }
}

impl FromStr for StringToSign {
    type Err = NotASignableText;

    fn from_str(text: &str) -> Result<StringToSign, NotASignableText> {
        let mut lines = text.splitn(4, '\n');
        let mut line = || lines.next().ok_or(NotASignableText);
        let (algorithm, date, scope, hash) = (line()?, line()?, line()?, line()?);
        let region = scope.split('/').nth(1).ok_or(NotASignableText)?;
        let mut request_hash = [0; 32];
        hex::decode_to_slice(hash, &mut request_hash).map_err(|_| NotASignableText)?;
        let parsed = StringToSign {
            algorithm: algorithm.parse()?,
            date: date.parse()?,
            region: region.parse().map_err(|_| NotASignableText)?,
            request_hash,
        };
        // Whatever was not looked at above (scope's date and ends, case of the hash) must be as we write it.
        if parsed.to_string() == text {
            Ok(parsed)
        } else {
            Err(NotASignableText)
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Algorithm::RsaSha256 => "AWS4-X509-RSA-SHA256",
            Algorithm::EcdsaSha256 => "AWS4-X509-ECDSA-SHA256",
        })
    }
}

impl FromStr for Algorithm {
    type Err = NotASignableText;

    fn from_str(text: &str) -> Result<Algorithm, NotASignableText> {
        [Algorithm::RsaSha256, Algorithm::EcdsaSha256]
            .into_iter()
            .find(|algorithm| algorithm.to_string() == text)
            .ok_or(NotASignableText)
    }
}

const AMZ_DATE: &str = "%Y%m%dT%H%M%SZ";

impl From<Timestamp> for AmzDate {
    fn from(time: Timestamp) -> AmzDate {
        AmzDate(Offset::UTC.to_datetime(time))
    }
}

impl fmt::Display for AmzDate {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}", self.0.strftime(AMZ_DATE))
    }
}

impl FromStr for AmzDate {
    type Err = NotASignableText;

    fn from_str(text: &str) -> Result<AmzDate, NotASignableText> {
        DateTime::strptime(AMZ_DATE, text)
            .map(AmzDate)
            .map_err(|_| NotASignableText)
    }
}

impl fmt::Display for Scope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let day = self.date.0.strftime("%Y%m%d");
        write!(f, "{day}/{}/rolesanywhere/aws4_request", self.region)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "AWS4-X509-ECDSA-SHA256\n20261123T120000Z\n20261123/eu-central-1/rolesanywhere/aws4_request\ne3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn the_text_is_read_and_written_alike() {
        for text in [TEXT, &TEXT.replace("ECDSA", "RSA")] {
            assert_eq!(text.parse::<StringToSign>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn nothing_else_is_signable() {
        let others = [
            String::new(),
            TEXT.replace("X509-ECDSA", "HMAC"),
            TEXT.replace("-ECDSA-SHA256", "-MLDSA"),
            TEXT.replace("rolesanywhere", "s3"),
            TEXT.replace("aws4_request", "aws4_requests"),
            TEXT.replace("/rolesanywhere", ""),
            TEXT.replace("20261123T", "20261122T"),
            TEXT.replace("20261123", "20261323"),
            TEXT.replace("T120000Z", "T120000"),
            TEXT.replace("T120000Z", "T126000Z"),
            TEXT.replace("T120000Z", "T1200 0Z"),
            TEXT.replace("eu-central-1", "eu-central-1/x"),
            TEXT.replace("eu-central-1", ""),
            TEXT.replace("e3b0", "E3B0"),
            TEXT.replace("b855", "b85"),
            TEXT.replace("b855", "b8551"),
            TEXT.replace('\n', "\r\n"),
            format!("{TEXT}\n"),
            format!("\n{TEXT}"),
            format!(" {TEXT}"),
            TEXT.replace("20261123T", "+20261123T"),
        ];
        for text in others {
            assert_eq!(
                text.parse::<StringToSign>(),
                Err(NotASignableText),
                "{text:?}"
            );
        }
    }

    #[test]
    fn dates_drop_what_is_below_a_second() {
        let time: Timestamp = "2026-11-23T12:00:00.999Z".parse().unwrap();
        assert_eq!(AmzDate::from(time).to_string(), "20261123T120000Z");
    }
}
