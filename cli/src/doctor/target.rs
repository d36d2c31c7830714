//! The target: its settings, their source, and whether they agree.

use std::path::PathBuf;

use client::environment::Environment;
use client::exit::Exit;
use client::proxy::{ProxySetting, ProxyWord};
use client::target::{Settings, Target, TargetError, TargetName, TargetTable};
use rolesanywhere::{Partition, Region};

use super::finding::{Check, Finding};
use crate::common::Common;

/// The target of the command line, the targets file and the environment.
pub(super) struct ResolvedTarget {
    /// `None` where none is wanted: neither a name nor an ARN was given.
    pub(super) target: Option<Result<Target, TargetError>>,
    /// The table of the targets file, where one was named and is there.
    table: Option<TargetTable>,
    /// The identity, also where there is no target.
    pub(super) identity: Option<String>,
    /// The agent's socket, also where there is no target.
    pub(super) socket: PathBuf,
    /// What named the socket.
    pub(super) socket_from: String,
    /// What the command line and the file say of the proxy.
    pub(super) proxy: Option<ProxySetting>,
}

impl ResolvedTarget {
    pub(super) fn read(
        common: &Common,
        environment: &Environment,
        name: Option<TargetName>,
        options: Settings,
    ) -> ResolvedTarget {
        let found = name
            .as_ref()
            .map(|name| common.target_files(environment).find(name));
        let (table, fault) = match found {
            Some(Ok(table)) => (Some(table), None),
            Some(Err(fault)) => (None, Some(fault)),
            None => (None, None),
        };
        let in_file = table.as_ref().map(|table| table.settings.clone());
        let of_file = in_file
            .as_ref()
            .and_then(|settings| settings.socket.clone());
        let mut settings = common.over(options.or(in_file.unwrap_or_default()));
        settings.fill_in_example();
        let wanted = name.is_some() || settings.name_arns();
        let identity = settings.identity.clone();
        let socket = settings.socket.clone();
        let proxy = settings.proxy.clone();
        let target = match fault {
            Some(fault) => Some(Err(fault)),
            None => wanted.then(|| settings.target(name, environment)),
        };
        let socket_from = match (&common.socket, of_file) {
            (Some(_), _) => "by --socket".to_owned(),
            (None, Some(_)) => "by the target".to_owned(),
            (None, None) => environment.socket_from().to_owned(),
        };
        ResolvedTarget {
            target,
            table,
            identity,
            socket: socket.unwrap_or_else(|| environment.socket()),
            socket_from,
            proxy,
        }
    }

    /// The target, where there is one that fits together.
    pub(super) fn usable(&self) -> Option<&Target> {
        self.target.as_ref()?.as_ref().ok()
    }

    /// Where the settings were read.
    fn source(&self) -> String {
        match &self.table {
            Some(TargetTable {
                name, file, line, ..
            }) => format!("{name} of {}:{line}", file.display()),
            None => "the options of the command line".to_owned(),
        }
    }
}

/// Checks that the settings agree.
pub(super) fn finding(resolved: &ResolvedTarget) -> Finding {
    let target = match &resolved.target {
        None => {
            return Finding::skipped(
                Check::Target,
                "none was named: give --target NAME to look as far as AWS",
            );
        }
        Some(Err(error)) => return Finding::error(Check::Target, error),
        Some(Ok(target)) => target,
    };
    let session = &target.session;
    let as_name = session.session_name.as_ref();
    let detail = format!(
        "{}: {}{} for {} s, by {}; its ARNs agree",
        resolved.source(),
        session.target.role(),
        as_name
            .map(|name| format!(" as {name}"))
            .unwrap_or_default(),
        session.duration.seconds(),
        session.endpoint,
    );
    match foreign_region(target) {
        Some(region) => Finding::failed(
            Check::Target,
            Exit::Usage,
            format!("{detail}, but that endpoint is of the region {region}"),
            format!(
                "profile and trust anchor are in {}: omit endpoint, or name that region's",
                session.target.region()
            ),
        ),
        None => Finding::ok(Check::Target, detail),
    }
}

/// The region that an endpoint of AWS's own names, where it is not the target's. Private endpoints and
/// stand-ins have other names.
fn foreign_region(target: &Target) -> Option<Region> {
    let host = target.session.endpoint.host();
    let region: Region = host.split('.').nth(1)?.parse().ok()?;
    let is_aws = Partition::ALL
        .iter()
        .any(|partition| partition.serves(host, &region));
    (is_aws && region != *target.session.target.region()).then_some(region)
}

/// Reports the proxy, and the setting that names it.
pub(super) fn proxy_finding(
    resolved: &ResolvedTarget,
    target: &Target,
    environment: &Environment,
) -> Finding {
    let host = target.session.endpoint.host();
    // A malformed variable does not apply here: --proxy or the target takes precedence, or there is no target.
    let word = ProxyWord::of(environment, host).unwrap_or(ProxyWord::None);
    Finding::ok(Check::Proxy, proxy_source(resolved, host, &word))
}

fn proxy_source(resolved: &ResolvedTarget, host: &str, word: &ProxyWord) -> String {
    match (&resolved.proxy, word) {
        (Some(ProxySetting::None), _) => {
            format!("none for {host}: --proxy or the target says \"none\"")
        }
        (Some(ProxySetting::Use(proxy)), _) => {
            format!(
                "{} for {host}: --proxy or the target says so",
                proxy.shown()
            )
        }
        (None, ProxyWord::Use { proxy, from }) => {
            format!("{} for {host}: ${from} says so", proxy.shown())
        }
        (None, ProxyWord::Excepted { by, from }) => {
            format!("none for {host}: ${by} excepts it from ${from}")
        }
        (None, ProxyWord::None) => {
            format!("none for {host}: neither --proxy, the target nor $HTTPS_PROXY names one")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Outcome;
    use crate::test_support::target;

    fn resolved(
        target: Option<Result<Target, TargetError>>,
        proxy: Option<&str>,
    ) -> ResolvedTarget {
        ResolvedTarget {
            target,
            table: None,
            identity: None,
            socket: "/s".into(),
            socket_from: "the default".into(),
            proxy: proxy.map(|text| text.parse().unwrap()),
        }
    }

    #[test]
    fn a_target_says_what_it_leads_to_and_a_foreign_endpoint_is_named() {
        let fine = finding(&resolved(Some(Ok(target(""))), None));
        assert_eq!(fine.outcome, Outcome::Ok);
        assert_eq!(
            fine.detail,
            "the options of the command line: arn:aws:iam::123456789012:role/web for 3600 s, by \
             https://rolesanywhere.eu-central-1.amazonaws.com; its ARNs agree"
        );
        for (host, region) in [
            ("rolesanywhere.eu-west-1.amazonaws.com", Some("eu-west-1")),
            ("rolesanywhere-fips.us-east-1.api.aws", Some("us-east-1")),
            ("rolesanywhere-fips.eu-central-1.api.aws", None),
            ("vpce-1-rolesanywhere.eu-west-1.vpce.amazonaws.com", None),
            ("localhost:8443", None),
        ] {
            let target = target(&format!("endpoint = \"https://{host}\""));
            let finding = finding(&resolved(Some(Ok(target)), None));
            match region {
                Some(region) => {
                    assert_eq!(finding.outcome, Outcome::Failed(Exit::Usage), "{host}");
                    assert!(finding.detail.ends_with(&format!("region {region}")));
                }
                None => assert_eq!(finding.outcome, Outcome::Ok, "{host}"),
            }
        }
        assert_eq!(finding(&resolved(None, None)).outcome, Outcome::Skipped);
    }

    #[test]
    fn the_proxy_is_named_with_its_reason_and_without_its_password() {
        let target = target("");
        let proxy = || "http://u:s3cret@p:1".parse().unwrap();
        let used = || ProxyWord::Use {
            proxy: proxy(),
            from: "https_proxy",
        };
        let excepted = ProxyWord::Excepted {
            by: "NO_PROXY",
            from: "HTTPS_PROXY",
        };
        for (setting, word, expected) in [
            (Some("none"), used(), "the target says \"none\""),
            (Some("http://u:s3cret@q:2"), used(), "http://q:2 for"),
            (
                None,
                used(),
                "http://p:1 for rolesanywhere.eu-central-1.amazonaws.com: $https_proxy",
            ),
            (None, excepted, "$NO_PROXY excepts it from $HTTPS_PROXY"),
            (None, ProxyWord::None, "neither --proxy"),
        ] {
            let host = target.session.endpoint.host();
            let source = proxy_source(&resolved(None, setting), host, &word);
            assert!(source.contains(expected), "{source}");
            assert!(!source.contains("s3cret"), "{source}");
        }
    }
}
