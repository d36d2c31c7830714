//! `roleseal credential-process`

use crate::arguments::{Common, SessionArguments};
use crate::error::Error;
use crate::one_session::one_session;
use crate::output;

pub(crate) fn run(common: &Common, wanted: SessionArguments) -> Result<(), Error> {
    let session = one_session(common, wanted)?;
    Ok(output::print_credentials(&session.credentials)?)
}
