//! Environment variables that lead AWS's SDKs and tools to other credentials. docs/serve.md has them with who reads
//! them.

use std::env;

/// Keys, profiles, web identities and endpoints: they are of no use beside a session.
pub(crate) const CREDENTIALS: [&str; 21] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_CREDENTIAL_EXPIRATION",
    "AWS_CREDENTIAL_SCOPE",
    "AWS_ACCESS_KEY",
    "AWS_SECRET_KEY",
    "AWS_SECURITY_TOKEN",
    "AMAZON_ACCESS_KEY_ID",
    "AMAZON_SECRET_ACCESS_KEY",
    "AMAZON_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_CREDENTIAL_FILE",
];

/// A service's name follows. SDKs prefer such a token to any credentials.
const BEARER_TOKEN: &str = "AWS_BEARER_TOKEN_";

/// Files that may hold credentials beside settings: tools read the usual ones where the variable is not set.
pub(crate) const FILES: [&str; 3] = [
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_CREDENTIAL_PROFILES_FILE",
    "BOTO_CONFIG",
];

/// All of [`CREDENTIALS`], and the bearer tokens of this process's environment.
pub(crate) fn credentials() -> impl Iterator<Item = String> {
    let names = env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let set = names.filter(|name| is_bearer_token(name));
    CREDENTIALS.into_iter().map(str::to_owned).chain(set)
}

/// The rest is a word of a shell as well.
fn is_bearer_token(name: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.strip_prefix(BEARER_TOKEN)
        .is_some_and(|service| service.chars().all(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_all_of_them() {
        let page = include_str!("../../docs/serve.md");
        for name in CREDENTIALS.iter().chain(&FILES) {
            assert!(page.contains(&format!("`{name}`")), "{name}");
        }
        assert!(page.contains(BEARER_TOKEN));
    }

    #[test]
    fn a_bearer_token_is_of_any_service() {
        assert!(is_bearer_token("AWS_BEARER_TOKEN_BEDROCK"));
        assert!(!is_bearer_token("AWS_BEARER_TOKEN_X;rm"));
        assert!(!is_bearer_token("AWS_BEARER"));
    }
}
