//! Profiles that are kept fresh until somebody ends this: a thread for each target asks, this one writes.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use client::Diagnostic;
use client::moment::Moment;
use client::progress::{self, Progress};
use client::refresher::{self, SessionRefresher, Start, Status};
use client::retry::Backoff;
use client::session::Session;
use client::sessions::Sessions;
use jiff::Timestamp;
use sd_notify::NotifyState;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::{Pair, UpdateError};
use crate::credentials_file::{CredentialsFile, FileError, ProfileName};
use crate::endpoint::{Metrics, MetricsServer, RunningMetricsServer, Scrape, Snapshot};

/// Whoever reads credentials a second before their end can use them no more: they go then.
const LAST: Duration = Duration::from_secs(1);

/// A full disk or a broken file takes somebody's work: once it is done, it should be noticed within a minute.
const BACKOFF: Backoff = Backoff {
    base: Duration::from_secs(1),
    cap: Duration::from_secs(60),
};

/// While a machine sleeps, so does the clock of waits, but not the one of sessions; and that one may be set:
/// look now and then.
const LOOK: Duration = Duration::from_secs(30);

enum Event {
    /// How it stands with the session of that profile, by its place in the list.
    Told(usize, Status),
    Stop,
}

/// Until SIGTERM or SIGINT.
pub(super) fn keep(
    file: CredentialsFile,
    pairs: Vec<Pair>,
    sessions: Sessions,
    start: Start,
    metrics_server: Option<MetricsServer>,
    progress: Progress,
) -> Result<(), UpdateError> {
    let (tell, events) = mpsc::channel();
    stop_by_signal(tell.clone())?;
    let sessions = Arc::new(sessions);
    let metrics = Arc::new(Metrics::default());
    let (mut profiles, mut refreshers) = (Vec::new(), Vec::new());
    for (index, pair) in pairs.into_iter().enumerate() {
        let tell = tell.clone();
        let counts = metrics.target(pair.target.shown());
        let told = move |event: refresher::Event| {
            let status = match event {
                refresher::Event::Ended(status) => {
                    counts.tried(status);
                    status
                }
                refresher::Event::Cached(status) => status,
                refresher::Event::Checked => return,
            };
            let _ = tell.send(Event::Told(index, status.clone())); // at the end nobody listens
        };
        let one = SessionRefresher::start(Arc::clone(&sessions), pair.target, start, told);
        refreshers.push(one?);
        profiles.push(Profile::new(pair.profile));
    }
    let refreshers = Arc::new(refreshers);
    let _running = serve_metrics(metrics_server, &metrics, &refreshers, &progress)?;
    let mut keeper = ProfileRefresher {
        file,
        profiles,
        progress,
        ready: false,
    };
    keeper.run(&events, &refreshers);
    let _ = sd_notify::notify(&[NotifyState::Stopping]); // only if systemd asked for it
    Ok(())
}

fn serve_metrics(
    server: Option<MetricsServer>,
    metrics: &Arc<Metrics>,
    refreshers: &Arc<Vec<SessionRefresher>>,
    progress: &Progress,
) -> io::Result<Option<RunningMetricsServer>> {
    let refreshers = Arc::clone(refreshers);
    let target = |one: &SessionRefresher| (one.target().shown().to_owned(), vec![one.status()]);
    let snapshot = move || Snapshot {
        targets: refreshers.iter().map(target).collect(),
        keys: None,
    };
    let scrape = Scrape::new(metrics, snapshot);
    server.map(|one| one.start(scrape, progress)).transpose()
}

fn stop_by_signal(tell: Sender<Event>) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    thread::Builder::new().spawn(move || {
        for _ in signals.forever() {
            let _ = tell.send(Event::Stop);
        }
    })?;
    Ok(())
}

struct ProfileRefresher {
    file: CredentialsFile,
    profiles: Vec<Profile>,
    progress: Progress,
    /// Every profile has been written.
    ready: bool,
}

impl ProfileRefresher {
    fn run(&mut self, events: &Receiver<Event>, refreshers: &[SessionRefresher]) {
        loop {
            self.tend();
            // What is in the file is handed out all the time.
            refreshers.iter().for_each(SessionRefresher::check);
            match events.recv_timeout(self.wait()) {
                Ok(Event::Told(index, status)) => {
                    if let Some(profile) = self.profiles.get_mut(index) {
                        profile.hear(status, Moment::now());
                    }
                }
                Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    fn tend(&mut self) {
        let mut changed = false;
        for profile in &mut self.profiles {
            let now = Moment::now();
            if let Some(task) = profile.task(now) {
                let outcome = carry_out(&task, profile, &self.file, &self.progress);
                profile.note(&task, outcome, now);
                changed = true;
            }
        }
        if changed {
            self.tell_systemd();
        }
    }

    fn tell_systemd(&mut self) {
        let states: Vec<_> = self.profiles.iter().map(Profile::shown).collect();
        let status = states.join("; ");
        let mut states = vec![NotifyState::Status(&status)];
        if !self.ready
            && self
                .profiles
                .iter()
                .all(|profile| profile.written.is_some())
        {
            self.ready = true;
            states.push(NotifyState::Ready);
        }
        let _ = sd_notify::notify(&states); // only if systemd asked for it
    }

    fn wait(&self) -> Duration {
        let now = Moment::now();
        let waits = self.profiles.iter().filter_map(|profile| profile.wait(now));
        waits.min().map_or(LOOK, |wait| wait.min(LOOK))
    }
}

fn carry_out(
    task: &Task,
    profile: &Profile,
    file: &CredentialsFile,
    progress: &Progress,
) -> Result<(), FileError> {
    let name = &profile.name;
    match task {
        Task::Put(session) => {
            file.put([(name, &**session)])?;
            progress.say(&written(name, session, file));
        }
        Task::Withdraw(end) => {
            if file.withdraw(name, *end)? {
                progress::note(&withdrawn(name, file));
            }
        }
    }
    Ok(())
}

/// What is said of a profile that has been written.
pub(super) fn written(name: &ProfileName, session: &Session, file: &CredentialsFile) -> String {
    let (path, end) = (file.path().display(), session.credentials.expiration);
    format!("profile {name}: credentials until {end:.0} are in {path}")
}

/// What is said of a profile that has no credentials any more.
pub(super) fn withdrawn(name: &ProfileName, file: &CredentialsFile) -> String {
    let path = file.path().display();
    format!(
        "profile {name}: its credentials have ended or are not permitted any more, and are no longer in {path}"
    )
}

struct Profile {
    name: ProfileName,
    /// The latest that there is.
    session: Option<Arc<Session>>,
    /// The one that is in the file.
    written: Option<Arc<Session>>,
    /// The file has no credentials of ours that have ended.
    clean: bool,
    /// The agent refuses the session: what an earlier run has written goes as well.
    forbidden: bool,
    /// Tries to change the file that failed.
    failures: u32,
    /// No other before that.
    next: Option<Instant>,
}

/// What has to be done to the file.
#[derive(Debug, Clone)]
enum Task {
    Put(Arc<Session>),
    /// What ends by then.
    Withdraw(Timestamp),
}

impl Profile {
    fn new(name: ProfileName) -> Profile {
        Profile {
            name,
            session: None,
            written: None,
            clean: false,
            forbidden: false,
            failures: 0,
            next: None,
        }
    }

    fn hear(&mut self, status: Status, now: Moment) {
        // Once, twice, four times …: the log shall say it, and not be full of it.
        if let Some(failure) = status
            .failure
            .as_ref()
            .filter(|f| f.tries.is_power_of_two())
        {
            let until = match status.session.as_ref().filter(|s| s.valid(now)) {
                Some(session) => {
                    format!(
                        "The present credentials end at {:.0}.",
                        session.credentials.expiration
                    )
                }
                None => "There are no credentials.".to_owned(),
            };
            progress::note(&format!(
                "profile {}: {}\n{until} Failed since {:.0}; the next try is at {:.0}.",
                self.name,
                failure.error.report(),
                failure.since,
                status.next(now).unwrap_or(now.wall)
            ));
        }
        let by_agent = status
            .failure
            .as_ref()
            .filter(|failure| failure.error.refused_by_agent());
        if status.session.is_none() && by_agent.is_some() && !self.forbidden {
            (self.forbidden, self.clean) = (true, false);
        }
        self.forbidden &= by_agent.is_some();
        self.session = status.session;
    }

    /// What is to be done at `now`.
    fn task(&self, now: Moment) -> Option<Task> {
        self.pending(now)
            .filter(|_| self.next.is_none_or(|next| next <= now.steady))
    }

    fn pending(&self, now: Moment) -> Option<Task> {
        match &self.session {
            Some(session) if session.left(now) > LAST => {
                let written = self.written.as_ref();
                let missing = !written.is_some_and(|written| Arc::ptr_eq(written, session));
                missing.then(|| Task::Put(Arc::clone(session)))
            }
            session => {
                // It has ended, also where a clock that was set back says that it has not.
                // Where there is none any more, the agent has withdrawn its permission for what was written.
                let end = session
                    .as_ref()
                    .or(self.written.as_ref())
                    .map(|session| session.credentials.expiration);
                let by_clock = now.wall + LAST;
                let end = match self.forbidden {
                    true => Timestamp::MAX,
                    false => end.map_or(by_clock, |end| end.max(by_clock)),
                };
                (!self.clean).then_some(Task::Withdraw(end))
            }
        }
    }

    fn note(&mut self, task: &Task, outcome: Result<(), FileError>, now: Moment) {
        if let Err(error) = outcome {
            self.failures = self.failures.saturating_add(1);
            let pause = BACKOFF.steady_pause(self.failures, fastrand::f64());
            self.next = Some(now.steady + pause);
            if self.failures.is_power_of_two() {
                progress::note(&format!("profile {}: {}", self.name, error.report()));
            }
            return;
        }
        (self.failures, self.next) = (0, None);
        match task {
            Task::Put(session) => {
                self.written = Some(Arc::clone(session));
                self.clean = false;
            }
            Task::Withdraw(_) => {
                self.written = None;
                self.clean = true;
            }
        }
    }

    /// How long until there is something to do, if nobody tells of anything before.
    fn wait(&self, now: Moment) -> Option<Duration> {
        if self.pending(now).is_some() {
            let next = self.next.unwrap_or(now.steady);
            return Some(next.saturating_duration_since(now.steady));
        }
        let session = self.session.as_ref()?;
        session.left(now).checked_sub(LAST)
    }

    fn shown(&self) -> String {
        match &self.written {
            Some(session) => format!("{} until {:.0}", self.name, session.credentials.expiration),
            None => format!("{} has no credentials", self.name),
        }
    }
}

#[cfg(test)]
mod tests;
