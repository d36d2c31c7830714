//! What the command's environment says about AWS.

use std::env;
use std::process::Command;

use secrecy::{ExposeSecret, SecretString};

use client::target::Target;

/// Where AWS tools would find other credentials first.
const CONFLICTING: [&str; 13] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AWS_CREDENTIAL_EXPIRATION",
    "AWS_CREDENTIAL_FILE",
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
];

/// SDKs read the first, botocore the second.
const REGION: [&str; 2] = ["AWS_REGION", "AWS_DEFAULT_REGION"];

pub(super) fn set(command: &mut Command, target: &Target, url: &str, token: &SecretString) {
    for name in CONFLICTING {
        command.env_remove(name);
    }
    command
        .env("AWS_CONTAINER_CREDENTIALS_FULL_URI", url)
        .env("AWS_CONTAINER_AUTHORIZATION_TOKEN", token.expose_secret())
        // AWS tools prefer its [default] profile to any endpoint.
        .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null");
    if REGION.iter().all(|name| env::var_os(name).is_none()) {
        for name in REGION {
            command.env(name, target.session.target.region().to_string());
        }
    }
}
