//! What the command's environment says about AWS.

use std::env;
use std::path::Path;
use std::process::Command;

use secrecy::{ExposeSecret, SecretString};

use client::target::Target;

use crate::aws_variables;

/// SDKs read the first, botocore the second.
const REGION: [&str; 2] = ["AWS_REGION", "AWS_DEFAULT_REGION"];

/// curl, Python and many libraries prefer the first, others the second.
const NO_PROXY: [&str; 2] = ["no_proxy", "NO_PROXY"];

/// The host of the endpoint.
const HOST: &str = "127.0.0.1";

pub(super) fn set(
    command: &mut Command,
    target: &Target,
    url: &str,
    token: &SecretString,
    token_file: &Path,
) {
    for name in aws_variables::credentials() {
        command.env_remove(name);
    }
    // AWS tools prefer a [default] profile, and boto's file, to any endpoint.
    for name in aws_variables::FILES {
        command.env(name, "/dev/null");
    }
    command
        .env("AWS_CONTAINER_CREDENTIALS_FULL_URI", url)
        .env("AWS_CONTAINER_AUTHORIZATION_TOKEN", token.expose_secret())
        .env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token_file);
    if REGION.iter().all(|name| env::var_os(name).is_none()) {
        for name in REGION {
            command.env(name, target.session.target.region().to_string());
        }
    }
    let set = NO_PROXY.map(|name| env::var(name).unwrap_or_default());
    for (name, value) in NO_PROXY.into_iter().zip(no_proxy(set)) {
        command.env(name, value);
    }
}

/// Both with the endpoint's host: else its token would go to the proxy. What only one of them says, both say then,
/// since a program may read only the other.
fn no_proxy([lower, upper]: [String; 2]) -> [String; 2] {
    let other = |one: &str, other: &str| match one.trim().is_empty() {
        true => other.to_owned(),
        false => one.to_owned(),
    };
    [other(&lower, &upper), other(&upper, &lower)].map(with_host)
}

fn with_host(hosts: String) -> String {
    let mut entries = hosts.split([',', ' ', '\t']);
    match hosts.trim() {
        "" => HOST.to_owned(),
        "*" => hosts, // some take it only where it is alone
        _ if entries.any(|entry| entry == HOST) => hosts,
        _ => format!("{hosts},{HOST}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_endpoint_is_reached_without_a_proxy() {
        let both = |lower: &str, upper: &str| no_proxy([lower.into(), upper.into()]);
        for (lower, upper, expected) in [
            ("", "", ["127.0.0.1", "127.0.0.1"]),
            ("a", "", ["a,127.0.0.1", "a,127.0.0.1"]),
            ("", "b, c", ["b, c,127.0.0.1", "b, c,127.0.0.1"]),
            ("a", "b", ["a,127.0.0.1", "b,127.0.0.1"]),
            ("*", "x,127.0.0.1", ["*", "x,127.0.0.1"]),
            ("127.0.0.10", "", ["127.0.0.10,127.0.0.1"; 2]),
        ] {
            assert_eq!(both(lower, upper), expected, "{lower:?} {upper:?}");
        }
    }
}
