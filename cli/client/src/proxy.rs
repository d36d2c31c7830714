//! HTTP proxies: a tunnel (CONNECT) to the service, whose TLS and certificate stay the service's own.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use secrecy::{ExposeSecret, SecretString};

use crate::environment::Environment;

/// A proxy, perhaps with a password.
#[derive(Clone)]
pub struct Proxy {
    url: SecretString,
    /// The URL without user and password.
    shown: String,
}

/// What somebody said about the proxy of a target.
#[derive(Debug, Clone)]
pub enum ProxySetting {
    /// Connect directly, whatever the environment says.
    None,
    /// This one, whatever the environment says.
    Use(Proxy),
}

/// The hosts that are reached without a proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NoProxy(Vec<Exception>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Exception {
    All,
    /// A domain with its subdomains; only at a port, where there is one.
    Domain(String, Option<u16>),
    /// Addresses with the same first bits.
    Network(IpAddr, u32),
}

/// What the environment says of the proxy for a host.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "each name says it")]
pub enum ProxyWord {
    /// Nothing.
    None,
    /// There is one, in this variable, but that one excepts the host.
    Excepted {
        by: &'static str,
        from: &'static str,
    },
    /// This one, in this variable.
    Use { proxy: Proxy, from: &'static str },
}

impl Proxy {
    /// For messages.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// As the HTTP client takes it.
    pub fn url(&self) -> &str {
        self.url.expose_secret()
    }
}

const FORM: &str =
    "write it like http://HOST:PORT or http://USER:PASSWORD@HOST:PORT, percent-encoded";

impl FromStr for Proxy {
    type Err = &'static str;

    /// A text without a scheme is a host, as for curl. User and password are what RFC 3986 allows there: with
    /// another character, programs take different parts of the URL for the host.
    fn from_str(text: &str) -> Result<Proxy, &'static str> {
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (scheme.to_ascii_lowercase(), rest),
            None => ("http".to_owned(), text),
        };
        if scheme != "http" && scheme != "https" {
            return Err(FORM);
        }
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        let url = format!("{scheme}://{authority}");
        if !is_encoded(user) || !is_host(host) || ureq::Proxy::new(&url).is_err() {
            return Err(FORM);
        }
        Ok(Proxy {
            shown: format!("{scheme}://{host}"),
            url: url.into(),
        })
    }
}

/// RFC 3986, section 3.2.1: unreserved characters, sub-delimiters, colons, and the rest as `%` and two digits.
fn is_encoded(user: &str) -> bool {
    let mut parts = user.split('%');
    let plain = |text: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:".contains(c);
        text.chars().all(allowed)
    };
    let encoded = |text: &str| {
        let digits = text.get(..2);
        digits.is_some_and(|two| two.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    parts.next().is_none_or(plain)
        && parts.all(|part| encoded(part) && part.get(2..).is_some_and(plain))
}

/// A name, an address or an address in brackets; with a port, or without.
fn is_host(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    let address = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    let known = match address {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => !name.is_empty() && name.chars().all(plain),
    };
    let digits = |port: &str| port.bytes().all(|b| b.is_ascii_digit());
    let is_port = |port: &str| digits(port) && port.parse().is_ok_and(|port: u16| port != 0);
    known && port.is_none_or(is_port)
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl ProxySetting {
    /// The proxy to use.
    pub fn proxy(self) -> Option<Proxy> {
        match self {
            ProxySetting::None => None,
            ProxySetting::Use(proxy) => Some(proxy),
        }
    }
}

impl ProxyWord {
    /// For an endpoint's host.
    pub fn of(environment: &Environment, host: &str) -> Result<ProxyWord, String> {
        let Some((from, url)) = environment.https_proxy() else {
            return Ok(ProxyWord::None);
        };
        if let Some((by, hosts)) = environment.no_proxy()
            && hosts.parse::<NoProxy>().is_ok_and(|list| list.has(host))
        {
            return Ok(ProxyWord::Excepted { by, from });
        }
        match url.parse() {
            Ok(proxy) => Ok(ProxyWord::Use { proxy, from }),
            Err(fault) => Err(format!("${from} is no proxy: {fault}")),
        }
    }

    /// The proxy to use.
    pub fn proxy(self) -> Option<Proxy> {
        match self {
            ProxyWord::Use { proxy, .. } => Some(proxy),
            ProxyWord::None | ProxyWord::Excepted { .. } => None,
        }
    }
}

impl FromStr for ProxySetting {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<ProxySetting, &'static str> {
        match text {
            "none" => Ok(ProxySetting::None),
            url => url.parse().map(ProxySetting::Use),
        }
    }
}

impl FromStr for NoProxy {
    type Err = std::convert::Infallible;

    /// Entries separated by commas or blanks. What is none is skipped, as others do: the variable is
    /// shared by programs that know other forms.
    fn from_str(text: &str) -> Result<NoProxy, Self::Err> {
        let entries = text
            .split([',', ' ', '\t'])
            .filter(|entry| !entry.is_empty());
        Ok(NoProxy(entries.filter_map(exception).collect()))
    }
}

fn exception(entry: &str) -> Option<Exception> {
    if entry == "*" {
        return Some(Exception::All);
    }
    if let Some((address, bits)) = entry.split_once('/') {
        let address: IpAddr = address.parse().ok()?;
        let bits = bits.parse().ok()?;
        return (bits <= width(address)).then_some(Exception::Network(address, bits));
    }
    let (name, port) = split_port(entry);
    if let Ok(address) = name.parse::<IpAddr>()
        && port.is_none()
    {
        return Some(Exception::Network(address, width(address)));
    }
    let name = name.strip_prefix('*').unwrap_or(name);
    let name = name.trim_matches('.').to_ascii_lowercase();
    (!name.is_empty()).then_some(Exception::Domain(name, port))
}

impl NoProxy {
    /// Whether `host`, a `Host` header, is excepted.
    pub(crate) fn has(&self, host: &str) -> bool {
        let (name, port) = split_port(host);
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let address: Option<IpAddr> = name.parse().ok();
        self.0.iter().any(|exception| match exception {
            Exception::All => true,
            Exception::Domain(domain, only) => {
                only.is_none_or(|only| only == port.unwrap_or(HTTPS))
                    && name
                        .strip_suffix(domain.as_str())
                        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }
            Exception::Network(network, bits) => {
                address.is_some_and(|address| shares(address, *network, *bits))
            }
        })
    }
}

const HTTPS: u16 = 443;

/// Name and port of `HOST[:PORT]`; an IPv6 address loses its brackets.
fn split_port(host: &str) -> (&str, Option<u16>) {
    let (name, port) = match host.rsplit_once(':') {
        // The colon of a bare IPv6 address is no port's.
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => {
            (name, port.parse().ok())
        }
        _ => (host, None),
    };
    let inner = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    (inner.unwrap_or(name), port)
}

fn width(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

fn shares(address: IpAddr, network: IpAddr, bits: u32) -> bool {
    let same =
        |difference: u128, width: u32| difference.checked_shr(width - bits).unwrap_or(0) == 0;
    match (address, network) {
        (IpAddr::V4(one), IpAddr::V4(other)) => same((one.to_bits() ^ other.to_bits()).into(), 32),
        (IpAddr::V6(one), IpAddr::V6(other)) => same(one.to_bits() ^ other.to_bits(), 128),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::tests::environment;

    #[test]
    fn a_proxy_has_a_host_and_keeps_its_password_to_itself() {
        for (text, shown) in [
            ("http://proxy:3128", "http://proxy:3128"),
            ("http://u:p%40s3cret@proxy:3128/", "http://proxy:3128"),
            ("https://u@proxy", "https://proxy"),
            ("proxy:3128", "http://proxy:3128"),
            ("http://[::1]:3128", "http://[::1]:3128"),
        ] {
            let proxy: Proxy = text.parse().unwrap();
            assert_eq!(proxy.shown(), shown);
            assert_eq!(format!("{proxy:?}"), shown);
            assert!(!format!("{:?}", ProxySetting::Use(proxy)).contains("s3cret"));
        }
        for text in [
            "",
            "http://",
            "socks5://x",
            "http://:3128",
            "http://a/b",
            "http://a b",
            "http://localhost:1#secret@proxy:3128",
            "http://corp:pass#123@proxy:3128",
            "http://corp:a/b@proxy:3128",
            "http://corp:a?b@proxy:3128",
            "http://corp:a@b@proxy:3128",
            "http://corp:a b@proxy:3128",
            "http://corp:a\\b@proxy:3128",
            "http://corp:a[b]@proxy:3128",
            "http://corp:100%@proxy:3128",
            "http://corp:%zz@proxy:3128",
            "http://corp:p\u{e4}ss@proxy:3128",
            "http://user:p://x@proxy:3128",
            "http://proxy:3128/?x",
            "http://proxy:0",
            "http://proxy:65536",
            "http://proxy:+1",
            "http://[::1:3128",
            "http://a@[::1]x:3128",
        ] {
            assert!(text.parse::<Proxy>().is_err(), "{text:?}");
        }
        assert!(matches!("none".parse(), Ok(ProxySetting::None)));
    }

    #[test]
    fn what_is_shown_is_what_is_connected_to() {
        for text in [
            "http://u:p%40%2F%23@proxy:3128",
            "HTTP://u;a=b:!$&'()*+,;=~@proxy.example:3128/",
            "https://proxy:8443",
            "127.0.0.1:3128",
            "http://u@[::1]:3128",
        ] {
            let proxy: Proxy = text.parse().unwrap();
            let used = ureq::Proxy::new(proxy.url()).unwrap();
            let scheme = proxy.shown().split("://").next().unwrap();
            let shown = format!("{scheme}://{}:{}", used.host(), used.port());
            assert_eq!(proxy.shown(), shown);
        }
    }

    #[test]
    fn exceptions_are_domains_addresses_and_networks() {
        let cases = [
            ("*", "a.example", true),
            ("example", "a.example", true),
            (".example", "a.example", true),
            ("*.example", "a.example", true),
            ("example", "EXAMPLE.", true),
            ("example", "notexample", false),
            ("a.example", "example", false),
            ("x, y example", "example", true),
            ("example:8443", "example:8443", true),
            ("example:8443", "example", false),
            ("example:443", "example", true),
            ("example", "example:8443", true),
            ("10.0.0.0/8", "10.1.2.3:8443", true),
            ("10.0.0.0/8", "11.1.2.3", false),
            ("0.0.0.0/0", "11.1.2.3", true),
            ("10.0.0.0/33", "10.0.0.0", false),
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "10.0.0.2", false),
            ("::1", "[::1]:8443", true),
            ("[::1]", "[::1]", true),
            ("fd00::/8", "[fd12::7]", true),
            ("::/0", "[fd12::7]", true),
            ("fd00::/8", "10.0.0.1", false),
            ("", "example", false),
            (".", "example", false),
        ];
        for (list, host, excepted) in cases {
            let list: NoProxy = list.parse().unwrap();
            assert_eq!(list.has(host), excepted, "{list:?} {host}");
        }
    }

    #[test]
    fn a_proxy_is_used_unless_the_host_is_excepted() {
        let shown = |environment: &Environment, host| {
            let proxy = ProxyWord::of(environment, host).unwrap().proxy()?;
            Some(proxy.shown().to_owned())
        };
        let upper = environment([("HTTPS_PROXY", "http://u:p@up:1"), ("NO_PROXY", ".aws, x")]);
        assert_eq!(shown(&upper, "a.example").as_deref(), Some("http://up:1"));
        assert_eq!(shown(&upper, "a.aws"), None);
        let both = environment([
            ("HTTPS_PROXY", "http://up:1"),
            ("https_proxy", "http://low:2"),
            ("NO_PROXY", "*"),
            ("no_proxy", "y"),
        ]);
        assert_eq!(shown(&both, "x").as_deref(), Some("http://low:2"));
        assert_eq!(shown(&both, "y"), None);
        assert_eq!(shown(&Environment::default(), "x"), None);
        let malformed = environment([("HTTPS_PROXY", "ftp://u:s3cret@x")]);
        let error = ProxyWord::of(&malformed, "x").unwrap_err();
        assert!(
            error.contains("$HTTPS_PROXY") && !error.contains("s3cret"),
            "{error}"
        );
    }
}
