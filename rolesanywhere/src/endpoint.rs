//! The URL of a service: AWS's own or another that somebody configured.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// `https://HOST[:PORT]`, without path, query or user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Host in lower case, with the port where it is not 443: the `Host` header.
    host: String,
}

/// Why a text is no [`Endpoint`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text:?} is not an endpoint: {fault}; write it like https://HOST or https://HOST:PORT")]
pub struct EndpointError {
    text: String,
    fault: &'static str,
}

impl Endpoint {
    /// The endpoint at a host of the service's own.
    pub fn at(host: String) -> Endpoint {
        Endpoint { host }
    }

    /// The `Host` header of a request to it.
    pub fn host(&self) -> &str {
        &self.host
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Endpoint, EndpointError> {
        let error = |fault| EndpointError {
            text: text.to_owned(),
            fault,
        };
        let authority = text
            .strip_prefix("https://")
            .ok_or_else(|| error("credentials travel over https only"))?;
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        if authority.contains(['/', '?', '#', '@']) {
            return Err(error("it has a path, a query or a user"));
        }
        // An IPv6 address stands in brackets, and its colons are not the port's.
        let (name, port) = match authority.rsplit_once(':') {
            Some((name, port)) if !port.contains(']') => (name, Some(port)),
            _ => (authority, None),
        };
        let inner = name
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'));
        let is_name = |name: &str| {
            !name.is_empty()
                && name
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '.')
        };
        if !inner.map_or_else(
            || is_name(name),
            |ip| ip.parse::<std::net::Ipv6Addr>().is_ok(),
        ) {
            return Err(error("the host is missing or malformed"));
        }
        let name = name.to_ascii_lowercase();
        let host = match port {
            None | Some("443") => name,
            Some(port) => match port.parse::<u16>() {
                Ok(number) if number > 0 && !port.starts_with('+') => format!("{name}:{number}"),
                _ => return Err(error("the port is not a number from 1 to 65535")),
            },
        };
        Ok(Endpoint { host })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "https://{}", self.host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_header_carries_an_unusual_port() {
        let cases = [
            ("https://localhost:8443", "localhost:8443"),
            ("https://Example.COM/", "example.com"),
            ("https://example.com:443", "example.com"),
            ("https://[::1]:8443", "[::1]:8443"),
            ("https://[::1]", "[::1]"),
        ];
        for (text, host) in cases {
            assert_eq!(text.parse::<Endpoint>().unwrap().host(), host, "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "localhost",
            "http://localhost",
            "https://",
            "https://a/b",
            "https://a?b",
            "https://u@a",
            "https://a:8443/sessions",
            "https://a:",
            "https://a:0",
            "https://a:65536",
            "https://a:+1",
            "https://[::1",
            "https://a b",
            "https://::1",
        ] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_the_same_with_a_port() {
        let fault = |text: &str| text.parse::<Endpoint>().unwrap_err().fault;
        assert_eq!(fault("https://a:8443/b"), fault("https://a/b"));
        assert_ne!(fault("https://a:8443/b"), fault("https://a:0"));
    }
}
