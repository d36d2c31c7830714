//! `roleseal-admin renew`: once, as a timer starts it, or until it is ended.

mod renewal;

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use config::user_database::SystemUsers;
use config::{Config, IdentityName};
use jiff::Timestamp;
use signal_hook::consts::SIGTERM;

use crate::command::Stop;
use crate::failure::Failure;
use crate::output;
use renewal::{NotRenewed, Renewal, Report};

/// Renew the certificates that are due, by the commands in the configuration
///
/// Renews each identity that has `renew` in the configuration and is due, one after the other. The command reads the CSR
/// from standard input and writes the new certificate to standard output. Its output is checked before it replaces the
/// previous certificate, and a running agent loads it. Run this as the agent's user, from the package's timer or by hand.
///
/// Exit status: 0 renewed or not due; 1 at least one renewal failed, its certificate is unchanged; 2 wrong arguments, or an
/// identity without `renew`.
#[derive(Debug, clap::Args)]
pub(crate) struct RenewArguments {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = "/etc/roleseal/agent.toml")]
    config: PathBuf,

    /// Renew only this identity; may be repeated
    #[arg(long = "identity", value_name = "NAME")]
    identities: Vec<IdentityName>,

    /// Renew certificates that are not due, too
    #[arg(long, conflicts_with = "watch")]
    force: bool,

    /// Show which certificates are due, without a renewal
    #[arg(long, conflicts_with = "watch")]
    dry_run: bool,

    /// Renew certificates whenever they are due, until ended by a signal
    #[arg(long)]
    watch: bool,
}

/// How often `--watch` looks whether something is due.
const INTERVAL: Duration = Duration::from_secs(60);

/// After the first failure of an identity; then twice as long each time.
const SHORTEST_DELAY: Duration = Duration::from_secs(60);

/// A CA that is back is asked within the hour.
const LONGEST_DELAY: Duration = Duration::from_secs(3600);

impl RenewArguments {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        // Before anything is started that it would have to end.
        let stop = Stop::new().map_err(|error| Failure::failed(error.to_string()))?;
        let config = self.load()?;
        let renewals = self.choose(&config)?;
        if self.watch {
            return self.watch(config, &stop);
        }
        if renewals.is_empty() {
            let file = self.config.display();
            return output::print(&format!(
                "{file}: no identity has renew = {{ command = … }}\n"
            ));
        }
        let mut failed = 0;
        for renewal in &renewals {
            let done = match self.dry_run {
                true => show(renewal).map_err(NotRenewed::Failed),
                false => renewal.run(self.force, &stop).map(|report| said(&report)),
            };
            match done {
                Ok(text) => output::print(&format!("{}: {text}\n", renewal.name))?,
                Err(NotRenewed::Failed(why)) => {
                    failed += 1;
                    output::note(&not_renewed(renewal, &why));
                }
                Err(NotRenewed::Stopped) => {}
            }
            if stop.is_asked_for() {
                return Err(Failure::Interrupted(SIGTERM)); // what is left is for the next time
            }
        }
        match failed {
            0 => Ok(()),
            _ => Err(Failure::Told),
        }
    }

    fn load(&self) -> Result<Config, Failure> {
        Config::load(&self.config, &SystemUsers).map_err(|error| Failure::failed(error.to_string()))
    }

    fn choose<'a>(&self, config: &'a Config) -> Result<Vec<Renewal<'a>>, Failure> {
        if self.identities.is_empty() {
            return Ok(config.identities.iter().filter_map(Renewal::of).collect());
        }
        let file = self.config.display();
        let find = |name: &IdentityName| {
            let name = name.to_string();
            let identity = config.identities.iter().find(|one| one.name == name);
            let identity = identity.ok_or_else(|| {
                Failure::usage(format!(
                    "cannot renew {name}: no identity of that name in {file}"
                ))
            })?;
            Renewal::of(identity).ok_or_else(|| {
                Failure::usage(format!(
                    "cannot renew {name}: no renew = {{ command = … }} for it in {file}"
                ))
            })
        };
        self.identities.iter().map(find).collect()
    }

    /// A later fault in the configuration keeps the previous one, as in the agent.
    fn watch(&self, mut config: Config, stop: &Stop) -> Result<(), Failure> {
        let mut retries = HashMap::new();
        let mut fault = None;
        loop {
            for renewal in self.choose(&config)? {
                let retry: &mut Retry = retries.entry(renewal.name.to_owned()).or_default();
                if !retry.is_time(Instant::now()) {
                    continue;
                }
                match renewal.run(false, stop) {
                    Ok(Report::NotDue(_)) => retry.reset(),
                    Ok(report) => {
                        retry.reset();
                        output::print(&format!("{}: {}\n", renewal.name, said(&report)))?;
                    }
                    Err(NotRenewed::Stopped) => return Ok(()),
                    Err(NotRenewed::Failed(why)) => {
                        let delay = retry.failed(Instant::now(), fastrand::f64());
                        let why = not_renewed(&renewal, &why);
                        output::note(&format!("{why}; retrying in {} s", delay.as_secs()));
                    }
                }
            }
            if stop.pause(Instant::now() + INTERVAL).is_err() {
                return Ok(());
            }
            let loaded = self
                .load()
                .and_then(|new| self.choose(&new).map(drop).map(|()| new));
            match loaded {
                Ok(new) => (config, fault) = (new, None),
                Err(now) => {
                    let now = now.to_string();
                    if fault.as_ref() != Some(&now) {
                        output::note(&format!("{now}; keeping the previous configuration"));
                    }
                    fault = Some(now);
                }
            }
        }
    }
}

/// When an identity that failed is tried again.
#[derive(Debug, Default)]
struct Retry {
    failures: u32,
    next: Option<Instant>,
}

impl Retry {
    fn is_time(&self, now: Instant) -> bool {
        self.next.is_none_or(|next| next <= now)
    }

    fn reset(&mut self) {
        *self = Retry::default();
    }

    /// `random`, from 0 to 1, keeps hosts from asking a CA that was away at the same time.
    fn failed(&mut self, now: Instant, random: f64) -> Duration {
        let doubled = SHORTEST_DELAY.saturating_mul(1 << self.failures.min(16));
        let delay = doubled.min(LONGEST_DELAY).mul_f64(1.0 - 0.2 * random);
        self.failures = self.failures.saturating_add(1);
        self.next = Some(now + delay);
        delay
    }
}

fn show(renewal: &Renewal) -> Result<String, String> {
    Ok(match renewal.due_at()? {
        Some(due) if Timestamp::now() < due => format!("not due until {due:.0}"),
        _ => format!("due; would run: {}", renewal.command()),
    })
}

fn said(report: &Report) -> String {
    match report {
        Report::Renewed { serial, not_after } => {
            format!("renewed: serial {serial}, valid until {not_after}")
        }
        Report::NotDue(due) => format!("not due until {due:.0}; --force renews it now"),
        Report::UnderWay => "another renewal of it is in progress".to_owned(),
    }
}

fn not_renewed(renewal: &Renewal, why: &str) -> String {
    format!("cannot renew {}: {why}", renewal.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_an_hour() {
        let now = Instant::now();
        let mut retry = Retry::default();
        assert!(retry.is_time(now));
        for minutes in [1, 2, 4, 8, 16, 32, 60, 60] {
            let delay = retry.failed(now, 0.0);
            assert_eq!(delay, Duration::from_secs(minutes * 60));
            assert!(!retry.is_time(now + delay / 2));
            assert!(retry.is_time(now + delay));
        }
        retry.reset();
        assert_eq!(retry.failed(now, 1.0), Duration::from_secs(48));
    }
}
