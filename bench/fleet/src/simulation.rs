//! Hosts and AWS, event by event, in simulated seconds.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use client::refresh_policy::{AtHand, Schedule, Setback, SetbackKind};
use fastrand::Rng;

use crate::previous::Previous;
use crate::service::{Answer, Service};

/// A fleet, the trouble that it meets, and for how long both are watched.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) hosts: u32,
    pub(crate) rule: Rule,
    /// A session's life, in seconds.
    pub(crate) life: f64,
    /// Requests a second.
    pub(crate) quota: f64,
    pub(crate) trouble: Trouble,
    /// When the watch ends.
    pub(crate) horizon: f64,
}

/// Who decides when the next request is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// The client's policy.
    Policy,
    /// The constants before it.
    Previous,
}

/// It begins at [`BEGIN`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Trouble {
    /// AWS does not answer for so many seconds.
    Outage(f64),
    /// All hosts boot, and have no cache.
    Reboot,
    /// All daemons start again, and have their cache.
    Restart,
    /// AWS refuses that part of the fleet for ever.
    Revoked(f64),
}

/// When the trouble begins: the fleet has found its order by then.
pub(crate) const BEGIN: f64 = 1800.0;

/// The splay of daemons under systemd.
const SPLAY: Duration = Duration::from_secs(30);

/// The width of a bin, in seconds.
pub(crate) const BIN: f64 = 10.0;

/// How it went.
pub(crate) struct Outcome {
    /// Requests in each bin.
    pub(crate) offered: Vec<u32>,
    /// Those of them that brought no session.
    pub(crate) futile: Vec<u32>,
    /// Hosts that should have a session and have none, at the end of each bin.
    pub(crate) without: Vec<i64>,
    /// When the last of them got one; `None` if some have none at the horizon.
    pub(crate) recovered: Option<f64>,
}

/// Runs once: the same seed brings the same outcome.
pub(crate) fn run(run: &Run, seed: u64) -> Outcome {
    let mut fleet = Fleet::new(run, seed);
    while let Some(Reverse((time, index))) = fleet.events.pop() {
        if time >= micros(run.horizon) {
            break;
        }
        fleet.event(time as f64 / 1e6, index);
    }
    fleet.outcome()
}

struct Fleet<'r> {
    run: &'r Run,
    random: Rng,
    service: Service,
    hosts: Vec<Host>,
    /// The next event of each host, by time in microseconds.
    events: BinaryHeap<Reverse<(u64, u32)>>,
    offered: Vec<u32>,
    futile: Vec<u32>,
    /// What changes in the number of hosts without a session, by bin.
    changes: Vec<i64>,
    last: f64,
}

#[derive(Clone, Copy)]
struct Host {
    schedule: Schedule,
    previous: Previous,
    /// When the session was created.
    begin: f64,
    end: f64,
    /// AWS will refuse it.
    revoked: bool,
    /// It has met the trouble that hosts make themselves.
    started: bool,
}

impl Fleet<'_> {
    fn new(run: &Run, seed: u64) -> Fleet<'_> {
        let bins = (run.horizon / BIN) as usize + 1;
        let mut fleet = Fleet {
            run,
            random: Rng::with_seed(seed),
            service: Service::new(run.quota),
            hosts: Vec::new(),
            events: BinaryHeap::new(),
            offered: vec![0; bins],
            futile: vec![0; bins],
            changes: vec![0; bins],
            last: BEGIN,
        };
        for index in 0..run.hosts {
            fleet.add(index);
        }
        fleet
    }

    /// A host somewhere between two renewals.
    fn add(&mut self, index: u32) {
        let mut host = Host {
            schedule: Schedule::default(),
            previous: Previous::default(),
            begin: 0.0,
            end: self.run.life,
            revoked: match self.run.trouble {
                Trouble::Revoked(part) => f64::from(index) < part * f64::from(self.run.hosts),
                _ => false,
            },
            started: false,
        };
        let renewal = self.renewal(&mut host, 0.0);
        let next = renewal * self.random.f64();
        host.begin = next - renewal;
        host.end = host.begin + self.run.life;
        self.hosts.push(host);
        self.plan(index, next);
    }

    fn plan(&mut self, index: u32, at: f64) {
        // Daemons that start again forget what they had planned.
        let starts = matches!(self.run.trouble, Trouble::Reboot | Trouble::Restart);
        let started = self
            .hosts
            .get(index as usize)
            .is_none_or(|host| host.started);
        let at = match starts && !started && at >= BEGIN {
            true => BEGIN,
            false => at,
        };
        self.events.push(Reverse((micros(at), index)));
    }

    fn event(&mut self, now: f64, index: u32) {
        let at = index as usize;
        let Some(mut host) = self.hosts.get(at).copied() else {
            return;
        };
        let starts = matches!(self.run.trouble, Trouble::Reboot | Trouble::Restart);
        let next = match starts && !host.started && now >= BEGIN {
            true => self.start(&mut host, now),
            false => self.request(&mut host, now),
        };
        if let Some(slot) = self.hosts.get_mut(at) {
            *slot = host;
        }
        self.plan(index, now + next);
    }

    /// The first pause of a daemon.
    fn start(&mut self, host: &mut Host, now: f64) -> f64 {
        host.started = true;
        (host.schedule, host.previous) = Default::default();
        if self.run.trouble == Trouble::Restart {
            return self.renewal(host, now);
        }
        if host.end < now {
            self.count(host.end, now);
        }
        host.end = now;
        match self.run.rule {
            Rule::Policy => Schedule::start(SPLAY, self.random.f64()).as_secs_f64(),
            Rule::Previous => 0.0,
        }
    }

    /// One request. Returns the pause after it.
    fn request(&mut self, host: &mut Host, now: f64) -> f64 {
        let (trouble, begun) = (self.run.trouble, now >= BEGIN);
        let away = matches!(trouble, Trouble::Outage(time) if begun && now < BEGIN + time);
        let answer = match away {
            true => Answer::Unavailable,
            false => self.service.answer(now, host.revoked && begun),
        };
        add(&mut self.offered, now, 1);
        let Some(kind) = answer.setback() else {
            if host.end < now {
                self.count(host.end, now);
                self.last = self.last.max(now);
            }
            (host.begin, host.end) = (now, now + self.run.life);
            return self.renewal(host, now);
        };
        add(&mut self.futile, now, 1);
        match self.run.rule {
            Rule::Policy => {
                let setback = Setback {
                    kind,
                    retry_after: None,
                };
                let at_hand = (host.end > now).then(|| self.at_hand(host, now));
                let pause = host.schedule.failed(setback, at_hand, self.random.f64());
                pause.as_secs_f64()
            }
            Rule::Previous => {
                let refused = kind == SetbackKind::Refused;
                host.previous.failed(refused, &mut self.random)
            }
        }
    }

    /// Until the session is renewed.
    fn renewal(&mut self, host: &mut Host, now: f64) -> f64 {
        let random = self.random.f64();
        match self.run.rule {
            Rule::Policy => {
                let at_hand = self.at_hand(host, now);
                host.schedule.succeeded(at_hand, random).as_secs_f64()
            }
            Rule::Previous => host
                .previous
                .succeeded(self.run.life, host.end - now, random),
        }
    }

    fn at_hand(&self, host: &Host, now: f64) -> AtHand {
        AtHand {
            life: Duration::from_secs_f64(self.run.life),
            left: Duration::from_secs_f64((host.end - now).max(0.0)),
        }
    }

    /// A host had no session between these times.
    fn count(&mut self, from: f64, to: f64) {
        change(&mut self.changes, from, 1);
        change(&mut self.changes, to, -1);
    }

    fn outcome(mut self) -> Outcome {
        let hosts = std::mem::take(&mut self.hosts);
        let horizon = self.run.horizon;
        let ended = |host: &&Host| host.end < horizon && !host.revoked;
        let mut open = 0;
        for host in hosts.iter().filter(ended) {
            change(&mut self.changes, host.end, 1);
            open += 1;
        }
        let mut without = 0;
        let sum = |change: &i64| {
            without += change;
            without
        };
        Outcome {
            without: self.changes.iter().map(sum).collect(),
            offered: self.offered,
            futile: self.futile,
            recovered: (open == 0).then_some(self.last),
        }
    }
}

fn add(bins: &mut [u32], at: f64, count: u32) {
    if let Some(bin) = bins.get_mut((at / BIN) as usize) {
        *bin += count;
    }
}

fn change(bins: &mut [i64], at: f64, by: i64) {
    if let Some(bin) = bins.get_mut((at.max(0.0) / BIN) as usize) {
        *bin += by;
    }
}

fn micros(seconds: f64) -> u64 {
    (seconds.max(0.0) * 1e6) as u64
}
