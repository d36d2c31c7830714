//! A CloudFormation template: YAML, of which JSON's strings and brackets are a part.

use super::Setup;
use crate::policy_document::{Reference, Style, quoted_json};

pub(super) fn render(setup: &Setup) -> String {
    let Setup {
        name, role_name, ..
    } = setup;
    let region = setup.region.as_ref();
    let region = region.map_or(String::new(), |region| format!(" --region {region}"));
    let mut role = String::new();
    if !setup.managed_policies.is_empty() {
        let arns: Vec<String> = setup
            .managed_policies
            .iter()
            .map(|arn| quoted_json(arn))
            .collect();
        role = format!("      ManagedPolicyArns: [{}]\n", arns.join(", "));
    }
    let cap = setup
        .session_policy
        .as_deref()
        .map_or(String::new(), |policy| {
            format!("      SessionPolicy: {}\n", quoted_json(policy))
        });
    let stack = stack_name(&name.to_string());
    let target = setup.target(
        "${Role.Arn}",
        "${Profile.ProfileArn}",
        "${TrustAnchor.TrustAnchorArn}",
    );
    format!(
        "# aws cloudformation deploy{region} --stack-name {stack} --template-file FILE --capabilities CAPABILITY_NAMED_IAM
# aws cloudformation describe-stacks{region} --stack-name {stack} --output text \\
#   --query \"Stacks[0].Outputs[?OutputKey=='Target'].OutputValue\"   prints the target for roleseal's targets.toml
AWSTemplateFormatVersion: \"2010-09-09\"
Description: \"IAM Roles Anywhere: trust anchor, role and profile {name}\"
{rules}Resources:
  TrustAnchor:
    Type: AWS::RolesAnywhere::TrustAnchor
    Properties:
      Name: {quoted_name}
      Enabled: true
      Source:
        SourceType: CERTIFICATE_BUNDLE
        SourceData:
          X509CertificateData: {bundle}
  Role:
    Type: AWS::IAM::Role
    Properties:
      RoleName: {quoted_role}
      AssumeRolePolicyDocument: {trust}
{role}  Profile:
    Type: AWS::RolesAnywhere::Profile
    Properties:
      Name: {quoted_name}
      Enabled: true
      RoleArns: [!GetAtt Role.Arn]
{cap}Outputs:
  Target:
    Description: The target for roleseal's targets.toml
    Value: !Sub {target}
",
        rules = account_rule(setup),
        quoted_name = quoted_json(&name.to_string()),
        quoted_role = quoted_json(role_name),
        bundle = quoted_json(&setup.bundle),
        trust = policy(setup),
        target = quoted_json(&target),
    )
}

/// A stack's name begins with a letter and has no underscore. No two setups share a stack, since `deploy` would
/// replace what the first one made: where there were underscores, a hyphen more at the front says so, which no name
/// begins with, and a number of one bit for each of at most 64 characters says where.
fn stack_name(name: &str) -> String {
    let bit = |c| u64::from(c == b'_');
    match name.bytes().fold(0, |bits, c| bits << 1 | bit(c)) {
        0 => format!("roleseal-{name}"),
        bits => format!("roleseal--{}-{bits:x}", name.replace('_', "-")),
    }
}

/// A template that is used in another account is refused before anything is made.
fn account_rule(setup: &Setup) -> String {
    setup.account.as_ref().map_or(String::new(), |account| {
        format!(
            "Rules:
  Account:
    Assertions:
      - Assert: !Equals [!Ref \"AWS::AccountId\", {account}]
        AssertDescription: This template is for another account
",
            account = quoted_json(account)
        )
    })
}

fn policy(setup: &Setup) -> String {
    let text = setup.trust_policy.render(&Style {
        text: quoted_json,
        reference: |reference| {
            match reference {
                Reference::Anchor => "!GetAtt TrustAnchor.TrustAnchorArn",
                Reference::Account => "!Ref \"AWS::AccountId\"",
            }
            .to_owned()
        },
        separator: ": ",
        comma: ",",
    });
    text.replace('\n', "\n      ") // under its property; a string of JSON has no line break
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_name_has_a_stack_of_its_own_that_cloudformation_takes() {
        assert_eq!(stack_name("web-1"), "roleseal-web-1");
        assert_eq!(stack_name("web_1"), "roleseal--web-1-2");
        let mut names = vec!["1".to_owned(), "2".to_owned()];
        let mut all = HashSet::new();
        for _ in 0..6 {
            for name in &names {
                let stack = stack_name(name);
                let fits = |c: char| c == '-' || c.is_ascii_alphanumeric();
                assert!(stack.chars().all(fits), "{stack}");
                assert!(all.insert(stack), "{name} shares its stack");
            }
            let longer = |name: &String| ["-", "_", "1", "2"].map(|end| format!("{name}{end}"));
            names = names.iter().flat_map(longer).collect();
        }
        let longest = format!("1{}", "_".repeat(63));
        assert!(stack_name(&longest).len() <= 128);
    }
}
