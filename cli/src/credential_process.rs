//! `roleseal credential-process`

use crate::common::{CommandError, Common, SessionArguments, one_session};
use crate::output;

pub(crate) fn run(common: &Common, wanted: SessionArguments) -> Result<(), CommandError> {
    let session = one_session(common, wanted)?;
    Ok(output::print_credentials(&session.credentials)?)
}
