//! As whom the tasks are done. SoftHSM's tokens are files of the user who runs it: what root makes there, the agent
//! could not read.

use std::path::Path;

use token::account::Account;
use token::{PinSource, TokenError, softhsm};

use super::place::Place;

/// Becomes the user for good, where the module is SoftHSM's and root runs this. A PIN that root alone may read is read
/// before that.
pub(super) fn become_owner(
    user: &Account,
    module: &Path,
    pin: &mut Option<PinSource>,
) -> Result<(), TokenError> {
    if !is_root() || !softhsm::is_module(module) {
        return Ok(());
    }
    if let Some(source @ (PinSource::File(_) | PinSource::Credential(_))) = pin {
        let read = source.read();
        let read = read.map_err(|error| TokenError::Unusable(error.to_string()))?;
        *pin = Some(PinSource::Value(read));
    }
    let name = &user.name;
    user.become_for_good()
        .map_err(|error| TokenError::Unusable(format!("cannot become {name}: {error}")))?;
    match softhsm::obstacle(std::env::var_os(softhsm::VARIABLE).as_deref()) {
        None => Ok(()),
        Some(obstacle) => Err(TokenError::Unusable(format!(
            "nothing was made: SoftHSM's tokens are files, and are made as {name}, so that the agent can read \
             them: {obstacle}; --owner root makes them as root"
        ))),
    }
}

/// Behind a proxy SoftHSM is known by its token alone, when it is too late to become somebody else.
pub(super) fn check_owner(user: Option<&Account>, place: &Place) -> Result<(), TokenError> {
    match user {
        Some(user) if is_root() && place.token.is_softhsm() => Err(TokenError::Unusable(format!(
            "nothing was made: {} is SoftHSM's, whose files would be root's, and not readable for {}: name \
             SoftHSM's own module by --module, such as /usr/lib/softhsm/libsofthsm2.so; --owner root makes them as \
             root",
            place.token, user.name
        ))),
        _ => Ok(()),
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
