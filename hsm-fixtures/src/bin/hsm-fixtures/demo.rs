//! `hsm-fixtures demo`: credentials from a key on a token, their proof, and their price.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hsm_fixtures::WEB_ROLE_ARN;

use crate::identify;
use crate::interrupt::Interrupt;
use crate::lab::{Lab, Wish};
use crate::session::Session;
use crate::spy_log;
use crate::usage::{aws_config, credential_process};

/// Runs of credential-process that are measured, after the first.
const FURTHER: usize = 10;

/// Names an `aws` program to prove the credentials with as well.
const AWS_VARIABLE: &str = "HSM_FIXTURES_AWS";

/// Starts a lab, shows it, and ends it.
pub(crate) fn run(interrupt: &Interrupt) -> Result<()> {
    let lab = Lab::start(
        interrupt,
        &Wish {
            dir: None,
            spy: true,
            verbose: false,
        },
    )?;
    lab.scene.write("aws.config", &aws_config(&lab.scene)?)?;
    let session = show_credentials(&lab)?;
    interrupt.check()?;
    show_proof(&lab, &session)?;
    interrupt.check()?;
    show_key(&lab)?;
    show_cost(interrupt, &lab)?;
    let Lab { agent, scene, .. } = lab;
    agent.stop()?;
    let dir = scene.dir().to_owned();
    drop(scene);
    ensure!(!dir.exists(), "{} is still there", dir.display());
    println!("\nEnded: no process and no file is left.");
    Ok(())
}

fn show_credentials(lab: &Lab) -> Result<Session> {
    println!(
        "\n$ {}",
        credential_process(&lab.scene, "web", WEB_ROLE_ARN)?
    );
    let (session, _) = Session::get(&lab.scene, "web", WEB_ROLE_ARN)?;
    let minutes = minutes_left(&session)?;
    println!("  AccessKeyId  {}", session.access_key_id);
    println!(
        "  Expiration   {} (in {minutes} minutes)",
        session.expiration
    );
    println!("  SecretAccessKey and SessionToken are not shown here.");
    Ok(session)
}

fn show_proof(lab: &Lab, session: &Session) -> Result<()> {
    println!("\nThe credentials work. STS GetCallerIdentity answers");
    println!(
        "  {} (curl --aws-sigv4)",
        identify::by_curl(&lab.scene, session)?
    );
    if let Some(aws) = std::env::var_os(AWS_VARIABLE).filter(|aws| !aws.is_empty()) {
        let arn = identify::by_aws_cli(&lab.scene, Path::new(&aws), "web")?;
        println!("  {arn} (aws, with credential_process)");
    }
    Ok(())
}

fn show_key(lab: &Lab) -> Result<()> {
    println!("\nThe key never left the token \"{}\":", lab.token.label());
    println!("  pkcs11:token={};object=web", lab.token.label());
    println!("  {}", lab.token.private_key_access("web")?);
    Ok(())
}

fn show_cost(interrupt: &Interrupt, lab: &Lab) -> Result<()> {
    let before = spy_log::calls(&lab.spy_log())?;
    let opening = before
        .iter()
        .position(|call| call == "C_SignInit")
        .unwrap_or(before.len());
    let mut times = Vec::with_capacity(FURTHER);
    for _ in 0..FURTHER {
        interrupt.check()?;
        times.push(Session::get(&lab.scene, "web", WEB_ROLE_ARN)?.1);
    }
    let after = spy_log::calls(&lab.spy_log())?;
    let further = after
        .get(before.len()..)
        .context("pkcs11-spy's log has become shorter")?;
    let per_signature = further.len() as f64 / FURTHER as f64;
    let mut names: Vec<&str> = Vec::new();
    for name in further {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    println!("\nWhat it cost:");
    println!("  opening token and keys      {opening} PKCS#11 calls, once");
    println!(
        "  each further signature      {per_signature} PKCS#11 calls ({})",
        names.join(", ")
    );
    println!(
        "  roleseal credential-process {} ms from start to end (median of {FURTHER})",
        median_ms(times)
    );
    Ok(())
}

fn minutes_left(session: &Session) -> Result<i64> {
    let expiration: jiff::Timestamp = session
        .expiration
        .parse()
        .with_context(|| format!("no ISO 8601 time: {}", session.expiration))?;
    Ok(expiration.duration_since(jiff::Timestamp::now()).as_mins())
}

fn median_ms(mut times: Vec<Duration>) -> u128 {
    times.sort();
    times.get(times.len() / 2).map_or(0, Duration::as_millis)
}
