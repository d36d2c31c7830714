//! What all connections share: the identities of the configuration that is in force, and the requests that
//! are under way.

use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};
use std::time::Instant;

use jiff::Timestamp;
use wire::Refusal;

use crate::accounts::Accounts;
use crate::identity::{Identities, Identity};
use crate::launcher::TokenPrograms;
use crate::metrics::Metrics;
use crate::peer::Peer;
use crate::rate::Rates;
use crate::sandbox::Sandbox;
use config::Config;

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    programs: TokenPrograms,
    accounts: Accounts,
    sandbox: Sandbox,
    /// What is counted.
    pub metrics: Metrics,
    identities: RwLock<Arc<Identities>>,
    rates: Rates,
    requests: Mutex<Requests>,
    /// Told when a request is done after the end was announced.
    done: Condvar,
}

#[derive(Debug, Default)]
struct Requests {
    under_way: usize,
    ending: bool,
}

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
    ) -> std::io::Result<Agent> {
        Ok(Agent {
            metrics: Metrics::default(),
            identities: RwLock::new(Arc::new(Identities::start(config, &programs, None)?)),
            programs,
            accounts,
            sandbox,
            rates: Rates::default(),
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
        Arc::clone(
            &self
                .identities
                .read()
                .unwrap_or_else(PoisonError::into_inner),
        )
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

    /// Puts another configuration in force, all at once, with the groups of users as they are now. Requests under way are finished with the old one.
    pub fn reload(&self, config: Config) -> std::io::Result<()> {
        let old = self.identities();
        let new = Arc::new(Identities::start(config, &self.programs, Some(&old))?);
        *self
            .identities
            .write()
            .unwrap_or_else(PoisonError::into_inner) = new;
        self.accounts.forget_groups();
        Ok(())
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
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
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
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.ending = true;
        let left = deadline.saturating_duration_since(Instant::now());
        let (requests, _) = self
            .done
            .wait_timeout_while(requests, left, |requests| requests.under_way > 0)
            .unwrap_or_else(PoisonError::into_inner);
        requests.under_way
    }

    /// Closes all tokens.
    pub fn close(&self, deadline: Instant) {
        self.identities().close(deadline);
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let agent = self.0;
        let mut requests = agent
            .requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        requests.under_way -= 1;
        if requests.ending {
            agent.done.notify_all();
        }
    }
}
