//! `hsm-fixtures demo`: credentials from keys on a token and on a TPM, their proof, and their price.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use hsm_fixtures::{WEB_ROLE_ARN, programs};

use crate::cost::{self, Subject};
use crate::identify;
use crate::interrupt::Interrupt;
use crate::lab::{Chip, Lab, ON_TPM, Wish};
use crate::session::Session;
use crate::spy_log;
use crate::usage::{aws_config, credential_process};

/// Names an `aws` program to prove the credentials with as well.
const AWS_VARIABLE: &str = "HSM_FIXTURES_AWS";

/// Starts a lab, shows it, and ends it.
pub(crate) fn run(interrupt: &Interrupt) -> Result<()> {
    let tpm = programs::tpm().is_ok();
    if !tpm {
        eprintln!("no roleseal-tpm has been built: the TPM is left out");
    }
    let lab = Lab::start(
        interrupt,
        &Wish {
            dir: None,
            spy: true,
            tpm,
            verbose: false,
        },
    )?;
    lab.scene.write("aws.config", &aws_config(&lab)?)?;
    show_identity(interrupt, &lab, "web")?;
    show_key(&lab)?;
    show_cost(interrupt, &lab)?;
    if let Some(chip) = &lab.tpm {
        show_identity(interrupt, &lab, ON_TPM)?;
        show_tpm_key(chip)?;
        show_tpm_cost(interrupt, &lab, chip)?;
    }
    let dir = lab.scene.dir().to_owned();
    lab.stop()?;
    ensure!(!dir.exists(), "{} is still there", dir.display());
    println!("\nEnded: no process and no file is left.");
    Ok(())
}

fn show_identity(interrupt: &Interrupt, lab: &Lab, identity: &str) -> Result<()> {
    interrupt.check()?;
    let session = show_credentials(lab, identity)?;
    interrupt.check()?;
    show_proof(lab, identity, &session)?;
    interrupt.check()
}

fn show_credentials(lab: &Lab, identity: &str) -> Result<Session> {
    println!(
        "\n$ {}",
        credential_process(&lab.scene, identity, WEB_ROLE_ARN)?
    );
    let (session, _) = Session::get(&lab.scene, identity, WEB_ROLE_ARN)?;
    let minutes = minutes_left(&session)?;
    println!("  AccessKeyId  {}", session.access_key_id);
    println!(
        "  Expiration   {} (in {minutes} minutes)",
        session.expiration
    );
    println!("  SecretAccessKey and SessionToken are not shown here.");
    Ok(session)
}

fn show_proof(lab: &Lab, identity: &str, session: &Session) -> Result<()> {
    println!("\nThe credentials work. STS GetCallerIdentity answers");
    println!(
        "  {} (curl --aws-sigv4)",
        identify::by_curl(&lab.scene, session)?
    );
    if let Some(aws) = std::env::var_os(AWS_VARIABLE).filter(|aws| !aws.is_empty()) {
        let arn = identify::by_aws_cli(&lab.scene, Path::new(&aws), identity)?;
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

fn show_tpm_key(chip: &Chip) -> Result<()> {
    println!("\nThe key never left the TPM, which alone can load this file:");
    println!("  {}", chip.key);
    println!("  {}", chip.swtpm.key_attributes(&chip.key)?);
    Ok(())
}

fn show_cost(interrupt: &Interrupt, lab: &Lab) -> Result<()> {
    let subject = Subject {
        scene: &lab.scene,
        identity: "web",
        role_arn: WEB_ROLE_ARN,
        unit: "PKCS#11 calls",
        signs: "C_SignInit",
        calls: &|| spy_log::calls(&lab.spy_log()),
    };
    cost::show(interrupt, &subject)
}

fn show_tpm_cost(interrupt: &Interrupt, lab: &Lab, chip: &Chip) -> Result<()> {
    let subject = Subject {
        scene: &lab.scene,
        identity: ON_TPM,
        role_arn: WEB_ROLE_ARN,
        unit: "TPM commands",
        signs: "TPM2_Sign",
        calls: &|| Ok(chip.commands()),
    };
    cost::show(interrupt, &subject)
}

fn minutes_left(session: &Session) -> Result<i64> {
    let expiration: jiff::Timestamp = session
        .expiration
        .parse()
        .with_context(|| format!("no ISO 8601 time: {}", session.expiration))?;
    Ok(expiration.duration_since(jiff::Timestamp::now()).as_mins())
}
