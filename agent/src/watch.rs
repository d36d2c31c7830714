//! Looks at the certificate files, and takes over what was renewed: read whole, and proved to be of the key,
//! before anything is signed for it.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use crate::identity::{Identity, NotTaken};
use crate::log::{self, Level};
use crate::panics::contain;
use crate::renewal_view::{News, RenewalView};
use crate::state::Agent;
use crate::sync::{lock, wait_while};
use crate::token_worker;
use config::certificate::{Certificate, Stamp};

/// How often the files are looked at. By their metadata and not by inotify: that sees neither a symbolic
/// link far up the path, nor a network file system.
const INTERVAL: Duration = Duration::from_secs(2);

/// How long a new certificate's proof may take.
const PROOF_DEADLINE: Duration = Duration::from_secs(25);

/// Looks at the files of all identities, in a thread of its own.
#[derive(Debug, Default)]
pub struct Watch {
    /// An operator says that the files are complete.
    asked: Mutex<bool>,
    told: Condvar,
}

/// What is known of an identity's certificate files.
#[derive(Debug)]
struct Seen {
    stamp: Stamp,
    /// They were replaced since they were first seen.
    replaced: bool,
    /// There is no need for a further look until they change.
    settled: bool,
}

impl Watch {
    /// Starts to look.
    pub fn start(agent: &Arc<Agent>) -> std::io::Result<Arc<Watch>> {
        let (watch, agent) = (Arc::new(Watch::default()), Arc::clone(agent));
        let own = Arc::clone(&watch);
        std::thread::Builder::new()
            .name("watch".to_owned())
            .spawn(move || own.run(&agent))?;
        Ok(watch)
    }

    /// Looks at all files soon, and takes what they hold now: somebody says that they are complete.
    pub fn look_now(&self) {
        *lock(&self.asked) = true;
        self.told.notify_all();
    }

    fn run(&self, agent: &Agent) {
        let mut seen = HashMap::new();
        loop {
            let complete = self.wait();
            contain(|| look(&mut seen, agent, complete));
        }
    }

    /// Waits until it is time; says whether somebody asked.
    fn wait(&self) -> bool {
        let next = Some(Instant::now() + INTERVAL);
        let mut asked = wait_while(&self.told, lock(&self.asked), next, |asked| !*asked);
        std::mem::take(&mut *asked)
    }
}

/// `complete`: nobody writes the files any more. Else that is assumed of files that were the same twice.
fn look(seen: &mut HashMap<String, Seen>, agent: &Agent, complete: bool) {
    let identities = agent.identities();
    seen.retain(|name, _| identities.iter().any(|identity| identity.name == *name));
    for identity in identities.iter() {
        tell_of_renewals(identity);
        let source = identity.certificate_source();
        let stamp = Stamp::of(source.files());
        let last = seen.get(&identity.name);
        let changed = last.is_none_or(|last| last.stamp != stamp);
        if !changed && !complete && last.is_some_and(|last| last.settled) {
            continue;
        }
        let replaced = last.is_none_or(|last| last.replaced || changed);
        let explain = |error| agent.sandbox().explain(error, source.files());
        let settled = (complete || !changed)
            && match source.load_files() {
                None => true,
                // They were changed while they were read.
                Some(_) if Stamp::of(source.files()) != stamp => false,
                Some(read) => renew(identity, read.map_err(explain), replaced),
            };
        let now = Seen {
            stamp,
            replaced: replaced && !settled,
            settled,
        };
        seen.insert(identity.name.clone(), now);
    }
}

fn tell_of_renewals(identity: &Identity) {
    for news in identity.renewal().into_iter().flat_map(RenewalView::look) {
        let (event, message) = match news {
            News::NotRenewable(message) => ("not_renewable", message),
            News::Failed(message) => ("renewal_failed", message),
        };
        let fields = vec![
            ("identity", identity.name.as_str().into()),
            ("message", message.into()),
        ];
        log::event(Level::Warn, event, fields);
    }
}

/// Takes the certificate over, if it is another one. Says whether that is settled, whichever way.
fn renew(identity: &Identity, read: Result<Certificate, String>, replaced: bool) -> bool {
    let name = &identity.name;
    match identity.take(read, replaced, Instant::now() + PROOF_DEADLINE) {
        Ok(None) => true,
        Ok(Some(certificate)) => {
            let (serial, until) = (&certificate.serial, certificate.not_after);
            log::info(&format!(
                "renewed identity={name} serial={serial} until={until}"
            ));
            true
        }
        Err(NotTaken::Unfit(error)) => {
            token_worker::stays_in_use(name, &error);
            true
        }
        Err(NotTaken::NotNow) => false,
    }
}
