//! `hsm-fixtures up`.

use std::path::Path;

use anyhow::{Result, bail};
use hsm_fixtures::WEB_ROLE_ARN;

use crate::interrupt::Interrupt;
use crate::lab::{Lab, Wish};
use crate::usage::{aws_config, aws_environment, credential_process, shell_word};

/// Starts a lab, tells how to use it, and stays.
pub(crate) fn run(interrupt: &Interrupt, dir: Option<&Path>, spy: bool) -> Result<()> {
    let lab = Lab::start(
        interrupt,
        &Wish {
            dir,
            spy,
            verbose: true,
        },
    )?;
    lab.scene.write("aws.config", &aws_config(&lab.scene)?)?;
    print_usage(&lab, spy)?;
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
    let Lab { agent, scene, .. } = lab;
    agent.stop()?;
    drop(scene);
    Ok(())
}

fn print_usage(lab: &Lab, spy: bool) -> Result<()> {
    let environment: String = aws_environment(&lab.scene)
        .iter()
        .map(|(name, value)| format!("  export {name}={}\n", shell_word(value)))
        .collect();
    println!("\nCredentials, from a key that stays on the token:\n");
    println!(
        "  {}\n",
        credential_process(&lab.scene, "web", WEB_ROLE_ARN)?
    );
    println!("For AWS tools, with the profiles web and batch:\n\n{environment}");
    println!("  aws --profile web sts get-caller-identity\n");
    println!("The agent's log: {}", lab.scene.path("agent.log").display());
    if spy {
        println!("PKCS#11 calls:   {}", lab.spy_log().display());
    }
    println!("Ctrl-C ends it.\n");
    Ok(())
}
