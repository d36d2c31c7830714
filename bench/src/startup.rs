//! From the agent's start until it listens, and until it signs.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::lab::{Key, Lab};
use crate::report::{Report, Table, millis};
use crate::stats::median;

const COUNT: usize = 9;

pub(crate) fn measure(lab: &Lab, report: &mut Report) -> Result<()> {
    report.step("starting")?;
    let mut rows = Vec::new();
    for (token, keys) in [("SoftHSM", lab.softhsm()), ("swtpm", lab.tpms())] {
        for key in keys {
            let starts: Vec<(f64, f64)> =
                (0..COUNT).map(|_| start(lab, key)).collect::<Result<_>>()?;
            let of = |value: &dyn Fn(&(f64, f64)) -> f64| {
                millis(Duration::from_secs_f64(median(starts.iter().map(value))))
            };
            rows.push(vec![
                format!("{token} {}", key.name),
                of(&|start| start.0),
                of(&|start| start.1),
            ]);
        }
    }
    report.add(Table {
        title: "Start",
        about: format!(
            "From the start of roleseal-agent with one identity until it accepts a connection, and until the first \
             client has\nits signature: token program started, logged in, key found and proved. Median of {COUNT}."
        ),
        head: vec!["key", "listens", "has signed"],
        rows,
    });
    Ok(())
}

/// Both in seconds.
fn start(lab: &Lab, key: &Key) -> Result<(f64, f64)> {
    let start = Instant::now();
    let agent = lab.launch(vec![key.identity.clone()], key.tpm.as_ref(), |_| {})?;
    let listens = start.elapsed();
    agent
        .caller(&lab.scene, &key.identity.name)
        .connect()?
        .sign()?;
    let has_signed = start.elapsed();
    agent.stop()?;
    Ok((listens.as_secs_f64(), has_signed.as_secs_f64()))
}
