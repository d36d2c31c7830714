//! `hsm-fixtures up`.

use anyhow::{Result, bail};

use crate::interrupt::Interrupt;
use crate::lab::{Lab, Wish};
use crate::usage::{aws_config, aws_environment, credential_process, shell_word};

/// Starts a lab, tells how to use it, and stays.
pub(crate) fn run(interrupt: &Interrupt, wish: &Wish<'_>) -> Result<()> {
    let lab = Lab::start(interrupt, wish)?;
    lab.scene.write("aws.config", &aws_config(&lab)?)?;
    print_usage(&lab, wish.spy)?;
    interrupt.wait_while(|| {
        let agent = lab.agent.process();
        if !agent.is_running() {
            bail!(
                "roleseal-agent ended; the last lines of its log:\n{}",
                agent.log_tail()
            );
        }
        Ok(())
    })?;
    eprintln!("ending");
    lab.stop()
}

fn print_usage(lab: &Lab, spy: bool) -> Result<()> {
    let environment: String = aws_environment(&lab.scene)
        .iter()
        .map(|(name, value)| format!("  export {name}={}\n", shell_word(value)))
        .collect();
    println!("\nCredentials, from a key that stays on its token:\n");
    let mut profiles = Vec::new();
    for (name, role_arn) in lab.identities() {
        println!("  {}\n", credential_process(&lab.scene, name, role_arn)?);
        profiles.push(name);
    }
    let profiles = profiles.join(", ");
    println!("For AWS tools, with the profiles {profiles}:\n\n{environment}");
    println!("  aws --profile web sts get-caller-identity\n");
    if let Some(chip) = &lab.tpm {
        println!("For tpm2-tools and tpm2-openssl:\n");
        for (name, value) in chip.swtpm.env() {
            println!("  export {name}={}", shell_word(&value));
        }
        println!();
    }
    println!("The agent's log: {}", lab.scene.path("agent.log").display());
    if spy {
        println!("PKCS#11 calls:   {}", lab.spy_log().display());
    }
    if let Some(chip) = &lab.tpm {
        println!("TPM commands:    {}", chip.swtpm.log_path().display());
    }
    println!("Ctrl-C ends it.\n");
    Ok(())
}
