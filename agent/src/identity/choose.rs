//! Which identity a caller means.

use wire::Refusal;

use super::{Identities, Identity};
use crate::peer::Peer;
use crate::policy::{Policy, unnamed};

/// So many identities are named to a caller who has to choose one: they fit into a message.
const SHOWN: usize = 100;

impl Identities {
    /// The identity of that name; without one, the only one that the caller may use.
    pub fn choose(&self, name: Option<&str>, peer: &Peer) -> Result<&Identity, Refusal> {
        match name {
            Some(name) => self.named_for(name, peer, |policy| policy.knows(peer)),
            None => self.only_one_for(peer),
        }
    }

    /// The same among the identities that the caller may see.
    pub fn choose_shown(&self, name: Option<&str>, peer: &Peer) -> Result<&Identity, Refusal> {
        match name {
            Some(name) => self.named_for(name, peer, |policy| policy.shows_to(peer)),
            None => self.only_one_for(peer),
        }
    }

    /// The identity of that name, whoever asks.
    pub fn named(&self, name: &str) -> Option<&Identity> {
        self.identities
            .iter()
            .find(|identity| identity.name == name)
    }

    /// Only those who see all identities are told that there is none.
    fn named_for(
        &self,
        name: &str,
        peer: &Peer,
        serves: impl Fn(&Policy) -> bool,
    ) -> Result<&Identity, Refusal> {
        let found = self.named(name);
        if let Some(identity) = found.filter(|identity| serves(&identity.policy)) {
            return Ok(identity);
        }
        // All rules are looked at in either case: the time that takes tells as little as the answer.
        let shown = self.shown_to(peer).count();
        if found.is_some() || shown < self.identities.len() {
            return Err(unnamed(peer));
        }
        let name: String = name.chars().take(64).collect();
        Err(Refusal::IdentityNotFound {
            message: format!(
                "the agent has no identity {name:?}: `roleseal identities` shows those it has"
            ),
            identity: name,
        })
    }

    fn only_one_for(&self, peer: &Peer) -> Result<&Identity, Refusal> {
        let usable: Vec<&Identity> = self
            .identities
            .iter()
            .filter(|identity| identity.policy.knows(peer))
            .collect();
        match usable.as_slice() {
            [one] => Ok(one),
            [] => Err(unnamed(peer)),
            several => {
                let names: Vec<String> = several
                    .iter()
                    .take(SHOWN)
                    .map(|one| one.name.clone())
                    .collect();
                let more = if several.len() > SHOWN {
                    " and more"
                } else {
                    ""
                };
                Err(Refusal::IdentityAmbiguous {
                    message: format!("name one identity of {}{more}", names.join(", ")),
                    identities: names,
                })
            }
        }
    }
}
