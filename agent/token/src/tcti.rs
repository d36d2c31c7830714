//! How to reach a TPM: a TCTI string as libtss2 writes it, in those forms that libtss2 3.2.1 (Debian 12)
//! understands. What it does not know it skips without a word: `swtpm:path=/run/swtpm` becomes
//! localhost:2321, where another TPM may listen. So everything else is refused here.

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
            "tabrmd" => tabrmd(settings),
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
        let [host, port] = settings(
            text,
            ["host", "port"],
            "has something beside host and port: write it with host=ADDRESS,port=NUMBER",
        )?;
        let host = host.unwrap_or("localhost");
        let plain = |c: char| c.is_ascii_alphanumeric() || ".:-".contains(c);
        if host.is_empty() || host.starts_with('-') || !host.chars().all(plain) {
            return Err("has a host that is neither a name nor an address");
        }
        let port = match port {
            None => 2321,
            Some(port) => match port.parse() {
                Ok(number @ 1..) if port.bytes().all(|digit| digit.is_ascii_digit()) => number,
                _ => return Err("has a port that is no number from 1 to 65535"),
            },
        };
        Ok(Server {
            host: host.to_owned(),
            port,
        })
    }
}

fn tabrmd(text: &str) -> Result<Tcti, &'static str> {
    let [name, kind] = settings(
        text,
        ["bus_name", "bus_type"],
        "has something beside bus_name and bus_type",
    )?;
    let bus_name = name.unwrap_or("com.intel.tss2.Tabrmd");
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if !bus_name.contains('.') || !bus_name.chars().all(plain) {
        return Err("has a bus_name that is none");
    }
    let bus_type = kind.unwrap_or("system");
    if !["system", "session"].contains(&bus_type) {
        return Err("has a bus_type that is neither system nor session");
    }
    Ok(Tcti::Tabrmd {
        bus_name: bus_name.to_owned(),
        bus_type: bus_type.to_owned(),
    })
}

/// The values of `name=value,name=value`, each at most once.
fn settings<'a>(
    text: &'a str,
    names: [&str; 2],
    usage: &'static str,
) -> Result<[Option<&'a str>; 2], &'static str> {
    let mut values = [None; 2];
    for setting in text.split(',').filter(|_| !text.is_empty()) {
        let (name, value) = setting.split_once('=').ok_or(usage)?;
        let place = names.iter().zip(&mut values).find(|(own, _)| **own == name);
        let (_, place) = place.ok_or(usage)?;
        if place.replace(value).is_some() {
            return Err("gives a setting twice");
        }
    }
    Ok(values)
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
        for (text, expected) in [
            ("", "none of"),
            ("/dev/tpmrm0", "none of"),
            ("cmd:tpm2_send", "none of"),
            ("libtss2-tcti-swtpm.so.0", "none of"),
            ("device", "absolute"),
            ("device:tpmrm0", "absolute"),
            ("swtpm:path=/run/swtpm.sock", "beside host and port"),
            ("swtpm:port=1,path=/run/swtpm.sock", "beside host and port"),
            ("swtpm:4000", "beside host and port"),
            ("swtpm:port=1,", "beside host and port"),
            ("swtpm:port=1,port=2", "twice"),
            ("swtpm:port=0", "no number"),
            ("swtpm:port=+1", "no number"),
            ("swtpm:port=65536", "no number"),
            ("mssim:host=", "neither a name"),
            ("mssim:host=a b", "neither a name"),
            ("tabrmd:bus_name=x", "is none"),
            ("tabrmd:bus_type=none", "neither system"),
        ] {
            let message = text.parse::<Tcti>().unwrap_err().to_string();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }
}
