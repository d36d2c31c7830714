//! `roleseal credential-process`, as AWS tools start it: time, and the processor's.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use hsm_fixtures::WEB_ROLE_ARN;

use crate::lab::{Key, Lab, Running};
use crate::process;
use crate::report::{Report, Table, millis};
use crate::stats::median;
use crate::targets::{CLI_CPU_MILLIS, Target};

/// Runs: the kernel counts processor time in hundredths of a second.
const COUNT: u32 = 200;

/// Of one run.
struct Cost {
    wall: Duration,
    cli: Duration,
    agent: Duration,
    token_program: Duration,
}

pub(crate) fn measure(lab: &Lab, report: &mut Report) -> Result<()> {
    let mut rows = Vec::new();
    for (key, target) in lab.softhsm().iter().zip([
        "credential-process, RSA-2048: under 10 ms CPU in all processes",
        "credential-process, EC P-256: under 10 ms CPU in all processes",
    ]) {
        report.step(&format!("credential-process, {}", key.name))?;
        let agent = lab.start(key)?;
        let cost = cost(lab, key, &agent)?;
        agent.stop()?;
        let all = cost.cli + cost.agent + cost.token_program;
        rows.push(vec![
            format!("SoftHSM {}", key.name),
            millis(cost.wall),
            millis(cost.cli),
            millis(cost.agent),
            millis(cost.token_program),
            millis(all),
        ]);
        report.targets.push(Target {
            target,
            measured: millis(all),
            met: all.as_secs_f64() * 1e3 < CLI_CPU_MILLIS,
        });
    }
    report.add(Table {
        title: "credential-process",
        about: format!(
            "From start to end, {COUNT} times one after the other, against the local service on the same machine \
             (whose own\nwork is in the wall time only). Processor time is that of user and system together, starting \
             and TLS included."
        ),
        head: vec!["key", "wall p50", "CPU: roleseal", "agent", "token program", "together"],
        rows,
    });
    Ok(())
}

fn cost(lab: &Lab, key: &Key, agent: &Running) -> Result<Cost> {
    let (token_program, launcher) = (agent.token_program()?, agent.launcher()?);
    let arguments = lab
        .scene
        .credential_process(&key.identity.name, WEB_ROLE_ARN);
    let run = || -> Result<Duration> {
        let mut command = lab.scene.roleseal(&arguments)?;
        let start = Instant::now();
        let output = command.stdin(Stdio::null()).output()?;
        let wall = start.elapsed();
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "credential-process: {stderr}");
        Ok(wall)
    };
    run()?; // the first one reads the program from the disk
    let used = || -> Result<[Duration; 3]> {
        Ok([
            process::cpu_of_children()?,
            process::cpu(agent.pid())? + process::cpu(launcher)?,
            process::cpu(token_program)?,
        ])
    };
    let before = used()?;
    let walls: Vec<f64> = (0..COUNT)
        .map(|_| Ok(run()?.as_secs_f64()))
        .collect::<Result<_>>()?;
    let after = used()?;
    let [cli, agent, token_program] = [0, 1, 2].map(|at| {
        let of = |used: &[Duration; 3]| used.get(at).copied().unwrap_or_default();
        (of(&after) - of(&before)) / COUNT
    });
    Ok(Cost {
        wall: Duration::from_secs_f64(median(walls)),
        cli,
        agent,
        token_program,
    })
}
