//! A fleet of 100,000 hosts in simulated time, by the client's own policy: the table and the curves of docs/fleet.md.
//! Fails if a target is missed.

mod chart;
mod previous;
mod report;
mod scenario;
mod service;
mod simulation;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Parser;

use crate::scenario::Scenario;

/// Simulates a fleet and writes the table and the curves
#[derive(Parser)]
struct Arguments {
    /// The page that has the table
    #[arg(default_value = "docs/fleet.md")]
    page: PathBuf,
    /// Where the curves go
    #[arg(default_value = "docs/fleet.svg")]
    curves: PathBuf,
    /// The same seed brings the same figures
    #[arg(long, default_value_t = 20_261_129)]
    seed: u64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let seed = arguments.seed;
    let scenarios: Vec<Scenario> = scenario::all()
        .into_iter()
        .map(|scenario| {
            eprintln!("{}", scenario.name());
            scenario.simulate(seed)
        })
        .collect();
    let targets = report::targets(&scenarios);
    let text = report::section(&scenarios, &targets, seed)?;
    println!("{text}");
    let page = std::fs::read_to_string(&arguments.page)
        .with_context(|| format!("cannot read {}", arguments.page.display()))?;
    let page = report::replace(&page, &text).context("the page has no place for the table")?;
    std::fs::write(&arguments.page, page)
        .with_context(|| format!("cannot write {}", arguments.page.display()))?;
    chart::draw(&arguments.curves, &scenarios)?;
    let missed = targets.iter().filter(|target| !target.met).count();
    ensure!(missed == 0, "{missed} targets are missed");
    Ok(())
}
