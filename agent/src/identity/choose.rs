//! Which identity a caller means.

use wire::Refusal;

use super::{Identities, Identity};
use crate::peer::Peer;

/// So many identities are named to a caller who has to choose one: they fit into a message.
const SHOWN: usize = 100;

impl Identities {
    /// The identity of that name; without one, the only one that the caller may use.
    pub fn choose(&self, name: Option<&str>, peer: &Peer) -> Result<&Identity, Refusal> {
        match name {
            Some(name) => self.named(name),
            None => self.only_one_for(peer),
        }
    }

    fn named(&self, name: &str) -> Result<&Identity, Refusal> {
        self.identities
            .iter()
            .find(|identity| identity.name == name)
            .ok_or_else(|| {
                let name: String = name.chars().take(64).collect();
                Refusal::IdentityNotFound {
                    message: format!(
                        "the agent has no identity {name:?}: `roleseal identities` shows those it has"
                    ),
                    identity: name,
                }
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
            [] => Err(Refusal::NotPermitted {
                rule: wire::Rule::Caller,
                message: format!(
                    "no identity may be used by user {0}: an [[identity.allow]] rule of the agent's \
                     configuration has to name it (users = [{0}]) or one of its groups",
                    peer.uid
                ),
            }),
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
