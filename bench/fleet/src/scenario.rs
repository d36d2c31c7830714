//! The cases of the table: what is simulated, and its figures.

use crate::simulation::{BEGIN, BIN, Outcome, Rule, Run, Trouble, run};

/// A case, and how it went by the policy and by the constants before it.
pub(crate) struct Scenario {
    pub(crate) life: u32,
    pub(crate) quota: u32,
    pub(crate) trouble: Trouble,
    pub(crate) policy: Option<Figures>,
    pub(crate) previous: Option<Figures>,
}

/// From the begin of the trouble on.
pub(crate) struct Figures {
    /// Requests a second in the busiest bin.
    pub(crate) peak: f64,
    /// The same until the end of an outage.
    pub(crate) outage_peak: f64,
    /// Requests a second on average, in the trouble: until its end or the fleet's recovery.
    pub(crate) mean: f64,
    /// Requests a second in the last hour.
    pub(crate) last_hour: f64,
    /// The part of the requests that brought no session.
    pub(crate) futile: f64,
    /// The most hosts without a session at one time.
    pub(crate) without: f64,
    /// From the trouble's end to the last session, in seconds. `None` if some host still has none.
    pub(crate) recovery: Option<f64>,
    /// By time: seconds from the begin of the trouble, requests a second, hosts without a session.
    pub(crate) curve: Vec<(f64, f64, f64)>,
}

/// Hosts of the fleet.
pub(crate) const HOSTS: u32 = 100_000;

const LIVES: [u32; 3] = [1, 6, 12];
const QUOTAS: [u32; 3] = [10, 50, 100];
const TROUBLES: [Trouble; 5] = [
    Trouble::Outage(600.0),
    Trouble::Outage(3600.0),
    Trouble::Reboot,
    Trouble::Restart,
    Trouble::Revoked(0.5),
];

/// How long each case is watched after the trouble.
const WATCH: f64 = 4.0 * 3600.0;

/// The constants before make 9,400 requests a second: a tenth of fleet and quota shows as much.
const PREVIOUS_SCALE: u32 = 10;

/// Every trouble for every life and quota, and a role that is revoked for all.
pub(crate) fn all() -> Vec<Scenario> {
    let mut all = Vec::new();
    for trouble in TROUBLES {
        for (life, quota) in LIVES
            .into_iter()
            .flat_map(|life| QUOTAS.map(|quota| (life, quota)))
        {
            all.push(Scenario::new(life, quota, trouble));
        }
    }
    all.push(Scenario::new(1, 10, Trouble::Revoked(1.0)));
    all.push(Scenario::new(1, 100, Trouble::Revoked(1.0)));
    all
}

impl Scenario {
    fn new(life: u32, quota: u32, trouble: Trouble) -> Scenario {
        Scenario {
            life,
            quota,
            trouble,
            policy: None,
            previous: None,
        }
    }

    pub(crate) fn name(&self) -> String {
        let trouble = match self.trouble {
            Trouble::Outage(time) if time < 3600.0 => format!("outage of {:.0} min", time / 60.0),
            Trouble::Outage(time) => format!("outage of {:.0} h", time / 3600.0),
            Trouble::Reboot => "all hosts boot".to_owned(),
            Trouble::Restart => "all daemons restart".to_owned(),
            Trouble::Revoked(part) => format!("role revoked, {:.0} % of hosts", 100.0 * part),
        };
        format!("{trouble}, sessions of {} h, {}/s", self.life, self.quota)
    }

    /// Whether the quota carries the fleet at all: renewal is at five eighths of a life, on average.
    pub(crate) fn is_feasible(&self) -> bool {
        f64::from(HOSTS) <= 0.8 * f64::from(self.quota) * 0.625 * 3600.0 * f64::from(self.life)
    }

    pub(crate) fn simulate(mut self, seed: u64) -> Scenario {
        self.policy = Some(self.figures(Rule::Policy, 1, seed));
        self.previous = Some(self.figures(Rule::Previous, PREVIOUS_SCALE, seed));
        self
    }

    fn figures(&self, rule: Rule, scale: u32, seed: u64) -> Figures {
        let time = match self.trouble {
            Trouble::Outage(time) => time,
            _ => 0.0,
        };
        let outcome = run(
            &Run {
                hosts: HOSTS / scale,
                rule,
                life: 3600.0 * f64::from(self.life),
                quota: f64::from(self.quota) / f64::from(scale),
                trouble: self.trouble,
                horizon: BEGIN + time + WATCH,
            },
            seed,
        );
        Figures::of(&outcome, time, f64::from(scale))
    }
}

impl Figures {
    fn of(outcome: &Outcome, time: f64, scale: f64) -> Figures {
        let bin = |at: f64| (at / BIN) as usize;
        let from = |bins: &[u32], begin: f64, end: f64| -> f64 {
            let count = bin(end).saturating_sub(bin(begin));
            let bins = bins.iter().skip(bin(begin)).take(count);
            bins.map(|count| scale * f64::from(*count)).sum()
        };
        let recovery = outcome.recovered.map(|at| (at - BEGIN - time).max(0.0));
        let horizon = outcome.offered.len() as f64 * BIN;
        let end = match time > 0.0 {
            true => BEGIN + time,
            false => BEGIN + recovery.unwrap_or(WATCH).max(600.0),
        };
        let after = |bins: &[u32]| from(bins, BEGIN, horizon);
        let skip = bin(BEGIN);
        let offered = outcome.offered.iter().skip(skip);
        let peak = offered.clone().max().copied().unwrap_or(0);
        let without = outcome.without.iter().skip(skip);
        let times = (0..).map(|index| f64::from(index) * BIN);
        let curve = times.zip(offered.clone().zip(without.clone()));
        let outage = offered.take(bin(time)).max();
        Figures {
            outage_peak: scale * f64::from(outage.copied().unwrap_or(0)) / BIN,
            peak: scale * f64::from(peak) / BIN,
            mean: from(&outcome.offered, BEGIN, end) / (end - BEGIN),
            last_hour: from(&outcome.offered, horizon - 3600.0, horizon) / 3600.0,
            futile: after(&outcome.futile) / after(&outcome.offered).max(1.0),
            without: scale * without.max().copied().unwrap_or(0) as f64,
            recovery,
            curve: curve
                .map(|(at, (offered, without))| {
                    (
                        at,
                        scale * f64::from(*offered) / BIN,
                        scale * *without as f64,
                    )
                })
                .collect(),
        }
    }
}
