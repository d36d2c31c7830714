//! The output syntaxes: the template of each, and its literals.

use std::fmt::Write as _;

use super::Format;
use crate::policy_document::{JSON, Style, quoted_json};

/// What differs between the formats.
pub(super) struct Syntax {
    pub(super) template: &'static str,
    /// Writes a document, such as a session policy, as one value.
    pub(super) document: fn(&str) -> String,
    /// Writes the trust policy, and the strings of documents.
    pub(super) style: Style,
    /// The trust anchor's ARN, which is known once AWS has made it.
    pub(super) anchor: &'static str,
    /// The account's number.
    pub(super) account: &'static str,
}

impl Format {
    pub(super) fn syntax(self) -> &'static Syntax {
        match self {
            Format::Cli => &CLI,
            Format::Cloudformation => &CLOUDFORMATION,
            Format::Terraform => &TERRAFORM,
        }
    }
}

/// The documents stand in single quotes, which end for a variable.
const CLI: Syntax = Syntax {
    template: include_str!("cli.sh"),
    document: |text| format!("'{}'", within_single_quotes(text)),
    style: Style {
        string: |text| within_single_quotes(&quoted_json(text)),
        ..JSON
    },
    anchor: r#""'"$anchor"'""#,
    account: r#""'"$account"'""#,
};

/// YAML, of which JSON's strings and brackets are a part.
const CLOUDFORMATION: Syntax = Syntax {
    template: include_str!("cloudformation.yaml"),
    document: quoted_json,
    style: Style {
        indent: "      ",
        ..JSON
    },
    anchor: "!GetAtt TrustAnchor.TrustAnchorArn",
    account: r#"!Ref "AWS::AccountId""#,
};

const TERRAFORM: Syntax = Syntax {
    template: include_str!("terraform.tf"),
    document: quoted_hcl,
    style: Style {
        string: quoted_hcl,
        separator: " = ",
        indent: "  ",
    },
    anchor: "aws_rolesanywhere_trust_anchor.this.arn",
    account: "data.aws_caller_identity.this.account_id",
};

fn within_single_quotes(text: &str) -> String {
    text.replace('\'', r"'\''")
}

/// A string of Terraform in which nothing is a template.
fn quoted_hcl(text: &str) -> String {
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
        assert_eq!(quoted_hcl("a\"b\\n\nc\t"), "\"a\\\"b\\\\n\\nc\\u0009\"");
        assert_eq!(quoted_hcl("${aws:username}"), "\"$${aws:username}\"");
        assert_eq!(quoted_hcl("%{if}$ {x}"), "\"%%{if}$ {x}\"");
    }
}
