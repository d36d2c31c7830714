//! GetCallerIdentity through tools that are not ours: curl, and the AWS CLI where there is one.

use std::path::Path;

use anyhow::{Context, Result};
use hsm_fixtures::{REGION, Scene, command};

use crate::session::Session;
use crate::usage::aws_environment;

/// Asks STS whose the credentials are, by `curl --aws-sigv4`; returns the ARN.
pub(crate) fn by_curl(scene: &Scene, session: &Session) -> Result<String> {
    let mut curl = scene.command("curl");
    curl.args([
        "-q",
        "--silent",
        "--show-error",
        "--fail-with-body",
        "--max-time",
        "20",
    ]);
    curl.arg("--cacert").arg(scene.pki().root_path());
    curl.args(["--aws-sigv4", &format!("aws:amz:{REGION}:sts")]);
    curl.args([
        "--data",
        "Action=GetCallerIdentity&Version=2011-06-15",
        "--config",
        "-",
    ]);
    curl.arg(format!("{}/", scene.service().url()));
    // On stdin, because other users can read argv.
    let secrets = format!(
        "user = \"{}:{}\"\nheader = \"X-Amz-Security-Token: {}\"\n",
        session.access_key_id, session.secret_access_key, session.session_token
    );
    let answer = command::output_with_input(&mut curl, secrets.as_bytes())?;
    arn_in(&String::from_utf8_lossy(&answer), "<Arn>", "</Arn>")
}

/// The same by `aws`, which runs credential_process itself; returns the ARN.
pub(crate) fn by_aws_cli(scene: &Scene, aws: &Path, profile: &str) -> Result<String> {
    let mut cli = scene.command(aws);
    cli.envs(aws_environment(scene));
    cli.args([
        "--profile",
        profile,
        "--output",
        "json",
        "sts",
        "get-caller-identity",
    ]);
    let answer = command::output(&mut cli)?;
    arn_in(&String::from_utf8_lossy(&answer), "\"Arn\": \"", "\"")
}

fn arn_in(answer: &str, before: &str, after: &str) -> Result<String> {
    answer
        .split_once(before)
        .and_then(|(_, rest)| rest.split_once(after))
        .map(|(arn, _)| arn.to_owned())
        .with_context(|| format!("no ARN in the answer of GetCallerIdentity: {answer}"))
}
