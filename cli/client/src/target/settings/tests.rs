use rolesanywhere::Partition;

use super::*;
use crate::target::tests::target;

fn misfit(more: &str) -> String {
    let settings: Settings = toml::from_str(more).unwrap();
    let arns = target("").session.target;
    let complete = settings.or(Settings {
        role_arn: Some(arns.role().clone()),
        profile_arn: Some(arns.profile().clone()),
        trust_anchor_arn: Some(arns.trust_anchor().clone()),
        ..Settings::default()
    });
    let name = "web".parse().unwrap();
    let error = complete.target(Some(name), &Environment::default());
    error.unwrap_err().to_string()
}

#[test]
fn what_is_left_out_has_defaults() {
    let target = target("");
    assert_eq!(target.session.identity, None);
    assert_eq!(target.session.duration, DEFAULT_DURATION);
    assert_eq!(target.session.session_name, None);
    assert!(target.session.instance_properties.is_empty());
    assert!(target.route.ca_bundle.is_none() && target.route.proxy.is_none());
}

#[test]
fn what_is_given_is_taken() {
    let target = target(
        "identity = \"web\"\nsession-duration = 900\nrole-session-name = \"ci@7\"\n\
         instance-properties = { a = \"b=c\", d = \"\" }\nregion = \"eu-central-1\"\n\
         ca-bundle = \"/ca.pem\"\nproxy = \"http://u:p@proxy:3128\"\n",
    );
    assert_eq!(target.session.identity.as_deref(), Some("web"));
    assert_eq!(target.session.duration.seconds(), 900);
    assert_eq!(target.session.session_name, Some("ci@7".parse().unwrap()));
    let properties: Vec<_> = target.session.instance_properties.into_iter().collect();
    let pairs = [("a", "b=c"), ("d", "")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    assert_eq!(properties, pairs);
    assert_eq!(target.route.ca_bundle, Some("/ca.pem".into()));
    assert_eq!(target.route.proxy.unwrap().shown(), "http://proxy:3128");
    assert_eq!(target.socket, PathBuf::from("/agent.sock"));
}

#[test]
fn a_duration_is_seconds_or_a_time() {
    for (text, seconds) in [
        ("900", 900),
        ("15m", 900),
        ("1h", 3600),
        ("1h 30m", 5400),
        ("12h", 43200),
    ] {
        assert_eq!(duration(text).unwrap().seconds(), seconds, "{text}");
    }
    for text in ["", "899", "14m", "13h", "-1h", "1", "hour", "1.5"] {
        assert!(duration(text).is_err(), "{text}");
    }
}

#[test]
fn the_endpoint_follows_partition_and_variant() {
    let host = |more: &str| target(more).session.endpoint.host().to_owned();
    let aws = "rolesanywhere.eu-central-1.amazonaws.com";
    assert_eq!(host(""), aws);
    assert_eq!(host("fips = false"), aws);
    assert_eq!(
        host("fips = true"),
        "rolesanywhere-fips.eu-central-1.amazonaws.com"
    );
    assert_eq!(
        host("dual-stack = true"),
        "rolesanywhere.eu-central-1.api.aws"
    );
    assert_eq!(
        host("fips = true\ndual-stack = true"),
        "rolesanywhere-fips.eu-central-1.api.aws"
    );
    assert_eq!(
        host("endpoint = \"https://localhost:8443\"\nfips = false"),
        "localhost:8443"
    );
    for partition in Partition::ALL {
        let arns = [
            "iam::123456789012:role/r",
            "rolesanywhere:eu-central-1:123456789012:profile/p",
            "rolesanywhere:eu-central-1:123456789012:trust-anchor/a",
        ]
        .map(|rest| format!("arn:{}:{rest}", partition.id()));
        let settings = Settings {
            role_arn: Some(arns[0].parse().unwrap()),
            profile_arn: Some(arns[1].parse().unwrap()),
            trust_anchor_arn: Some(arns[2].parse().unwrap()),
            ..Settings::default()
        };
        let target = settings.target(None, &Environment::default()).unwrap();
        assert!(partition.serves(
            target.session.endpoint.host(),
            target.session.target.region()
        ));
    }
}

#[test]
fn the_command_line_wins_setting_by_setting() {
    let flags: Settings = toml::from_str("identity = \"flag\"\nfips = false").unwrap();
    let file = toml::from_str(
        "identity = \"file\"\nfips = true\nsession-duration = \"2h\"\ninstance-properties = { a = \"1\" }",
    );
    let both = flags.or(file.unwrap());
    assert_eq!(both.identity.as_deref(), Some("flag"));
    assert_eq!(both.fips, Some(false));
    assert_eq!(both.session_duration.unwrap().seconds(), 7200);
    assert_eq!(both.instance_properties.len(), 1);
}

#[test]
fn what_does_not_fit_is_an_error_that_says_why() {
    let other = "arn:aws:rolesanywhere:eu-west-1:123456789012:profile/p";
    let cases = [
        ("region = \"eu-west-1\"".to_owned(), "eu-central-1"),
        (format!("profile-arn = {other:?}"), "different regions"),
        (
            "endpoint = \"https://x\"\nfips = true".into(),
            "fips and endpoint",
        ),
        (
            "endpoint = \"https://x\"\ndual-stack = true".into(),
            "dual-stack and endpoint",
        ),
        (
            "role-arn = \"arn:aws:iam::210987654321:role/web\"".into(),
            "different accounts",
        ),
    ];
    for (more, reason) in cases {
        let text = misfit(&more);
        assert!(
            text.starts_with("target \"web\": ") && text.contains(reason),
            "{text}"
        );
    }
    let nothing = Settings::default().target(None, &Environment::default());
    let text = nothing.unwrap_err().to_string();
    assert!(text.starts_with("--role-arn is missing"), "{text}");
}

#[test]
fn a_template_is_filled_in_with_the_first_service_account() {
    for (accounts, name) in [
        ("[\"payments/api\", \"shop/*\"]", Some("payments.api")),
        ("[\"shop/*\"]", Some("shop.example")),
        ("[]", None),
    ] {
        let mut settings: Settings = toml::from_str(&format!(
            "role-session-name = \"{{namespace}}.{{service-account}}\"\nservice-accounts = {accounts}"
        ))
        .unwrap();
        settings.fill_in_example();
        let filled = name.map(|name| RoleSessionName::Fixed(name.parse().unwrap()));
        let is_filled = filled.is_some();
        assert_eq!(
            settings.role_session_name == filled,
            is_filled,
            "{accounts}"
        );
    }
}
