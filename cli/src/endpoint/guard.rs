//! What every request has to pass first, whatever it asks for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hyper::StatusCode;
use hyper::header::{FORWARDED, HOST, HeaderValue};
use hyper::http::request::Parts;

/// How a connection reached us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reached {
    Unix,
    /// By this address of ours.
    Tcp(IpAddr),
}

impl Reached {
    /// From this host, or from a link that it is on.
    pub(super) fn near(self) -> bool {
        match self {
            Reached::Unix => true,
            Reached::Tcp(IpAddr::V4(ip)) => ip.is_loopback() || ip.is_link_local(),
            Reached::Tcp(IpAddr::V6(ip)) => {
                ip.is_loopback() || ip.is_unicast_link_local() || ip == IMDS_V6
            }
        }
    }

    /// By an address of EKS's agent, where all AWS SDKs send a pod's token over plain HTTP.
    pub(super) fn of_node(self) -> bool {
        matches!(self, Reached::Tcp(ip) if ip == NODE || ip == NODE_V6)
    }

    /// From this host.
    pub(super) fn local(self) -> bool {
        match self {
            Reached::Unix => true,
            Reached::Tcp(ip) => ip.is_loopback(),
        }
    }
}

/// Where IMDS is on EC2, and where somebody may have led its clients here from.
const IMDS: &str = "169.254.169.254";
const IMDS_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// Where EKS's Pod Identity Agent is.
const NODE: Ipv4Addr = Ipv4Addr::new(169, 254, 170, 23);
const NODE_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23);

/// A status, and why.
pub(super) type Refused = (StatusCode, &'static str);

/// Refuses what came through a proxy, as IMDS does: whoever runs an open one gives away no credentials. And
/// what is meant for another host: a web page whose name was bound to our address (DNS rebinding) comes with
/// that name.
pub(super) fn guard(request: &Parts, reached: Reached) -> Result<(), Refused> {
    let headers = &request.headers;
    if headers.contains_key("x-forwarded-for") || headers.contains_key(FORWARDED) {
        return Err((
            StatusCode::FORBIDDEN,
            "requests through a proxy are refused",
        ));
    }
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return Err((StatusCode::BAD_REQUEST, "a request has one Host header"));
    };
    let in_target = request.uri.authority().map(|authority| authority.as_str());
    if !is_ours(host, reached) || in_target.is_some_and(|host| !names_us(host, reached)) {
        return Err((StatusCode::FORBIDDEN, "the Host header names another host"));
    }
    Ok(())
}

fn is_ours(host: &HeaderValue, reached: Reached) -> bool {
    host.to_str().is_ok_and(|host| names_us(host, reached))
}

/// The port may be another: it may have been mapped to ours. An IPv6 address comes also without brackets, as AWS's
/// Common Runtime sends it: its last colon may or may not be the port's.
fn names_us(host: &str, reached: Reached) -> bool {
    let without_port = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    is_name_of_ours(without_port, reached) || is_name_of_ours(host, reached)
}

fn is_name_of_ours(name: &str, reached: Reached) -> bool {
    if name.eq_ignore_ascii_case("localhost") || name == IMDS {
        return true;
    }
    let bare = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    let ip = bare.unwrap_or(name).parse::<IpAddr>();
    matches!(reached, Reached::Tcp(own) if ip.is_ok_and(|ip| ip.to_canonical() == own.to_canonical()))
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    fn status(reached: Reached, target: &str, headers: &[(&str, &str)]) -> u16 {
        let mut request = Request::get(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        guard(&parts, reached).map_or_else(|(status, _)| status.as_u16(), |()| 200)
    }

    fn v4() -> Reached {
        Reached::Tcp("127.0.0.1".parse().unwrap())
    }

    #[test]
    fn the_host_is_one_of_ours() {
        let v6 = Reached::Tcp("::1".parse().unwrap());
        let node = Reached::Tcp("169.254.170.23".parse().unwrap());
        let node_v6 = Reached::Tcp("fd00:ec2::23".parse().unwrap());
        let mapped = Reached::Tcp("::ffff:10.0.0.7".parse().unwrap());
        for (reached, host, expected) in [
            (v4(), "127.0.0.1:9911", 200),
            (v4(), "127.0.0.1", 200),
            (v4(), "LocalHost:80", 200),
            (v4(), "169.254.169.254", 200),
            (v6, "[::1]:9911", 200),
            (v6, "[::1]", 200),
            (v6, "::1", 200),
            (v6, "::1:9911", 200),
            (v6, "0:0:0:0:0:0:0:1", 200),
            (v6, "::2", 403),
            (v6, "::1:evil.example", 403),
            (mapped, "10.0.0.7:1", 200),
            (mapped, "::ffff:10.0.0.7", 200),
            (node, "169.254.170.23", 200),
            (node, "169.254.170.23:9911", 200),
            (node, "169.254.170.2", 403),
            (node_v6, "[fd00:ec2::23]", 200),
            (node_v6, "fd00:ec2::23:9911", 200),
            (Reached::Unix, "localhost", 200),
            (Reached::Unix, "127.0.0.1", 403),
            (v4(), "127.0.0.2", 403),
            (v4(), "[::1]:9911", 403),
            (v4(), "evil.example", 403),
            (v4(), "evil.example:9911", 403),
            (v4(), "localhost.evil.example", 403),
            (v4(), "127.0.0.1.evil.example", 403),
            (v4(), "localhost:9911:9911", 403),
            (v4(), "user@localhost", 403),
            (v4(), "", 403),
        ] {
            assert_eq!(status(reached, "/", &[("host", host)]), expected, "{host}");
        }
    }

    #[test]
    fn the_target_and_a_second_header_name_no_other_host() {
        let host = ("host", "localhost");
        assert_eq!(status(v4(), "/", &[]), 400);
        assert_eq!(status(v4(), "/", &[host, ("host", "evil.example")]), 400);
        assert_eq!(status(v4(), "http://evil.example/", &[host]), 403);
        assert_eq!(status(v4(), "http://localhost:1/", &[host]), 200);
    }

    #[test]
    fn nothing_comes_through_a_proxy() {
        for header in [("X-Forwarded-For", "127.0.0.1"), ("Forwarded", "for=x")] {
            assert_eq!(status(v4(), "/", &[("host", "localhost"), header]), 403);
        }
    }

    #[test]
    fn loopback_and_links_of_this_host_are_near() {
        for (address, near, local) in [
            ("127.8.8.8", true, true),
            ("::1", true, true),
            ("169.254.169.254", true, false),
            ("fe80::1", true, false),
            ("fd00:ec2::254", true, false),
            ("10.0.0.7", false, false),
            ("2001:db8::1", false, false),
        ] {
            let reached = Reached::Tcp(address.parse().unwrap());
            assert_eq!(reached.near(), near, "{address}");
            assert_eq!(reached.local(), local, "{address}");
        }
        assert!(Reached::Unix.near());
    }
}
