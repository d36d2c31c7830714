//! What a profile puts on top of a role's policies: recorded, shown, checked for form. It caps what a session may do,
//! and this service has no services to show that on.

use serde_json::Value;

/// "The total size of the plaintext of session policies", inline and managed ("Session tagging operations"); of the
/// packed size, which has another limit, AWS tells only a percentage.
const PLAINTEXT_CHARS: usize = 2048;
/// Managed policies of a session (AssumeRole's API reference).
const MANAGED_POLICIES: usize = 10;

/// Checks a profile's inline session policy and the ARNs of its managed policies.
pub(crate) fn check(inline: Option<&str>, managed: &[String]) -> Result<(), String> {
    if managed.len() > MANAGED_POLICIES {
        return Err(format!(
            "{} managed policies; a session has {MANAGED_POLICIES} at the most",
            managed.len()
        ));
    }
    if let Some(arn) = managed.iter().find(|arn| !is_policy_arn(arn)) {
        return Err(format!("no ARN of a managed policy: {arn}"));
    }
    let all = managed.iter().map(String::as_str).chain(inline);
    let chars: usize = all.map(|text| text.chars().count()).sum();
    if chars > PLAINTEXT_CHARS {
        return Err(format!(
            "the session policies have {chars} characters; {PLAINTEXT_CHARS} are allowed"
        ));
    }
    inline.map_or(Ok(()), check_document)
}

fn is_policy_arn(arn: &str) -> bool {
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    matches!(parts[..], ["arn", _, "iam", "", _, resource] if resource.starts_with("policy/"))
}

fn check_document(text: &str) -> Result<(), String> {
    let document: Value = serde_json::from_str(text)
        .map_err(|error| format!("the session policy is no JSON: {error}"))?;
    let single = match document.get("Statement") {
        Some(Value::Array(statements)) => statements.iter().collect::<Vec<_>>(),
        Some(statement @ Value::Object(_)) => vec![statement],
        _ => return Err("the session policy has no Statement".to_owned()),
    };
    for (at, statement) in single.into_iter().enumerate() {
        let has = |name: &str| statement.get(name).is_some();
        let fault = if !matches!(
            statement.get("Effect").and_then(Value::as_str),
            Some("Allow" | "Deny")
        ) {
            "its Effect is neither Allow nor Deny"
        } else if has("Action") == has("NotAction") {
            "it takes Action or NotAction"
        } else if has("Resource") == has("NotResource") {
            "it takes Resource or NotResource"
        } else if has("Principal") || has("NotPrincipal") {
            "a session policy has no Principal"
        } else {
            continue;
        };
        return Err(format!("Statement[{at}] of the session policy: {fault}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str =
        r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"s3:*","Resource":"*"}}"#;

    #[test]
    fn a_good_one_passes_and_each_fault_has_its_words() {
        let managed = vec!["arn:aws:iam::aws:policy/ReadOnlyAccess".to_owned()];
        assert_eq!(check(Some(GOOD), &managed), Ok(()));
        assert_eq!(check(None, &[]), Ok(()));
        let long = GOOD.replace("s3:*", &format!("s3:{}", "a".repeat(2000)));
        for (policy, message) in [
            ("{", "no JSON"),
            ("{}", "no Statement"),
            (&GOOD.replace("Allow", "allow"), "neither Allow nor Deny"),
            (&GOOD.replace("Action", "action"), "Action or NotAction"),
            (
                &GOOD.replace("Resource", "resource"),
                "Resource or NotResource",
            ),
            (
                &GOOD.replace(r#""Effect""#, r#""Principal":"*","Effect""#),
                "no Principal",
            ),
            (&long, "2048 are allowed"),
        ] {
            let error = check(Some(policy), &[]).unwrap_err();
            assert!(error.contains(message), "{message}: {error}");
        }
        assert!(check(None, &["arn:aws:iam::1:role/x".to_owned()]).is_err());
        assert!(
            check(None, &vec![managed[0].clone(); 11])
                .unwrap_err()
                .contains("11")
        );
    }
}
