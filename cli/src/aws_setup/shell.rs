//! A script of AWS CLI commands. Whatever came from elsewhere stands in single quotes.

use super::Setup;
use crate::policy_document::{Node, Reference, Style, quoted_json};

pub(super) fn render(setup: &Setup) -> String {
    let Setup {
        name, role_name, ..
    } = setup;
    let region = setup.region.as_ref();
    let aws = region.map_or("aws".to_owned(), |region| format!("aws --region {region}"));
    let source = Node::map([
        ("sourceType", Node::text("CERTIFICATE_BUNDLE")),
        (
            "sourceData",
            Node::map([("x509CertificateData", Node::text(&setup.bundle))]),
        ),
    ]);
    let policies: String = setup
        .managed_policies
        .iter()
        .map(|arn| {
            format!(
                "{aws} iam attach-role-policy --role-name {} --policy-arn {}\n",
                quoted(role_name),
                quoted(arn)
            )
        })
        .collect();
    let cap = setup
        .session_policy
        .as_deref()
        .map_or(String::new(), |policy| {
            format!("  --session-policy {} \\\n", quoted(policy))
        });
    format!(
        "#!/bin/sh
# Makes trust anchor, role and profile {name} for IAM Roles Anywhere, and prints the target for roleseal's
# targets.toml. It is to run once: a second run would make a second trust anchor of that name.
set -eu
{account_check}
anchor=$({aws} rolesanywhere create-trust-anchor --name {quoted_name} --enabled \\
  --source {source} \\
  --query trustAnchor.trustAnchorArn --output text)
echo \"trust anchor: $anchor\" >&2
account=$(printf '%s' \"$anchor\" | cut -d : -f 5)

role=$({aws} iam create-role --role-name {quoted_role} \\
  --assume-role-policy-document {trust} \\
  --query Role.Arn --output text)
echo \"role: $role\" >&2
{policies}
profile=$({aws} rolesanywhere create-profile --name {quoted_name} --enabled --role-arns \"$role\" \\
{cap}  --query profile.profileArn --output text)
echo \"profile: $profile\" >&2

cat <<EOF
{target}EOF
",
        account_check = account_check(setup, &aws),
        quoted_name = quoted(&name.to_string()),
        quoted_role = quoted(role_name),
        source = quoted(&source.json()),
        trust = policy(&setup.trust_policy),
        target = setup.target("$role", "$profile", "$anchor"),
    )
}

fn account_check(setup: &Setup, aws: &str) -> String {
    let Some(account) = &setup.account else {
        return String::new();
    };
    format!(
        "here=$({aws} sts get-caller-identity --query Account --output text)
if [ \"$here\" != {account} ]; then
  echo \"these are credentials of account $here, not of {account}\" >&2
  exit 1
fi
"
    )
}

/// As one word of the shell, with the variables in it.
fn policy(policy: &Node) -> String {
    let text = policy.render(&Style {
        text: |text| quoted_json(text).replace('\'', r"'\''"),
        reference: |reference| {
            let variable = match reference {
                Reference::Anchor => "anchor",
                Reference::Account => "account",
            };
            format!("\"'\"${variable}\"'\"")
        },
        separator: ": ",
        comma: ",",
    });
    format!("'{text}'")
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
