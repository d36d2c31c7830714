//! When an identity's certificate is renewed, and how that went so far. Time is an argument.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use config::certificate::{CertificateSource, Stamp};
use config::renewal::{self, Present, Report, Settings};

/// Of one identity, for as long as its configuration has settings for it.
#[derive(Debug)]
pub struct Schedule(Mutex<State>);

#[derive(Debug)]
struct State {
    settings: Settings,
    source: CertificateSource,
    running: bool,
    seen: Option<(Stamp, Seen)>,
    /// It is not tried before.
    next: Option<Instant>,
    /// Failures in a row.
    failures: u32,
    failure: Option<Failure>,
    /// The last one that was renewed.
    renewed: Option<Renewed>,
    objection: Option<String>,
}

#[derive(Debug)]
struct Renewed {
    at: Timestamp,
    not_after: Timestamp,
}

/// What the files were like at the last look.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    /// There is a request, and no certificate.
    Nothing,
    Certificate {
        not_before: Timestamp,
        not_after: Timestamp,
    },
    Fault(String),
}

#[derive(Debug)]
struct Failure {
    at: Timestamp,
    why: String,
    again: Timestamp,
}

/// After the first failure; then twice as long each time.
const SHORTEST_DELAY: Duration = Duration::from_secs(60);

/// A CA that is back is asked within the hour.
const LONGEST_DELAY: Duration = Duration::from_secs(3600);

impl Schedule {
    /// Nothing is known yet.
    pub fn new(settings: Settings, source: CertificateSource) -> Schedule {
        Schedule(Mutex::new(State {
            settings,
            source,
            running: false,
            seen: None,
            next: None,
            failures: 0,
            failure: None,
            renewed: None,
            objection: None,
        }))
    }

    /// An operator has reloaded: these hold from now on, and what waits for its next try is tried now.
    pub(crate) fn reset(&self, settings: Settings, source: CertificateSource) {
        let mut state = self.lock();
        *state = State {
            settings,
            source,
            running: state.running,
            seen: None,
            next: None,
            failures: 0,
            failure: state.failure.take(),
            renewed: state.renewed.take(),
            objection: None,
        };
    }

    /// Looks at the files, if they have changed. Says so if they show a new fault.
    pub(super) fn look(&self) -> Option<String> {
        let mut state = self.lock();
        let csr = state.settings.csr.clone();
        let stamp = Stamp::of(state.source.files().chain([csr.as_path()]));
        let certificate = renewal::file(&state.source).ok();
        state.objection = certificate.and_then(renewal::objection_to_writing);
        if state.seen.as_ref().is_some_and(|(last, _)| *last == stamp) {
            return None;
        }
        let now = match Present::read(&state.source, &state.settings) {
            Err(fault) => Seen::Fault(fault),
            Ok(present) => match present.certificate {
                None => Seen::Nothing,
                Some(certificate) => Seen::Certificate {
                    not_before: certificate.not_before,
                    not_after: certificate.not_after,
                },
            },
        };
        let before = state.seen.replace((stamp, now.clone()));
        match now {
            Seen::Fault(fault)
                if before.is_none_or(|(_, last)| last != Seen::Fault(fault.clone())) =>
            {
                Some(fault)
            }
            _ => None,
        }
    }

    /// Begins a renewal if it is time for one.
    #[must_use]
    pub(super) fn begin(&self, now: Timestamp, at: Instant) -> bool {
        let mut state = self.lock();
        let due = match &state.seen {
            None | Some((_, Seen::Fault(_))) => false,
            Some((_, Seen::Nothing)) => true,
            Some((
                _,
                Seen::Certificate {
                    not_before,
                    not_after,
                },
            )) => now >= state.due_at(*not_before, *not_after),
        };
        let waits = state.next.is_some_and(|next| at < next);
        let begins = due && !waits && !state.running;
        state.running |= begins;
        begins
    }

    /// Whether one is under way.
    pub(super) fn is_running(&self) -> bool {
        self.lock().running
    }

    /// How long one may take.
    pub(super) fn timeout(&self) -> Duration {
        self.lock().settings.timeout
    }

    /// It was not begun after all, and is to be in a while.
    pub(super) fn postpone(&self, delay: Duration, at: Instant) {
        let mut state = self.lock();
        state.running = false;
        state.next = Some(at + delay);
    }

    /// It is over. `random`, from 0 to 1, keeps hosts from asking a CA that was away at the same time.
    pub(super) fn finish(&self, report: &Report, now: Timestamp, at: Instant, random: f64) {
        let mut state = self.lock();
        state.running = false;
        let delay = match report {
            Report::Failed(why) => {
                let doubled = SHORTEST_DELAY.saturating_mul(1 << state.failures.min(16));
                let delay = doubled.min(LONGEST_DELAY).mul_f64(1.0 - 0.2 * random);
                state.failures = state.failures.saturating_add(1);
                state.failure = Some(Failure {
                    at: now,
                    why: why.clone(),
                    again: now.saturating_add(delay).unwrap_or(now),
                });
                delay
            }
            // The file says the same in a moment.
            Report::NotDue => SHORTEST_DELAY,
            Report::Renewed { not_after, .. } => {
                (state.failures, state.failure) = (0, None);
                let not_after = *not_after;
                state.renewed = Some(Renewed { at: now, not_after });
                SHORTEST_DELAY
            }
        };
        state.next = Some(at + delay);
    }

    /// What an operator should look at.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let state = self.lock();
        let fault = match &state.seen {
            Some((_, Seen::Fault(fault))) => Some(format!("it cannot be renewed: {fault}")),
            _ => None,
        };
        let failure = state.failure.as_ref().map(|failure| {
            let Failure { at, why, again } = failure;
            let again = match state.running {
                true => "tried again now".to_owned(),
                false => format!("tried again at {again:.0}"),
            };
            format!("renewal failed at {at:.0}: {why}; {again}")
        });
        fault
            .into_iter()
            .chain(failure)
            .chain(state.objection.clone())
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// A certificate may be so short that it is due again at once. It is renewed when a third of its time is
    /// left, as one without `before`.
    fn due_at(&self, not_before: Timestamp, not_after: Timestamp) -> Timestamp {
        let due = self.settings.due_at(not_before, not_after);
        match &self.renewed {
            Some(last) if last.not_after == not_after && due <= last.at => {
                let left = Duration::try_from(last.at.duration_until(not_after));
                let wait = left.unwrap_or_default() * 2 / 3;
                last.at.saturating_add(wait).unwrap_or(due)
            }
            _ => due,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use config::certificate::LeafSource;

    const DAY: i64 = 86_400;

    /// Of a certificate that lives from day 0 to day 30, renewed 10 days before its end.
    fn schedule() -> Schedule {
        let settings = Settings {
            command: "true".to_owned(),
            before: Some(Duration::from_secs(10 * DAY as u64)),
            csr: "/nonexistent/web.csr".into(),
            timeout: Duration::from_secs(1),
        };
        let source = CertificateSource {
            leaf: LeafSource::File("/nonexistent/web.pem".into()),
            chain: None,
        };
        let schedule = Schedule::new(settings, source);
        see(&schedule, 0, 30);
        schedule
    }

    fn see(schedule: &Schedule, from: i64, until: i64) {
        let seen = Seen::Certificate {
            not_before: day(from),
            not_after: day(until),
        };
        schedule.lock().seen = Some((Stamp::of([].into_iter()), seen));
    }

    fn day(number: i64) -> Timestamp {
        Timestamp::from_second(number * DAY).unwrap()
    }

    fn renewed(until: i64) -> Report {
        let serial = "1".to_owned();
        let not_after = day(until);
        Report::Renewed { serial, not_after }
    }

    #[test]
    fn it_begins_when_it_is_due_and_once() {
        let (schedule, at) = (schedule(), Instant::now());
        assert!(!schedule.begin(day(19), at));
        assert!(schedule.begin(day(20), at));
        assert!(!schedule.begin(day(20), at));
        schedule.finish(&renewed(50), day(20), at, 0.5);
        see(&schedule, 20, 50);
        let later = at + Duration::from_secs(20 * DAY as u64);
        assert!(!schedule.begin(day(39), later));
        assert!(schedule.begin(day(40), later));
    }

    #[test]
    fn failures_wait_longer_each_time_and_show() {
        let (schedule, at) = (schedule(), Instant::now());
        let failed = Report::Failed("no CA".to_owned());
        for (random, seconds) in [(0.0, 60), (1.0, 96), (0.0, 240), (0.5, 432)]
            .into_iter()
            .chain([(0.0, 960), (0.0, 1920), (0.0, 3600), (1.0, 2880)])
            .chain((0..40).map(|_| (0.0, 3600)))
        {
            schedule.lock().next = None;
            assert!(schedule.begin(day(25), at));
            schedule.finish(&failed, day(25), at, random);
            let next = at + Duration::from_secs(seconds);
            assert!(!schedule.begin(day(25), next - Duration::from_secs(1)));
            assert_eq!(schedule.lock().next, Some(next));
        }
        assert_eq!(
            schedule.warnings(),
            ["renewal failed at 1970-01-26T00:00:00Z: no CA; tried again at 1970-01-26T01:00:00Z"]
        );
        let later = at + Duration::from_secs(3600);
        assert!(schedule.begin(day(25), later));
        assert!(schedule.warnings()[0].ends_with("no CA; tried again now"));
        schedule.finish(&renewed(60), day(25), later, 0.0);
        assert_eq!(schedule.warnings(), [""; 0]);
    }

    /// The CA's certificates are shorter than the time before their end: no loop.
    #[test]
    fn short_certificates_are_renewed_when_a_third_is_left() {
        let (schedule, at) = (schedule(), Instant::now());
        assert!(schedule.begin(day(25), at));
        schedule.finish(&renewed(31), day(25), at, 0.0);
        see(&schedule, 25, 31);
        let days = |number: u64| Duration::from_secs(number * DAY as u64);
        assert!(!schedule.begin(day(28), at + days(3)));
        assert!(schedule.begin(day(29), at + days(4)));
        schedule.finish(&renewed(29), day(29), at, 0.0);
        assert!(!schedule.begin(day(29), at + Duration::from_secs(59)));
        assert!(schedule.begin(day(29), at + Duration::from_secs(60)));
    }

    /// Others are renewed as the settings say, and what comes in their place is looked at anew.
    #[test]
    fn a_success_puts_nothing_off() {
        let (schedule, at) = (schedule(), Instant::now());
        schedule.lock().settings.before = Some(Duration::from_secs(20 * DAY as u64));
        assert!(schedule.begin(day(10), at));
        schedule.finish(&renewed(40), day(10), at, 0.0);
        see(&schedule, 10, 40);
        let days = |number: u64| at + Duration::from_secs(number * DAY as u64);
        assert!(!schedule.begin(day(19), days(9)));
        assert!(schedule.begin(day(20), days(10)));
        schedule.finish(&renewed(50), day(20), days(10), 0.0);
        schedule.lock().seen = Some((Stamp::of([].into_iter()), Seen::Nothing));
        assert!(!schedule.begin(day(20), days(10)));
        assert!(schedule.begin(day(21), days(11)));
    }

    #[test]
    fn a_reload_and_a_deleted_certificate_are_tried_at_once_and_a_fault_is_not() {
        let (schedule, at) = (schedule(), Instant::now());
        assert!(schedule.begin(day(25), at));
        schedule.finish(&Report::Failed("no".to_owned()), day(25), at, 0.0);
        let (settings, source) = {
            let state = schedule.lock();
            (state.settings.clone(), state.source.clone())
        };
        schedule.reset(settings, source);
        assert!(!schedule.begin(day(25), at)); // it has not looked yet
        assert_eq!(schedule.warnings().len(), 1);
        schedule.lock().seen = Some((Stamp::of([].into_iter()), Seen::Nothing));
        assert!(schedule.begin(day(25), at));
        schedule.postpone(Duration::from_secs(9), at);
        assert!(!schedule.begin(day(25), at));
        let later = at + Duration::from_secs(9);
        let fault = schedule.look().unwrap();
        assert!(fault.contains("/nonexistent/web.csr"), "{fault}");
        assert_eq!(schedule.look(), None);
        assert!(!schedule.begin(day(25), later));
        let warnings = schedule.warnings();
        assert!(
            warnings[0].starts_with("it cannot be renewed"),
            "{warnings:?}"
        );
        assert!(warnings[2].contains("cannot be put into"), "{warnings:?}");
    }
}
