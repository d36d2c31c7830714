//! A Terraform file.

use std::fmt::Write as _;

use super::Setup;
use crate::policy_document::{Reference, Style, quoted_json};

pub(super) fn render(setup: &Setup) -> String {
    let Setup {
        name, role_name, ..
    } = setup;
    let region = setup.region.as_deref().map_or(String::new(), |region| {
        format!("# It is to be applied with the provider set to region {region}.\n")
    });
    let cap = setup
        .session_policy
        .as_deref()
        .map_or(String::new(), |policy| {
            format!("  session_policy = {}\n", quoted(policy))
        });
    let target = setup.target(
        "${aws_iam_role.this.arn}",
        "${aws_rolesanywhere_profile.this.arn}",
        "${aws_rolesanywhere_trust_anchor.this.arn}",
    );
    format!(
        "# IAM Roles Anywhere: trust anchor, role and profile {name}.
{region}data \"aws_caller_identity\" \"this\" {{{postcondition}}}

resource \"aws_rolesanywhere_trust_anchor\" \"this\" {{
  name    = {quoted_name}
  enabled = true

  source {{
    source_type = \"CERTIFICATE_BUNDLE\"

    source_data {{
      x509_certificate_data = {bundle}
    }}
  }}
}}

resource \"aws_iam_role\" \"this\" {{
  name = {quoted_role}
  assume_role_policy = jsonencode({trust})
}}
{attachments}
resource \"aws_rolesanywhere_profile\" \"this\" {{
  name           = {quoted_name}
  enabled        = true
  role_arns      = [aws_iam_role.this.arn]
{cap}}}

# terraform output -raw target   prints the target for roleseal's targets.toml
output \"target\" {{
  value = {target}
}}
",
        postcondition = postcondition(setup),
        quoted_name = quoted(&name.to_string()),
        quoted_role = quoted(role_name),
        bundle = quoted(&setup.bundle),
        trust = policy(setup),
        attachments = attachments(setup),
        target = quoted_json(&target),
    )
}

/// In another account nothing is made.
fn postcondition(setup: &Setup) -> String {
    setup.account.as_deref().map_or(String::new(), |account| {
        format!(
            "
  lifecycle {{
    postcondition {{
      condition     = self.account_id == {account}
      error_message = \"These are credentials of another account.\"
    }}
  }}
",
            account = quoted(account)
        )
    })
}

fn attachments(setup: &Setup) -> String {
    if setup.managed_policies.is_empty() {
        return String::new();
    }
    let arns: Vec<String> = setup
        .managed_policies
        .iter()
        .map(|arn| quoted(arn))
        .collect();
    format!(
        "
resource \"aws_iam_role_policy_attachment\" \"this\" {{
  for_each   = toset([{}])
  role       = aws_iam_role.this.name
  policy_arn = each.value
}}
",
        arns.join(", ")
    )
}

fn policy(setup: &Setup) -> String {
    let text = setup.trust_policy.render(&Style {
        text: quoted,
        reference: |reference| {
            match reference {
                Reference::Anchor => "aws_rolesanywhere_trust_anchor.this.arn",
                Reference::Account => "data.aws_caller_identity.this.account_id",
            }
            .to_owned()
        },
        separator: " = ",
        comma: ",",
    });
    text.replace('\n', "\n  ") // inside its resource; a quoted string has no line break
}

/// A string in which nothing is a template.
fn quoted(text: &str) -> String {
    let mut quoted = "\"".to_owned();
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str(r"\n"),
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(c)); // a String takes any text
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted.replace("${", "$${").replace("%{", "%%{")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_is_no_template() {
        assert_eq!(quoted("a\"b\\n\nc\t"), "\"a\\\"b\\\\n\\nc\\u0009\"");
        assert_eq!(quoted("${aws:username}"), "\"$${aws:username}\"");
        assert_eq!(quoted("%{if}$ {x}"), "\"%%{if}$ {x}\"");
    }
}
