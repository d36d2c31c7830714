//! What signatures cost: calls of the token, and time.

use std::time::Duration;

use anyhow::{Context, Result};
use hsm_fixtures::Scene;

use crate::interrupt::Interrupt;
use crate::session::Session;

/// Runs of credential-process that are measured.
const FURTHER: usize = 10;

/// What is measured of one identity.
pub(crate) struct Subject<'a> {
    pub(crate) scene: &'a Scene,
    pub(crate) identity: &'a str,
    pub(crate) role_arn: &'a str,
    /// What a call is, such as `PKCS#11 calls`.
    pub(crate) unit: &'a str,
    /// The call that a signature begins with; what comes before the first is the opening.
    pub(crate) signs: &'a str,
    /// All calls so far.
    pub(crate) calls: &'a dyn Fn() -> Result<Vec<String>>,
}

/// Gets credentials again and again, and tells what that took.
pub(crate) fn show(interrupt: &Interrupt, subject: &Subject<'_>) -> Result<()> {
    let before = (subject.calls)()?;
    let opening = before.iter().position(|call| call == subject.signs);
    let opening = opening.unwrap_or(before.len());
    let mut times = Vec::with_capacity(FURTHER);
    for _ in 0..FURTHER {
        interrupt.check()?;
        let (_, time) = Session::get(subject.scene, subject.identity, subject.role_arn)?;
        times.push(time);
    }
    let after = (subject.calls)()?;
    let further = after
        .get(before.len()..)
        .context("the log of calls has become shorter")?;
    let per_signature = further.len() as f64 / FURTHER as f64;
    let mut names: Vec<&str> = Vec::new();
    for name in further {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let unit = subject.unit;
    println!("\nWhat {} cost:", subject.identity);
    println!("  opening token and keys      {opening} {unit}, once");
    let units = match per_signature {
        1.0 => unit.trim_end_matches('s'),
        _ => unit,
    };
    println!(
        "  each further signature      {per_signature} {units} ({})",
        names.join(", ")
    );
    println!(
        "  roleseal credential-process {} ms from start to end (median of {FURTHER})",
        median_ms(times)
    );
    Ok(())
}

fn median_ms(mut times: Vec<Duration>) -> u128 {
    times.sort();
    times.get(times.len() / 2).map_or(0, Duration::as_millis)
}
