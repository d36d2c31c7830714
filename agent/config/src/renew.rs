//! `renew` of an identity.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use jiff::{Span, SpanRelativeTo};
use serde::Deserialize;

use crate::certificate::LeafSource;
use crate::renewal::Settings;
use crate::value::{AbsolutePath, Text};

/// `{ command = "…", before = "10d", csr = "/path", timeout = "2m" }`
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct RenewTable {
    command: Text<ShellCommand>,
    before: Option<Text<Before>>,
    csr: Option<AbsolutePath>,
    timeout: Option<Text<Timeout>>,
}

impl RenewTable {
    /// The settings, for a certificate from there and a key that may be in a file.
    pub(crate) fn validate(
        self,
        leaf: &LeafSource,
        key_file: Option<&Path>,
    ) -> Result<Settings, String> {
        let LeafSource::File(certificate) = leaf else {
            return Err(
                "renew is for a certificate in a file, and this one is on the token: write certificate = \
                 \"/path\""
                    .to_owned(),
            );
        };
        if key_file == Some(certificate) {
            return Err(
                "renew would replace the file that the key is in: keep the certificate in a file of its \
                 own, certificate = \"/path\""
                    .to_owned(),
            );
        }
        let csr = match self.csr {
            Some(AbsolutePath(path)) => path,
            None => beside(certificate),
        };
        if csr == *certificate {
            return Err(
                "renew.csr is the certificate's own file: name the certificate request".to_owned(),
            );
        }
        Ok(Settings {
            command: self.command.0.0,
            before: self.before.map(|text| text.0.0),
            csr,
            timeout: self.timeout.map_or(DEFAULT_TIMEOUT, |text| text.0.0),
        })
    }
}

/// Where the certificate request is, unless something else is said.
pub fn beside(certificate: &Path) -> PathBuf {
    certificate.with_extension("csr")
}

/// A CA answers within seconds; one behind a queue, within a minute or two.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(120);

/// The longest time that a command may take. Who waits for a person's approval has the command ask for the
/// certificate of an earlier request.
const TIMEOUT_LIMIT: Duration = Duration::from_secs(3600);

/// The longest time before the end at which a renewal may begin: certificates live shorter.
const BEFORE_LIMIT: Duration = Duration::from_secs(10 * 365 * 86_400);

/// The longest command, in bytes: what is longer belongs into a script.
const COMMAND_LIMIT: usize = 4096;

struct ShellCommand(String);

impl FromStr for ShellCommand {
    type Err = String;

    fn from_str(text: &str) -> Result<ShellCommand, String> {
        if text.trim().is_empty() || text.len() > COMMAND_LIMIT || text.contains('\0') {
            return Err(format!(
                "renew.command is one for /bin/sh, of at most {COMMAND_LIMIT} bytes: put a longer one into a \
                 script"
            ));
        }
        Ok(ShellCommand(text.to_owned()))
    }
}

pub(crate) struct Before(pub(crate) Duration);

impl FromStr for Before {
    type Err = String;

    fn from_str(text: &str) -> Result<Before, String> {
        match time(text) {
            Some(time) if !time.is_zero() && time <= BEFORE_LIMIT => Ok(Before(time)),
            _ => Err(format!(
                "{text:?} is no time before the certificate's end: write one like 10d or 8h"
            )),
        }
    }
}

struct Timeout(Duration);

impl FromStr for Timeout {
    type Err = String;

    fn from_str(text: &str) -> Result<Timeout, String> {
        match time(text) {
            Some(time) if time >= Duration::from_secs(1) && time <= TIMEOUT_LIMIT => {
                Ok(Timeout(time))
            }
            _ => Err(format!(
                "{text:?} is no time that a command may take: write one from 1s to 1h, such as 2m"
            )),
        }
    }
}

/// Days have 24 hours.
fn time(text: &str) -> Option<Duration> {
    let span: Span = text.parse().ok()?;
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
    duration.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn validate(toml: &str) -> Result<Settings, String> {
        let table: RenewTable = toml::from_str(toml).map_err(|error| error.message().to_owned())?;
        let leaf = LeafSource::File("/var/lib/web.pem".into());
        table.validate(&leaf, Some(Path::new("/etc/web.tss")))
    }

    #[test]
    fn what_is_left_out_has_a_default() {
        let settings = validate("command = \"step\"").unwrap();
        assert_eq!(settings.csr, Path::new("/var/lib/web.csr"));
        assert_eq!((settings.before, settings.timeout.as_secs()), (None, 120));
        let settings = validate(
            "command = \"step\"\nbefore = \"10d\"\ncsr = \"/etc/web.csr\"\ntimeout = \"1h\"",
        )
        .unwrap();
        assert_eq!(settings.csr, Path::new("/etc/web.csr"));
        assert_eq!(settings.before, Some(Duration::from_secs(864_000)));
        assert_eq!(settings.timeout.as_secs(), 3600);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (toml, fault) in [
            ("", "missing field `command`"),
            ("command = \"\"", "one for /bin/sh"),
            ("command = \"a\\u0000b\"", "one for /bin/sh"),
            ("command = \"a\"\nbefore = \"soon\"", "like 10d or 8h"),
            ("command = \"a\"\nbefore = \"0s\"", "like 10d or 8h"),
            ("command = \"a\"\nbefore = \"-1d\"", "like 10d or 8h"),
            ("command = \"a\"\nbefore = \"11y\"", "like 10d or 8h"),
            ("command = \"a\"\ntimeout = \"0s\"", "from 1s to 1h"),
            ("command = \"a\"\ntimeout = \"61m\"", "from 1s to 1h"),
            ("command = \"a\"\ncsr = \"web.csr\"", "absolute"),
            ("command = \"a\"\ncsr = \"/var/lib/web.pem\"", "own file"),
            ("command = \"a\"\nafter = \"1d\"", "unknown field"),
        ] {
            let error = validate(toml).unwrap_err();
            assert!(error.contains(fault), "{toml}: {error}");
        }
        let table = |leaf: LeafSource, key: &str| {
            let table: RenewTable = toml::from_str("command = \"a\"").unwrap();
            table.validate(&leaf, Some(Path::new(key))).unwrap_err()
        };
        let file = LeafSource::File("/etc/web.tss".into());
        assert!(table(file, "/etc/web.tss").contains("the file that the key is in"));
        let token = LeafSource::Token(token::link::CertificateOnToken::OfTheKey);
        assert!(table(token, "/etc/web.tss").contains("on the token"));
    }
}
