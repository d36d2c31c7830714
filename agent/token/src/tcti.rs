//! How to reach a TPM: a TCTI string as libtss2 writes it. The sandbox opens its device or its port, and identities
//! with equal TCTIs share a program. libtss2 3.2.1 (Debian 12) skips a setting that it does not know:
//! `swtpm:path=/run/swtpm` becomes localhost:2321, where another TPM may listen. So only known settings are accepted.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// A TCTI. `Display` is its string, with all defaults written out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tcti {
    /// A character device: `device:/dev/tpmrm0`.
    Device(PathBuf),
    /// A swtpm: `swtpm:host=127.0.0.1,port=2321`.
    Swtpm(Server),
    /// A simulator with Microsoft's protocol: `mssim:host=127.0.0.1,port=2321`.
    Mssim(Server),
    /// The resource manager daemon: `tabrmd:bus_name=com.intel.tss2.Tabrmd,bus_type=system`.
    Tabrmd {
        /// Its name on D-Bus.
        bus_name: String,
        /// `system` or `session`.
        bus_type: String,
    },
}

/// Where a TPM listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    host: String,
    /// Its commands go to this port, what controls it to the next.
    pub port: u16,
}

/// Why a TCTI string is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("TCTI {tcti:?} {fault}")]
pub struct TctiError {
    tcti: String,
    fault: &'static str,
}

impl Default for Tcti {
    /// The kernel's resource manager: programs do not get into each other's way there.
    fn default() -> Tcti {
        Tcti::Device(PathBuf::from("/dev/tpmrm0"))
    }
}

impl Tcti {
    /// Whether a resource manager stands before the TPM, which frees what a program that ended has left there.
    pub fn has_resource_manager(&self) -> bool {
        match self {
            Tcti::Device(path) => path
                .file_name()
                .is_some_and(|name| name.as_encoded_bytes().starts_with(b"tpmrm")),
            Tcti::Tabrmd { .. } => true,
            Tcti::Swtpm(_) | Tcti::Mssim(_) => false,
        }
    }
}

impl FromStr for Tcti {
    type Err = TctiError;

    fn from_str(text: &str) -> Result<Tcti, TctiError> {
        let (kind, settings) = text.split_once(':').unwrap_or((text, ""));
        match kind {
            "device" => device(settings),
            "swtpm" => Server::parse(settings).map(Tcti::Swtpm),
            "mssim" => Server::parse(settings).map(Tcti::Mssim),
            "tabrmd" => values(settings, TABRMD)
                .map(|[bus_name, bus_type]| Tcti::Tabrmd { bus_name, bus_type }),
            _ => Err("begins with none of device:, swtpm:, mssim: and tabrmd:"),
        }
        .map_err(|fault| TctiError {
            tcti: text.to_owned(),
            fault,
        })
    }
}

fn device(path: &str) -> Result<Tcti, &'static str> {
    if !Path::new(path).is_absolute() || path.contains(|c: char| c.is_control()) {
        return Err("names no device by an absolute path: write device:/dev/tpmrm0");
    }
    Ok(Tcti::Device(path.into()))
}

impl Server {
    fn parse(text: &str) -> Result<Server, &'static str> {
        let [host, port] = values(text, SERVER)?;
        match port.parse() {
            Ok(port @ 1..) => Ok(Server { host, port }),
            _ => Err("has a port that is not a number from 1 to 65535"),
        }
    }
}

/// The settings of a TPM behind TCP, and libtss2's defaults.
const SERVER: [(&str, &str); 2] = [("host", "localhost"), ("port", "2321")];

/// Those of the resource manager daemon.
const TABRMD: [(&str, &str); 2] = [
    ("bus_name", "com.intel.tss2.Tabrmd"),
    ("bus_type", "system"),
];

const UNKNOWN: &str = "has a setting that is unknown, repeated or without a plain value: write tabrmd: or \
     swtpm:host=ADDRESS,port=NUMBER";

/// The values of `name=value,name=value`: each at most once, else its default.
fn values(text: &str, settings: [(&str, &str); 2]) -> Result<[String; 2], &'static str> {
    let mut values = settings.map(|_| None);
    for given in text.split(',').filter(|_| !text.is_empty()) {
        let (name, value) = given.split_once('=').unwrap_or((given, ""));
        let known = settings.iter().position(|(known, _)| *known == name);
        match known.and_then(|at| values.get_mut(at)) {
            Some(place @ None) if is_plain(value) => *place = Some(value),
            _ => return Err(UNKNOWN),
        }
    }
    let mut values = values.into_iter();
    Ok(settings.map(|(_, default)| values.next().flatten().unwrap_or(default).to_owned()))
}

/// Whether libtss2 reads a value as it is written, and no program takes it for an option.
fn is_plain(value: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._:-".contains(c);
    value.starts_with(|c: char| c != '-') && value.chars().all(plain)
}

impl fmt::Display for Tcti {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Tcti::Device(path) => write!(f, "device:{}", path.display()),
            Tcti::Swtpm(Server { host, port }) => write!(f, "swtpm:host={host},port={port}"),
            Tcti::Mssim(Server { host, port }) => write!(f, "mssim:host={host},port={port}"),
            Tcti::Tabrmd { bus_name, bus_type } => {
                write!(f, "tabrmd:bus_name={bus_name},bus_type={bus_type}")
            }
        }
    }
}

impl Serialize for Tcti {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Tcti {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Tcti, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_written_out() {
        for (text, full) in [
            ("device:/dev/tpmrm0", "device:/dev/tpmrm0"),
            ("device:/dev/tpm0", "device:/dev/tpm0"),
            ("swtpm", "swtpm:host=localhost,port=2321"),
            (
                "swtpm:port=4000,host=127.0.0.1",
                "swtpm:host=127.0.0.1,port=4000",
            ),
            ("mssim:host=::1", "mssim:host=::1,port=2321"),
            (
                "tabrmd:",
                "tabrmd:bus_name=com.intel.tss2.Tabrmd,bus_type=system",
            ),
            (
                "tabrmd:bus_type=session",
                "tabrmd:bus_name=com.intel.tss2.Tabrmd,bus_type=session",
            ),
        ] {
            let tcti: Tcti = text.parse().unwrap();
            assert_eq!(tcti.to_string(), full);
            assert_eq!(full.parse(), Ok(tcti));
        }
        assert_eq!(Tcti::default().to_string(), "device:/dev/tpmrm0");
        for (text, managed) in [
            ("device:/dev/tpmrm0", true),
            ("tabrmd:", true),
            ("device:/dev/tpm0", false),
            ("swtpm", false),
        ] {
            assert_eq!(
                text.parse::<Tcti>().unwrap().has_resource_manager(),
                managed
            );
        }
    }

    #[test]
    fn what_libtss2_would_misread_is_refused() {
        for text in [
            "",
            "/dev/tpmrm0",
            "cmd:tpm2_send",
            "libtss2-tcti-swtpm.so.0",
            "device",
            "device:tpmrm0",
            "swtpm:path=/run/swtpm.sock",
            "swtpm:port=1,path=/run/swtpm.sock",
            "swtpm:4000",
            "swtpm:port=1,",
            "swtpm:port=1,port=2",
            "swtpm:port=0",
            "swtpm:port=+1",
            "swtpm:port=65536",
            "mssim:host=",
            "mssim:host=a b",
            "mssim:host=-a",
            "tabrmd:bus=x",
            "tabrmd:bus_name=",
        ] {
            assert!(text.parse::<Tcti>().is_err(), "{text}");
        }
    }
}
