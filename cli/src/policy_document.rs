//! A policy as a tree, in which some values are known only where it is installed; and its texts.

use crate::binding::Binding;

/// A value of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    Text(String),
    /// What AWS will only tell when the resource is made.
    Reference(Reference),
    List(Vec<Node>),
    /// In the order in which people read it.
    Map(Vec<(String, Node)>),
}

/// What is not known before it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reference {
    /// The trust anchor's ARN.
    Anchor,
    /// The account's number.
    Account,
}

/// Who assumes a role for IAM Roles Anywhere. AWS's guides for China and GovCloud have the same name, unlike
/// that of the service's host, which follows the partition.
const SERVICE_PRINCIPAL: &str = "rolesanywhere.amazonaws.com";

/// What the service does with the role: all of it is needed ("Role trusts", IAM Roles Anywhere user guide).
const ACTIONS: [&str; 3] = ["sts:AssumeRole", "sts:SetSourceIdentity", "sts:TagSession"];

/// The trust policy of a role that the trust anchor's certificates with these tags may have: exactly these, as
/// StringEquals and ArnEquals without wildcards are exact.
pub(crate) fn policy(binding: &Binding, anchor: Node, account: Node) -> Node {
    let tags = binding.tags.iter().map(|(tag, value)| {
        let key = format!("aws:PrincipalTag/{tag}");
        (key, Node::text(value))
    });
    let account = ("aws:SourceAccount".to_owned(), account);
    let equal = Node::Map(tags.chain([account]).collect());
    let statement = Node::map([
        ("Effect", Node::text("Allow")),
        (
            "Principal",
            Node::map([("Service", Node::text(SERVICE_PRINCIPAL))]),
        ),
        (
            "Action",
            Node::List(ACTIONS.iter().map(|action| Node::text(action)).collect()),
        ),
        (
            "Condition",
            Node::map([
                ("StringEquals", equal),
                ("ArnEquals", Node::map([("aws:SourceArn", anchor)])),
            ]),
        ),
    ]);
    Node::map([
        ("Version", Node::text("2012-10-17")),
        ("Statement", Node::List(vec![statement])),
    ])
}

impl Node {
    pub(crate) fn text(text: &str) -> Node {
        Node::Text(text.to_owned())
    }

    pub(crate) fn map<const N: usize>(members: [(&str, Node); N]) -> Node {
        let members = members.into_iter();
        Node::Map(members.map(|(key, node)| (key.to_owned(), node)).collect())
    }

    /// As JSON. A reference is its name in angle brackets: a document with one is not for AWS yet.
    pub(crate) fn json(&self) -> String {
        self.render(&Style {
            text: quoted_json,
            reference: |reference| quoted_json(&format!("<{reference:?}>")),
            separator: ": ",
            comma: ",",
        })
    }

    /// As a language writes it that has JSON's brackets.
    pub(crate) fn render(&self, style: &Style) -> String {
        let mut text = String::new();
        self.write(style, "", &mut text);
        text
    }

    fn write(&self, style: &Style, indent: &str, text: &mut String) {
        let deeper = format!("{indent}  ");
        let (open, close, members): (_, _, Vec<(Option<&String>, &Node)>) = match self {
            Node::Text(value) => return text.push_str(&(style.text)(value)),
            Node::Reference(reference) => return text.push_str(&(style.reference)(*reference)),
            Node::List(nodes) => ('[', ']', nodes.iter().map(|node| (None, node)).collect()),
            Node::Map(members) => {
                let members = members.iter();
                (
                    '{',
                    '}',
                    members.map(|(key, node)| (Some(key), node)).collect(),
                )
            }
        };
        text.push(open);
        for (at, (key, node)) in members.iter().enumerate() {
            if at > 0 {
                text.push_str(style.comma);
            }
            text.push('\n');
            text.push_str(&deeper);
            if let Some(key) = key {
                text.push_str(&(style.text)(key));
                text.push_str(style.separator);
            }
            node.write(style, &deeper, text);
        }
        text.push('\n');
        text.push_str(indent);
        text.push(close);
    }
}

/// How a language with JSON's brackets writes what differs.
pub(crate) struct Style {
    pub(crate) text: fn(&str) -> String,
    pub(crate) reference: fn(Reference) -> String,
    /// Between a member's name and its value.
    pub(crate) separator: &'static str,
    /// Between members.
    pub(crate) comma: &'static str,
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
            let account = Node::text("123456789012");
            let text = policy(&binding, Node::text(ANCHOR), account).json();
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
