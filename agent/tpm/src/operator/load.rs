//! Loading a key for one task.

use token::link::OpenTpmKey;
use token::operator::Outcome;

use crate::key::FoundKey;
use crate::open;
use crate::parent::Parents;
use crate::tpm::Tpm;

/// Loads a key as the daemon does, without a parent that stays behind.
pub(super) fn load(tpm: &mut Tpm, key: &OpenTpmKey) -> Outcome<FoundKey> {
    let mut parents = Parents::default();
    let found = open::load(tpm, &mut parents, key);
    let forgotten = parents.forget(tpm);
    let found = found?;
    forgotten.map_err(|failure| failure.gone(tpm.name()))?;
    Ok(found)
}
