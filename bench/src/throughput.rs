//! Signatures per second and the time that one takes: the token alone, and through the agent, in turns.

use std::time::Duration;

use anyhow::Result;

use crate::client::Caller;
use crate::lab::{Key, Lab};
use crate::raw::Raw;
use crate::report::{Report, Table, whole};
use crate::stats::{median, p50_and_p99};
use crate::targets::{ADDED_MICROS, SOFTHSM_PART, SWTPM_PART, Target};

/// The machine drifts, so that what is compared is measured in turns, so often.
const ROUNDS: usize = 5;
const TURN: Duration = Duration::from_millis(1200);

/// Clients of the agent, with a connection each.
const CLIENTS: [usize; 4] = [1, 2, 8, 64];

/// What is compared with the token alone: enough clients to keep two sessions at work, and few enough to
/// be found somewhere.
const COMPARED: usize = 8;

/// What was measured in one round.
#[derive(Default)]
struct Round {
    /// Of the token alone, in one thread; in as many threads as it works on at once.
    one: f64,
    all: f64,
    /// For each of [`CLIENTS`].
    clients: Vec<(usize, f64)>,
    /// Median and 99th percentile in microseconds, of the token alone and of one client.
    raw_times: (f64, f64),
    agent_times: (f64, f64),
}

pub(crate) fn measure(lab: &Lab, report: &mut Report) -> Result<()> {
    let mut rates = Vec::new();
    let mut times = Vec::new();
    for (token, keys, threads) in [("SoftHSM", lab.softhsm(), 2), ("swtpm", lab.tpms(), 1)] {
        for key in keys {
            let name = format!("{token} {}", key.name);
            let rounds = rounds(lab, report, key, &name, threads)?;
            rates.push(rate_row(&name, &rounds, threads));
            times.push(time_row(&name, &rounds));
            report.targets.extend(targets(token, key, &rounds));
        }
    }
    report.add(Table {
        title: "Signatures per second",
        about: format!(
            "The token alone: `C_SignInit` and `C_Sign`, a session for each thread; `TPM2_Sign` with a key that \
             is kept\nloaded. Through the agent, with two sessions: each client has a connection of its own and \
             sends one request\nafter the other. The part is that of {COMPARED} clients. Clients, agent, token \
             program and token share the processor;\nswtpm is a process of its own."
        ),
        head: vec![
            "key", "alone, 1 thread", "2 threads", "1 client", "2 clients", "8 clients", "64 clients", "part",
        ],
        rows: rates,
    });
    report.add(Table {
        title: "Time of a signature, in microseconds",
        about: "One thread, or one client: from its request to the signed headers. The agent reads the request, \
                judges it,\nhas it signed, verifies the signature and logs the decision."
            .to_owned(),
        head: vec!["key", "alone p50", "agent p50", "added p50", "alone p99", "agent p99", "added p99"],
        rows: times,
    });
    Ok(())
}

fn rounds(lab: &Lab, report: &Report, key: &Key, name: &str, threads: usize) -> Result<Vec<Round>> {
    let agent = lab.start(key)?;
    // Behind the agent, which flushes what it takes for the rest of a token program that was killed.
    let mut raw = lab.raw(key)?;
    let caller = agent.caller(&lab.scene, &key.identity.name);
    let mut rounds = Vec::new();
    for number in 1..=ROUNDS {
        let round = round(&mut raw, &caller, threads)?;
        report.step(&format!(
            "{name}, round {number} of {ROUNDS}: {} of {}/s, {} µs added",
            percent(round.part()),
            whole(round.all),
            whole(round.added())
        ))?;
        rounds.push(round);
    }
    drop(raw);
    agent.stop()?;
    Ok(rounds)
}

fn round(raw: &mut Raw, caller: &Caller, threads: usize) -> Result<Round> {
    let mut round = Round::default();
    let alone = raw.run(1, TURN)?;
    (round.one, round.raw_times) = (alone.per_second(), p50_and_p99(&alone.times));
    for clients in CLIENTS {
        let run = caller.run(clients, TURN)?;
        round.clients.push((clients, run.per_second()));
        if clients == 1 {
            round.agent_times = p50_and_p99(&run.times);
            round.all = match threads {
                1 => round.one,
                _ => raw.run(threads, TURN)?.per_second(),
            };
        }
    }
    Ok(round)
}

impl Round {
    /// What the agent makes of what the token can do.
    fn part(&self) -> f64 {
        self.through(COMPARED) / self.all
    }

    /// In microseconds, to the median.
    fn added(&self) -> f64 {
        self.agent_times.0 - self.raw_times.0
    }

    fn through(&self, clients: usize) -> f64 {
        let rate = self.clients.iter().find(|(number, _)| *number == clients);
        rate.map_or(0.0, |(_, rate)| *rate)
    }
}

fn rate_row(name: &str, rounds: &[Round], threads: usize) -> Vec<String> {
    let of = |value: &dyn Fn(&Round) -> f64| median(rounds.iter().map(value));
    let mut row = vec![name.to_owned(), whole(of(&|round| round.one))];
    row.push(match threads {
        1 => "-".to_owned(), // a TPM does one thing at a time
        _ => whole(of(&|round| round.all)),
    });
    row.extend(CLIENTS.map(|clients| whole(of(&|round| round.through(clients)))));
    row.push(percent(of(&Round::part)));
    row
}

fn time_row(name: &str, rounds: &[Round]) -> Vec<String> {
    let of = |value: &dyn Fn(&Round) -> f64| whole(median(rounds.iter().map(value)));
    vec![
        name.to_owned(),
        of(&|round| round.raw_times.0),
        of(&|round| round.agent_times.0),
        of(&Round::added),
        of(&|round| round.raw_times.1),
        of(&|round| round.agent_times.1),
        of(&|round| round.agent_times.1 - round.raw_times.1),
    ]
}

fn targets(token: &str, key: &Key, rounds: &[Round]) -> Vec<Target> {
    let part = median(rounds.iter().map(Round::part));
    let added = median(rounds.iter().map(Round::added));
    let of_part = |target, wanted| Target {
        target,
        measured: percent(part),
        met: part >= wanted,
    };
    let of_time = |target| Target {
        target,
        measured: format!("{} µs", whole(added)),
        met: added < ADDED_MICROS,
    };
    match (token, key.rsa) {
        ("SoftHSM", true) => vec![
            of_part(
                "RSA-2048 on SoftHSM, 2 sessions: 90 % of the token alone",
                SOFTHSM_PART,
            ),
            of_time("RSA-2048 on SoftHSM: added latency p50 under 200 µs"),
        ],
        ("SoftHSM", false) => vec![of_time(
            "EC P-256 on SoftHSM: added latency p50 under 200 µs",
        )],
        (_, true) => vec![
            of_part("RSA-2048 on swtpm: 95 % of the token alone", SWTPM_PART),
            of_time("RSA-2048 on swtpm: added latency p50 under 200 µs"),
        ],
        (_, false) => vec![
            of_part("EC P-256 on swtpm: 95 % of the token alone", SWTPM_PART),
            of_time("EC P-256 on swtpm: added latency p50 under 200 µs"),
        ],
    }
}

fn percent(part: f64) -> String {
    format!("{:.1} %", part * 100.0)
}
