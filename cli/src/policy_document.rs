//! The trust policy of a role, in the syntaxes that have JSON's brackets.

use crate::binding::Binding;
use crate::template::fill;

/// The trust policy of a role that the trust anchor's certificates with these tags may have: exactly these, as
/// StringEquals and ArnEquals without wildcards are exact. The service's principal is the same in China and
/// GovCloud, by AWS's guides; all of the actions are needed ("Role trusts", IAM Roles Anywhere user guide).
const TEMPLATE: &str = include_str!("policy_document.json");

/// How a syntax writes what differs from plain JSON.
pub(crate) struct Style {
    pub(crate) string: fn(&str) -> String,
    /// Between a member's name and its value.
    pub(crate) separator: &'static str,
    /// Before each line but the first.
    pub(crate) indent: &'static str,
}

pub(crate) const JSON: Style = Style {
    string: quoted_json,
    separator: ": ",
    indent: "",
};

/// Writes the policy, with literals or code for the trust anchor's ARN and the account.
pub(crate) fn policy(binding: &Binding, style: &Style, anchor: &str, account: &str) -> String {
    let template = TEMPLATE
        .trim_end()
        .replace("\": ", &format!("\"{}", style.separator))
        .replace('\n', &format!("\n{}", style.indent));
    let tags = binding.tags.iter();
    let (tags, values) = tags
        .map(|(tag, value)| ((*tag).to_owned(), (style.string)(value)))
        .unzip();
    let values = [
        ("tag", tags),
        ("value", values),
        ("anchor", vec![anchor.to_owned()]),
        ("account", vec![account.to_owned()]),
    ];
    fill(&template, &values)
}

/// A JSON string.
pub(crate) fn quoted_json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use rolesanywhere::certificate::SessionFacts;
    use trust_policy::{SessionRequest, TrustPolicy};

    use super::*;
    use crate::binding::By;

    const ANCHOR: &str = "arn:aws:rolesanywhere:eu-central-1:123456789012:trust-anchor/a";

    fn facts(tags: &[(&str, &str)]) -> SessionFacts {
        let tag = |(name, value): &(&str, &str)| rolesanywhere::certificate::Tag {
            name: (*name).to_owned(),
            value: (*value).to_owned(),
        };
        SessionFacts {
            session_name: "0123".to_owned(),
            source_identity: "CN=web".to_owned(),
            tags: tags.iter().map(tag).collect(),
            left_out: vec![("x509Subject/O".to_owned(), "it is odd")],
        }
    }

    /// Whether a session with these tags from that anchor gets the role.
    fn allows(policy: &str, tags: &[(&str, &str)], anchor: &str) -> bool {
        let tags = tags
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let request = SessionRequest {
            trust_anchor_arn: anchor.to_owned(),
            account: anchor.split(':').nth(4).unwrap().to_owned(),
            tags: tags.collect(),
            source_identity: Some("CN=web".to_owned()),
            session_name: "0123".to_owned(),
        };
        let policy = TrustPolicy::parse(policy).unwrap();
        policy.for_roles_anywhere(&request.context()).allowed()
    }

    #[test]
    fn the_policy_is_for_this_certificate_and_this_anchor_only() {
        let web = [
            ("x509Subject/CN", "web"),
            ("x509Issuer/CN", "Bank CA"),
            ("x509SAN/URI", "spiffe://bank.test/web"),
        ];
        let other_anchors = [
            ANCHOR.replace("anchor/a", "anchor/b"),
            ANCHOR.replace("eu-central-1", "eu-west-1"),
            ANCHOR.replace("123456789012", "123456789013"),
        ];
        for (by, tag) in [
            (&[][..], "x509Subject/CN"),
            (&[By::Uri][..], "x509SAN/URI"),
            (&[By::Uri, By::IssuerCn], "x509Issuer/CN"),
        ] {
            let binding = Binding::of(&facts(&web), by).unwrap();
            let anchor = quoted_json(ANCHOR);
            let text = policy(&binding, &JSON, &anchor, "\"123456789012\"");
            assert!(allows(&text, &web, ANCHOR), "{text}");
            for anchor in &other_anchors {
                assert!(!allows(&text, &web, anchor), "{anchor}");
            }
            for other in ["other", "web2", "we", "WEB", "*", ""] {
                let tags = web.map(|(name, value)| (name, if name == tag { other } else { value }));
                assert!(!allows(&text, &tags, ANCHOR), "{tag} {other}");
            }
            let without: Vec<_> = web.into_iter().filter(|(name, _)| *name != tag).collect();
            assert!(!allows(&text, &without, ANCHOR), "{tag}");
        }
    }

    #[test]
    fn what_is_no_tag_binds_nothing() {
        let error = Binding::of(&facts(&[("x509Subject/OU", "x")]), &[]).unwrap_err();
        assert!(error.contains("nothing to bind"), "{error}");
        let error = Binding::of(&facts(&[("x509Subject/CN", "web")]), &[By::O]).unwrap_err();
        assert!(
            error.contains("x509Subject/O: it is odd") && error.contains("x509Subject/CN"),
            "{error}"
        );
        // Without a common name, the workload's URI.
        let tags = [("x509SAN/DNS", "a"), ("x509SAN/URI", "b")];
        assert_eq!(
            Binding::of(&facts(&tags), &[]).unwrap().tags[0].0,
            "x509SAN/URI"
        );
    }
}
