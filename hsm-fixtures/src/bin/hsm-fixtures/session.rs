//! One run of `roleseal credential-process`.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hsm_fixtures::Scene;
use serde::Deserialize;

/// What credential_process prints (version 1). No Debug: two of its fields are secrets.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Session {
    version: u32,
    pub(crate) access_key_id: String,
    pub(crate) secret_access_key: String,
    pub(crate) session_token: String,
    /// ISO 8601.
    pub(crate) expiration: String,
}

impl Session {
    /// Asks for a session; returns it, and how long the program took from start to end.
    pub(crate) fn get(
        scene: &Scene,
        identity: &str,
        role_arn: &str,
    ) -> Result<(Session, Duration)> {
        let mut command = scene.roleseal(&scene.credential_process(identity, role_arn))?;
        let start = Instant::now();
        let output = command.output().context("cannot start roleseal")?;
        let elapsed = start.elapsed();
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            bail!(
                "roleseal credential-process ended with {}: {}",
                output.status,
                stderr.trim_end()
            );
        }
        let session: Session = serde_json::from_slice(&output.stdout)
            .context("roleseal credential-process printed something else")?;
        ensure!(
            session.version == 1,
            "roleseal credential-process printed version {}",
            session.version
        );
        Ok((session, elapsed))
    }
}
