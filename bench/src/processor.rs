//! Where the processor's time goes: what one signature takes of it, in which process. Other programs on the
//! machine slow this down, but do not change it much.

use std::time::Duration;

use anyhow::Result;

use crate::lab::{Key, Lab, SESSIONS};
use crate::process;
use crate::raw::Run;
use crate::report::{Report, Table, whole};

/// The kernel counts in hundredths of a second.
const TURN: Duration = Duration::from_secs(4);

/// Enough to keep the sessions at work.
const CLIENTS: usize = 8;

pub(crate) fn measure(lab: &Lab, report: &mut Report) -> Result<()> {
    report.step("processor time")?;
    let rows = lab.softhsm().iter().map(|key| row(lab, key));
    let rows = rows.collect::<Result<_>>()?;
    report.add(Table {
        title: "Processor time of a signature, in microseconds",
        about: format!(
            "User and system, with {CLIENTS} clients; those are threads of this program. The last column is the rate \
             through the\nagent that follows from it, where all processors are busy and the token is nothing but work \
             for them."
        ),
        head: vec!["key", "token alone", "token program", "agent", "clients", "part"],
        rows,
    });
    Ok(())
}

fn row(lab: &Lab, key: &Key) -> Result<Vec<String>> {
    let mut raw = lab.raw(key)?;
    let pid = raw.pid();
    let alone = per_signature([pid], || raw.run(SESSIONS as usize, TURN))?;
    let agent = lab.start(key)?;
    let caller = agent.caller(&lab.scene, &key.identity.name);
    let pids = [agent.token_program()?, agent.pid(), std::process::id()];
    let through = per_signature(pids, || caller.run(CLIENTS, TURN))?;
    agent.stop()?;
    let alone: f64 = alone.iter().sum();
    let part = alone / through.iter().sum::<f64>();
    let mut row = vec![format!("SoftHSM {}", key.name), whole(alone)];
    row.extend(through.map(whole));
    row.push(format!("{:.1} %", part * 100.0));
    Ok(row)
}

/// In microseconds, of each process.
fn per_signature<const N: usize>(
    pids: [u32; N],
    run: impl FnOnce() -> Result<Run>,
) -> Result<[f64; N]> {
    let mut used = [Duration::ZERO; N];
    for (used, pid) in used.iter_mut().zip(pids) {
        *used = process::cpu(pid)?;
    }
    let signatures = run()?.times.len() as f64;
    let mut micros = [0.0; N];
    for ((micros, before), pid) in micros.iter_mut().zip(used).zip(pids) {
        *micros = (process::cpu(pid)? - before).as_secs_f64() * 1e6 / signatures;
    }
    Ok(micros)
}
