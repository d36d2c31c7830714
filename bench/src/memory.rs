//! Memory, and how it and a request's time grow with clients and identities.

use std::time::Duration;

use anyhow::Result;
use hsm_fixtures::AgentIdentity;

use crate::client::Client;
use crate::lab::{Key, Lab};
use crate::process::{self, Memory};
use crate::report::{Report, Table, whole};
use crate::stats::p50_and_p99;
use crate::targets::{CROWDED_KIB, IDLE_KIB, Target};

/// Of clients and of identities.
const MANY: usize = 1000;

/// After that a client that has asked for something counts as silent.
const SETTLE: Duration = Duration::from_secs(1);

/// How long one client measures its requests' time.
const TURN: Duration = Duration::from_secs(2);

/// What was measured with so many clients and identities.
struct State {
    agent: Memory,
    launcher: Memory,
    token_program: Memory,
    p50: f64,
    p99: f64,
}

pub(crate) fn measure(lab: &Lab, report: &mut Report) -> Result<()> {
    let Some(key) = lab.softhsm().last() else {
        return Ok(());
    };
    report.step("certificates of 1,000 identities")?;
    let many = lab.identities(key, MANY)?;
    let mut rows = Vec::new();
    for (identities, clients) in [(1, 0), (1, MANY), (MANY, 0), (MANY, MANY)] {
        report.step(&format!(
            "memory with {identities} identities and {clients} connected clients"
        ))?;
        let state = state(
            lab,
            key,
            many.iter().take(identities).cloned().collect(),
            clients,
        )?;
        rows.push(row(identities, clients, &state));
        report.targets.extend(target(identities, clients, &state));
    }
    report.add(Table {
        title: "Memory in KiB, and growth",
        about: "Resident (RSS), and with shared pages divided among their users (PSS). Each connected client has made one \
                request\nand is silent since a second; the identities share a key on SoftHSM and have a certificate each. The times are \
                those of one more\nclient, in microseconds."
            .to_owned(),
        head: vec![
            "identities", "clients", "agent RSS", "PSS",
            "launcher RSS",
            "PSS", "roleseal-pkcs11 RSS", "PSS", "request p50", "p99",
        ],
        rows,
    });
    measure_tpm(lab, report)
}

fn row(identities: usize, clients: usize, state: &State) -> Vec<String> {
    let kib = |kib: Option<u64>| kib.map_or_else(|| "-".to_owned(), |kib| whole(kib as f64));
    vec![
        whole(identities as f64),
        whole(clients as f64),
        kib(Some(state.agent.rss)),
        kib(state.agent.pss),
        kib(Some(state.launcher.rss)),
        kib(state.launcher.pss),
        kib(Some(state.token_program.rss)),
        kib(state.token_program.pss),
        whole(state.p50),
        whole(state.p99),
    ]
}

fn target(identities: usize, clients: usize, state: &State) -> Option<Target> {
    let (target, limit) = match (identities, clients) {
        (1, 0) => ("roleseal-agent, idle: under 8 MiB resident", IDLE_KIB),
        (MANY, MANY) => (
            "roleseal-agent, 1,000 clients and 1,000 identities: under 24 MiB resident",
            CROWDED_KIB,
        ),
        _ => return None,
    };
    Some(Target {
        target,
        measured: format!("{:.1} MiB", state.agent.rss as f64 / 1024.0),
        met: state.agent.rss < limit,
    })
}

fn state(lab: &Lab, key: &Key, identities: Vec<AgentIdentity>, clients: usize) -> Result<State> {
    let agent = lab.start_with(identities, None, |_| {})?;
    let caller = agent.caller(&lab.scene, &key.identity.name);
    let mut connected: Vec<Client> = Vec::new();
    for _ in 0..clients {
        let mut client = caller.connect()?;
        client.sign()?;
        connected.push(client);
    }
    std::thread::sleep(SETTLE);
    // Before the clients whose time is taken: idle is what a host has most of the time.
    let memory = process::memory(agent.pid())?;
    let launcher = process::memory(agent.launcher()?)?;
    let token_program = process::memory(agent.token_program()?)?;
    let (p50, p99) = p50_and_p99(&caller.run(1, TURN)?.times);
    agent.stop()?;
    Ok(State {
        agent: memory,
        launcher,
        token_program,
        p50,
        p99,
    })
}

fn measure_tpm(lab: &Lab, report: &mut Report) -> Result<()> {
    let Some(key) = lab.tpms().last() else {
        return Ok(());
    };
    let agent = lab.start(key)?;
    let memory = process::memory(agent.token_program()?)?;
    agent.stop()?;
    let pss = memory
        .pss
        .map_or_else(|| "-".to_owned(), |pss| whole(pss as f64));
    report.add(Table {
        title: "Memory of roleseal-tpm in KiB",
        about: "With one identity.".to_owned(),
        head: vec!["identities", "RSS", "PSS"],
        rows: vec![vec!["1".to_owned(), whole(memory.rss as f64), pss]],
    });
    Ok(())
}
