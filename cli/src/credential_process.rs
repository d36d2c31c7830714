//! `roleseal credential-process`

use std::path::Path;

use jiff::Timestamp;

use crate::credentials::Credentials;
use crate::error::Error;
use crate::http::Http;
use crate::request::CreateSession;
use crate::{agent, output};

pub(crate) fn run(
    socket: &Path,
    ca_bundle: Option<&Path>,
    request: &CreateSession,
) -> Result<(), Error> {
    let http = Http::new(ca_bundle)?;
    let unsigned = request.unsigned();
    let headers = agent::sign(socket, unsigned.clone())?;
    let answer = http.post_session(&unsigned, &headers)?;
    let credentials = Credentials::from_answer(&answer, Timestamp::now())?;
    Ok(output::print_credentials(&credentials)?)
}
