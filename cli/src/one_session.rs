//! The session of a command that wants one and ends: from the cache, or new.

use std::sync::Arc;

use crate::arguments::{Common, SessionArguments};
use crate::cache::Cache;
use crate::environment::Environment;
use crate::error::Error;
use crate::session::Session;
use crate::sessions::Sessions;

/// A fresh session of the target that the command line names.
pub(crate) fn one_session(
    common: &Common,
    wanted: SessionArguments,
) -> Result<Arc<Session>, Error> {
    let environment = Environment::of_process();
    let target = common.target(&environment, wanted.target, wanted.settings)?;
    let progress = common.progress();
    let cache = match wanted.no_cache {
        true => None,
        false => Cache::usual(&environment, &progress),
    };
    Sessions::new(cache, progress)
        .get(&target)
        .map_err(Error::Shared)
}
