//! What a signature asks of the token: pkcs11-spy's log, and swtpm's.

use std::fs;

use anyhow::{Context, Result};
use hsm_fixtures::SoftHsm;

use crate::lab::{Key, Lab};
use crate::report::{Report, Table};
use crate::targets::{PKCS11_CALLS, TPM_COMMANDS, Target};

/// Signatures that are counted.
const COUNT: usize = 50;

pub(crate) fn measure(lab: &Lab, report: &mut Report) -> Result<()> {
    report.step("calls of the token")?;
    let mut rows = Vec::new();
    let keys = lab
        .softhsm()
        .iter()
        .zip(["SoftHSM RSA-2048", "SoftHSM EC P-256"]);
    for (key, name) in keys.chain(lab.tpms().iter().zip(["swtpm RSA-2048", "swtpm EC P-256"])) {
        let (opening, signing) = count(lab, key)?;
        let per_signature = signing.len() as f64 / COUNT as f64;
        let mut kinds: Vec<&str> = signing.iter().map(String::as_str).collect();
        kinds.sort_unstable();
        kinds.dedup();
        rows.push(vec![
            name.to_owned(),
            opening.to_string(),
            format!("{per_signature}"),
            kinds.join(", "),
        ]);
        if let Some(target) = target(key, per_signature) {
            report.targets.push(target);
        }
    }
    report.add(Table {
        title: "Calls of the token",
        about: format!(
            "By the logs of pkcs11-spy and swtpm: until the first signature, which proves that key and certificate \
             belong\ntogether, and for each of {COUNT} more."
        ),
        head: vec!["key", "opening", "a signature", "which"],
        rows,
    });
    Ok(())
}

fn target(key: &Key, per_signature: f64) -> Option<Target> {
    let (target, wanted) = match (key.rsa, key.tpm.is_some()) {
        (true, false) => ("PKCS#11 calls a signature: 2", PKCS11_CALLS),
        (true, true) => ("TPM commands a signature: 1", TPM_COMMANDS),
        _ => return None,
    };
    Some(Target {
        target,
        measured: format!("{per_signature}"),
        met: per_signature <= wanted,
    })
}

/// How many calls there were before the signatures, and which ones during them.
fn count(lab: &Lab, key: &Key) -> Result<(usize, Vec<String>)> {
    let log = lab.scene.path("spy.log");
    let _ = fs::remove_file(&log); // there may be none
    let mut identity = key.identity.clone();
    if key.tpm.is_none() {
        let spy = SoftHsm::spy_module()?.display().to_string();
        identity.key = format!("{}?module-path={spy}", identity.key);
    }
    let calls = || match &key.tpm {
        Some(tpm) => Ok(tpm.commands()),
        None => spied(&fs::read(&log).context("pkcs11-spy wrote no log")?),
    };
    let before = key.tpm.as_ref().map_or(0, |tpm| tpm.commands().len());
    let module = SoftHsm::module()?;
    let agent = lab.start_with(vec![identity], key.tpm.as_ref(), |command| {
        command
            .env("PKCS11SPY", module)
            .env("PKCS11SPY_OUTPUT", &log);
    })?;
    let mut client = agent.caller(&lab.scene, &key.identity.name).connect()?;
    let opened = calls()?.len();
    for _ in 0..COUNT {
        client.sign()?;
    }
    let mut signing = calls()?.split_off(opened);
    signing.truncate(COUNT * 64);
    agent.stop()?;
    Ok((opened - before, signing))
}

/// A call begins with a line such as `12: C_SignInit`; the first ones only load the module.
fn spied(log: &[u8]) -> Result<Vec<String>> {
    let log = String::from_utf8_lossy(log);
    let calls = log.lines().filter_map(|line| {
        let (number, name) = line.split_once(": ")?;
        number.parse::<u32>().ok()?;
        let loads = matches!(name, "C_GetInterface" | "C_GetFunctionList");
        (name.starts_with("C_") && !loads).then(|| name.trim().to_owned())
    });
    Ok(calls.collect())
}
