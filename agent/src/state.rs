//! What all connections share: the identities of the configuration that is in force, and the requests that
//! are under way.

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use wire::Refusal;

use crate::accounts::Accounts;
use crate::identity::{Identities, Identity};
use crate::launcher::TokenPrograms;
use crate::metrics::Metrics;
use crate::peer::Peer;
use crate::rate::Rates;
use crate::sandbox::Sandbox;
use crate::sync::{lock, wait_while};
use crate::token_worker::PinTries;
use config::Config;

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    programs: TokenPrograms,
    accounts: Accounts,
    sandbox: Sandbox,
    pin_tries: PinTries,
    /// What is counted.
    pub metrics: Metrics,
    identities: Mutex<Arc<Identities>>,
    rates: Rates,
    /// Of callers whom no rule names.
    unnamed_rates: Rates,
    /// Of clients who would be refused without an answer about their groups or unit.
    lookup_rates: Rates,
    /// Whose turn it is of those who exceed that.
    turn: Mutex<()>,
    requests: Mutex<Requests>,
    /// Told when a request is done after the end was announced.
    done: Condvar,
}

#[derive(Debug, Default)]
struct Requests {
    under_way: usize,
    ending: bool,
}

/// How long callers whom no rule names wait, one after the other, when they have exceeded their rate: together they
/// are refused a thousand times a second at most, and the processor is for the others.
const PACE: Duration = Duration::from_millis(1);

/// Clients of one user in a second about whom somebody is asked before they are refused a connection. The launcher answers
/// thousands.
const LOOKUPS: u32 = 100;

/// A request that is under way, until it is dropped.
#[derive(Debug)]
pub struct UnderWay<'a>(&'a Agent);

impl Agent {
    /// Starts to open the tokens of the configuration, with these token programs. Who its clients are is asked
    /// of `accounts`; `sandbox` is what this process has confined itself to.
    pub fn start(
        config: Config,
        programs: TokenPrograms,
        accounts: Accounts,
        sandbox: Sandbox,
        pin_tries: PinTries,
    ) -> std::io::Result<Agent> {
        let identities = Identities::start(config, &programs, &pin_tries, None)?;
        Ok(Agent {
            metrics: Metrics::default(),
            identities: Mutex::new(Arc::new(identities)),
            programs,
            accounts,
            sandbox,
            pin_tries,
            rates: Rates::default(),
            unnamed_rates: Rates::default(),
            lookup_rates: Rates::default(),
            turn: Mutex::default(),
            requests: Mutex::default(),
            done: Condvar::new(),
        })
    }

    /// Whom to ask about users.
    pub fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// What this process has confined itself to.
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// The identities, as they are now: whoever has them keeps them, and their tokens, to the end.
    pub fn identities(&self) -> Arc<Identities> {
        Arc::clone(&lock(&self.identities))
    }

    /// The identities that the caller may see, as `ListIdentities` shows them.
    pub fn list(&self, peer: &Peer, now: Timestamp) -> Vec<wire::Identity> {
        let counted = |identity: &Identity| {
            let (signatures, last) = self.metrics.signed(&identity.name);
            wire::Identity {
                signatures: Some(signatures),
                last_signed: last.map(|time| time.to_string()),
                ..identity.describe(now)
            }
        };
        self.identities().shown_to(peer).map(counted).collect()
    }

    /// Puts another configuration in force, all at once, with the groups of users as they are now. Requests under way
    /// are finished with the old one. PINs whose refusal an operator has had forgotten are tried again.
    pub fn reload(&self, config: Config) -> std::io::Result<()> {
        self.pin_tries.read_again();
        let (old, programs) = (self.identities(), &self.programs);
        let new = Identities::start(config, programs, &self.pin_tries, Some(&old))?;
        *lock(&self.identities) = Arc::new(new);
        self.accounts.forget_groups();
        Ok(())
    }

    /// Lets a caller whom no rule names make a call of any kind, if it has not exceeded its rate.
    pub fn admit_unnamed(&self, uid: u32) -> Result<(), Refusal> {
        let rate = self.identities().limits.requests_per_second_unnamed;
        if self.unnamed_rates.take(uid, rate, Instant::now()) {
            return Ok(());
        }
        Err(Refusal::Busy {
            message: format!(
                "user {uid}, whom no [[identity.allow]] rule names, may make {rate} requests a second \
                 (limits.requests-per-second-unnamed of the agent's configuration): try again in a second"
            ),
        })
    }

    /// Returns whether the groups and the unit of a client may be asked for, which would be refused a connection otherwise.
    #[must_use]
    pub fn may_look_up(&self, uid: u32) -> bool {
        self.lookup_rates.take(uid, LOOKUPS, Instant::now())
    }

    /// Waits for as long as a caller has to that has exceeded its rate.
    pub fn pace(&self) {
        let _turn = lock(&self.turn);
        std::thread::sleep(PACE);
    }

    /// Begins a request of this user, if the agent takes one now.
    pub fn begin(&self, uid: u32) -> Result<UnderWay<'_>, Refusal> {
        if let Some(rate) = self.identities().limits.requests_per_second_per_user
            && !self.rates.take(uid, rate, Instant::now())
        {
            return Err(Refusal::Busy {
                message: format!(
                    "user {uid} may make {rate} requests a second (limits.requests-per-second-per-user \
                     of the agent's configuration): try again in a second"
                ),
            });
        }
        let mut requests = lock(&self.requests);
        if requests.ending {
            return Err(Refusal::Busy {
                message: "the agent is ending: try again when it runs again".to_owned(),
            });
        }
        requests.under_way += 1;
        Ok(UnderWay(self))
    }

    /// Takes no more requests, and waits until those under way are done or `deadline` has come. Says how many
    /// are not.
    pub fn drain(&self, deadline: Instant) -> usize {
        let mut requests = lock(&self.requests);
        requests.ending = true;
        let requests = wait_while(&self.done, requests, Some(deadline), |requests| {
            requests.under_way > 0
        });
        requests.under_way
    }

    /// Closes all tokens, which may take each as long as `limit`. A try of a PIN is waited for until `tried`: without its
    /// answer, a good PIN counts as refused when the agent starts again.
    pub fn close(&self, limit: Duration, tried: Instant) {
        let identities = self.identities();
        identities.close(Instant::now() + limit);
        if self.pin_tries.wait_for_answers(tried) {
            identities.close(Instant::now() + limit);
        }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let agent = self.0;
        let mut requests = lock(&agent.requests);
        requests.under_way -= 1;
        if requests.ending {
            agent.done.notify_all();
        }
    }
}
