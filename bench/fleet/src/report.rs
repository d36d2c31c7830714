//! The targets and the table, as a section of docs/fleet.md.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::scenario::{Figures, HOSTS, Scenario};
use crate::simulation::Trouble;

/// What the policy has to reach.
pub(crate) struct Target {
    pub(crate) text: String,
    pub(crate) figure: String,
    pub(crate) met: bool,
}

/// How much longer than hosts / quota a fleet may need.
const RECOVERY: f64 = 1.3;

/// Judges what was simulated.
pub(crate) fn targets(scenarios: &[Scenario]) -> Vec<Target> {
    let worst = |chosen: &dyn Fn(&Scenario) -> bool, figure: &dyn Fn(&Figures) -> f64| {
        let chosen = scenarios.iter().filter(|scenario| chosen(scenario));
        let figures = chosen.filter_map(|scenario| scenario.policy.as_ref());
        figures.map(figure).fold(0.0, f64::max)
    };
    let hour = |scenario: &Scenario| scenario.trouble == Trouble::Outage(3600.0);
    let load = worst(&hour, &|figures| figures.outage_peak);
    let revoked = |scenario: &Scenario| matches!(scenario.trouble, Trouble::Revoked(_));
    let refused = worst(&|one| revoked(one) && carried(one), &|figures| {
        figures.last_hour
    });
    let without = worst(&|one| hour(one) && one.life == 12, &|figures| {
        figures.without
    });
    let recovery = scenarios
        .iter()
        .filter(|scenario| scenario.is_feasible() && !revoked(scenario))
        .filter_map(|scenario| {
            let needed = f64::from(HOSTS) / f64::from(scenario.quota);
            let figures = scenario.policy.as_ref()?;
            Some(figures.recovery.map_or(f64::INFINITY, |time| time / needed))
        })
        .fold(0.0, f64::max);
    vec![
        Target {
            text: "requests in an outage of 1 h, busiest 10 s".to_owned(),
            figure: format!("{}/s, under 500/s", whole(load)),
            met: load < 500.0,
        },
        Target {
            text: "requests of hosts that AWS refuses for ever, last hour".to_owned(),
            figure: format!("{}/s, under 100/s", whole(refused)),
            met: refused < 100.0,
        },
        Target {
            text: "hosts without a session, sessions of 12 h, outage of 1 h".to_owned(),
            figure: format!("{}, none", whole(without)),
            met: without < 1.0,
        },
        Target {
            text: "recovery, in parts of hosts / quota, where the quota carries the fleet"
                .to_owned(),
            figure: format!("{recovery:.2}, at most {RECOVERY}"),
            met: recovery <= RECOVERY,
        },
    ]
}

/// Where half of the fleet is healthy, its own requests are not those of refused hosts.
fn carried(scenario: &Scenario) -> bool {
    scenario.is_feasible() || scenario.trouble == Trouble::Revoked(1.0)
}

/// The section, in Markdown.
pub(crate) fn section(scenarios: &[Scenario], targets: &[Target], seed: u64) -> Result<String> {
    let mut text = format!(
        "{BEGIN}\nWritten by `make fleet` at commit {}, with the seed {seed}: {} hosts.\n\n",
        commit()?,
        whole(f64::from(HOSTS)),
    );
    text += "| target | figure | met |\n| --- | ---: | ---: |\n";
    for target in targets {
        let met = if target.met { "yes" } else { "no" };
        text += &format!("| {} | {} | {met} |\n", target.text, target.figure);
    }
    text += "\nBehind each figure, in parentheses, that of the constants before (commit 51ad70e).\n\n\
        | trouble, session, quota | peak/s | mean/s | last hour/s | futile | without a session, most | recovery |\n\
        | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n";
    for scenario in scenarios {
        text += &row(scenario);
    }
    text += END;
    Ok(text)
}

fn row(scenario: &Scenario) -> String {
    let (Some(policy), Some(previous)) = (&scenario.policy, &scenario.previous) else {
        return String::new();
    };
    let both =
        |figure: &dyn Fn(&Figures) -> String| format!("{} ({})", figure(policy), figure(previous));
    let mark = if scenario.is_feasible() { "" } else { " *" };
    let revoked = matches!(scenario.trouble, Trouble::Revoked(_));
    let cells = [
        format!("{}{mark}", scenario.name()),
        both(&|figures| whole(figures.peak)),
        both(&|figures| whole(figures.mean)),
        both(&|figures| whole(figures.last_hour)),
        both(&|figures| format!("{:.0} %", 100.0 * figures.futile)),
        both(&|figures| whole(figures.without)),
        both(&|figures| match figures.recovery {
            _ if revoked => "-".to_owned(),
            Some(0.0) => "at once".to_owned(),
            Some(time) => format!("{} s", whole(time)),
            None => "never".to_owned(),
        }),
    ];
    format!("| {} |\n", cells.join(" | "))
}

const BEGIN: &str = "<!-- make fleet -->";
const END: &str = "<!-- end -->";

/// Puts the section in the place of the one that the page has.
pub(crate) fn replace(page: &str, section: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{section}{after}"))
}

fn commit() -> Result<String> {
    let git = ["rev-parse", "--short=7", "HEAD"];
    let output = Command::new("git").args(git).output();
    let output = output.context("cannot run git")?;
    ensure!(output.status.success(), "git does not know the commit");
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A figure with thousands apart, as `12,345`.
fn whole(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_takes_the_place_of_the_last_one() {
        let page = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        let new = format!("{BEGIN}\nnew\n{END}");
        assert_eq!(replace(&page, &new).unwrap(), format!("a\n{new}\nb\n"));
        assert_eq!(replace("no place", &new), None);
    }

    #[test]
    fn thousands_stand_apart() {
        assert_eq!(
            [0.4, 999.0, 1000.0, 1_234_567.0].map(whole),
            ["0", "999", "1,000", "1,234,567"]
        );
    }
}
