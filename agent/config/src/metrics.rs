//! `[metrics]`: where they are served.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::Deserialize;

use crate::value::{AbsolutePath, Text};

/// Where metrics are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetricsAddress {
    /// To this host, at a port.
    Loopback(SocketAddr),
    /// To who reaches the socket.
    Socket(PathBuf),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MetricsTable {
    listen: Option<Text<Loopback>>,
    socket: Option<AbsolutePath>,
}

impl MetricsTable {
    pub(crate) fn validate(self) -> Result<MetricsAddress, String> {
        match (self.listen, self.socket) {
            (Some(Text(Loopback(address))), None) => Ok(MetricsAddress::Loopback(address)),
            (None, Some(AbsolutePath(path))) => Ok(MetricsAddress::Socket(path)),
            _ => Err("metrics: give either listen or socket".to_owned()),
        }
    }
}

/// Metrics ask for no credentials, so that they are for this host alone.
struct Loopback(SocketAddr);

impl FromStr for Loopback {
    type Err = String;

    fn from_str(text: &str) -> Result<Loopback, String> {
        let address: SocketAddr = text.parse().map_err(|_| {
            format!("{text:?} is not an address and a port, such as 127.0.0.1:9184")
        })?;
        if address.ip().is_loopback() {
            return Ok(Loopback(address));
        }
        Err(format!(
            "{address} is not a loopback address: anybody could read the metrics; use 127.0.0.1 or [::1], \
             with a proxy in front that knows who may"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{WEB, load};

    #[test]
    fn metrics_are_for_this_host() {
        let metrics = |table: &str| load(&format!("[metrics]\n{table}\n{WEB}"));
        for (table, expected) in [
            (
                "listen = \"127.0.0.1:9184\"",
                MetricsAddress::Loopback(([127, 0, 0, 1], 9184).into()),
            ),
            (
                "listen = \"[::1]:9184\"",
                MetricsAddress::Loopback("[::1]:9184".parse().unwrap()),
            ),
            (
                "socket = \"/run/m.sock\"",
                MetricsAddress::Socket("/run/m.sock".into()),
            ),
        ] {
            assert_eq!(metrics(table).unwrap().metrics, Some(expected));
        }
        assert_eq!(load(WEB).unwrap().metrics, None);
        for (table, fault) in [
            ("listen = \"0.0.0.0:9184\"", "not a loopback address"),
            ("listen = \"192.0.2.1:9184\"", "not a loopback address"),
            (
                "listen = \"[::ffff:192.0.2.1]:1\"",
                "not a loopback address",
            ),
            ("listen = \"localhost:9184\"", "such as 127.0.0.1:9184"),
            ("listen = \"127.0.0.1\"", "such as 127.0.0.1:9184"),
            ("socket = \"m.sock\"", "absolute"),
            ("socket = \"/run/roleseal/agent.sock\"", "the agent's own"),
            (
                "listen = \"127.0.0.1:1\"\nsocket = \"/m\"",
                "either listen or socket",
            ),
            ("", "either listen or socket"),
            ("port = 1", "unknown field"),
        ] {
            let error = metrics(table).unwrap_err();
            assert!(error.contains(fault), "{table}: {error}");
        }
    }
}
