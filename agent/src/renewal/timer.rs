//! Sees when an identity's certificate is due, and has the launcher renew it.

use std::io::{self, Read};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::{Report, Schedule};
use crate::agent::Agent;
use crate::audit::{self, Level};
use crate::launcher::{Launcher, Renewal};
use crate::panics::contain;

/// Looks after all identities, in a thread of its own.
#[derive(Debug)]
pub struct Timer {
    agent: Arc<Agent>,
    launcher: Launcher,
}

/// How often it looks. What it does then costs microseconds.
const INTERVAL: Duration = Duration::from_secs(1);

/// The most renewals at a time: after a long pause all may be due, and a CA is no place for a crowd.
const LIMIT: usize = 4;

/// Beyond the command's own time: to start, to wait for a CA whose clock is ahead, to write.
const SLACK: Duration = Duration::from_secs(90);

/// The longest report, in bytes. Beside an error of the configuration it holds little.
const REPORT_LIMIT: u64 = 64 * 1024;

/// Of a failure's text, what is kept and shown, in characters.
const SHOWN: usize = 500;

impl Timer {
    /// Starts to look.
    pub fn start(agent: &Arc<Agent>, launcher: Launcher) -> io::Result<()> {
        let timer = Timer {
            agent: Arc::clone(agent),
            launcher,
        };
        std::thread::Builder::new()
            .name("renewal".to_owned())
            .spawn(move || timer.run())?;
        Ok(())
    }

    fn run(&self) {
        loop {
            contain(|| self.look());
            std::thread::sleep(INTERVAL);
        }
    }

    fn look(&self) {
        let identities = self.agent.identities();
        let all = || {
            let schedule = |identity: &crate::identity::Identity| {
                let schedule = Arc::clone(identity.renewal()?);
                Some((identity.name.clone(), schedule))
            };
            identities.iter().filter_map(schedule)
        };
        let mut running = all().filter(|(_, schedule)| schedule.is_running()).count();
        for (name, schedule) in all() {
            if let Some(fault) = schedule.look() {
                say(Level::Warn, "not_renewable", &name, &[("message", &fault)]);
            }
            if running < LIMIT && schedule.begin(Timestamp::now(), Instant::now()) {
                running += 1;
                self.start_one(name, schedule);
            }
        }
    }

    fn start_one(&self, name: String, schedule: Arc<Schedule>) {
        let (agent, launcher) = (Arc::clone(&self.agent), self.launcher.clone());
        let own = Arc::clone(&schedule);
        let renew = move || renew(&agent, &launcher, &name, &own);
        let thread = std::thread::Builder::new().name("renewal".to_owned());
        if thread.spawn(renew).is_err() {
            schedule.postpone(INTERVAL, Instant::now()); // there will be threads again
        }
    }
}

/// Has it renewed, and says how that went.
fn renew(agent: &Agent, launcher: &Launcher, name: &str, schedule: &Schedule) {
    let deadline = Instant::now() + schedule.timeout() + SLACK;
    let report = match launcher.renew(name) {
        Ok(Renewal::Later(delay)) => return schedule.postpone(delay, Instant::now()),
        Ok(Renewal::Started(link)) => {
            say(Level::Info, "renewing", name, &[]);
            let report = read(&link, deadline);
            // One that is late ends: the launcher has this end of the link open, too.
            let _ = link.shutdown(Shutdown::Both);
            report
        }
        Err(error) => Report::Failed(error),
    };
    let report = shortened(report);
    schedule.finish(&report, Timestamp::now(), Instant::now(), fastrand::f64());
    match &report {
        Report::Renewed { serial, not_after } => {
            agent.metrics.renewed(name, true);
            let until = not_after.to_string();
            let fields = [("serial", serial.as_str()), ("until", &until)];
            say(Level::Info, "certificate_issued", name, &fields);
        }
        Report::NotDue => {}
        Report::Failed(why) => {
            agent.metrics.renewed(name, false);
            say(Level::Warn, "renewal_failed", name, &[("message", why)]);
        }
    }
}

/// What its program reports before it ends.
fn read(mut link: &UnixStream, deadline: Instant) -> Report {
    let mut text = Vec::new();
    let mut part = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || text.len() as u64 > REPORT_LIMIT {
            return Report::Failed("it did not end in time, or says too much".to_owned());
        }
        match link
            .set_read_timeout(Some(left))
            .and_then(|()| link.read(&mut part))
        {
            Ok(0) => break,
            Ok(count) => text.extend(part.iter().take(count)),
            // Its time has come, or a signal has.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Report::Failed(format!("its program is lost: {error}")),
        }
    }
    let lost = "its program ended without a word: the log may have more";
    serde_json::from_slice(&text).unwrap_or_else(|_| Report::Failed(lost.to_owned()))
}

fn shortened(report: Report) -> Report {
    match report {
        Report::Failed(why) => Report::Failed(why.chars().take(SHOWN).collect()),
        other => other,
    }
}

fn say(level: Level, event: &str, identity: &str, fields: &[(&'static str, &str)]) {
    let mut all = vec![("identity", identity.into())];
    all.extend(fields.iter().map(|(name, text)| (*name, (*text).into())));
    audit::event(level, event, all);
}
