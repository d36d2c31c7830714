//! What goes to standard output and standard error, and in which shape.

use std::io::{self, Write};

use rolesanywhere::printable;
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use serde::Serialize;
use signal_hook::consts::SIGPIPE;
use signal_hook::low_level::emulate_default_handler;
use thiserror::Error;

use client::Diagnostic;
use client::credentials::Credentials;
use client::exit::Exit;

/// Why nothing, or not all, was printed.
#[derive(Debug, Error)]
#[error("cannot write to standard output: {0}")]
pub(crate) struct OutputError(#[from] io::Error);

impl Diagnostic for OutputError {
    fn exit(&self) -> Exit {
        Exit::Failed
    }
}

impl From<serde_json::Error> for OutputError {
    fn from(error: serde_json::Error) -> OutputError {
        OutputError(error.into())
    }
}

/// Prints the credentials as `credential_process` wants them.
pub(crate) fn print_credentials(credentials: &Credentials) -> Result<(), OutputError> {
    Ok(print(
        credential_process_json(credentials)?.expose_secret(),
    )?)
}

/// Prints what a caller has put a secret into.
pub(crate) fn print_secret(text: &SecretString) -> Result<(), OutputError> {
    Ok(print(text.expose_secret().as_bytes())?)
}

/// Prints a text that somebody wanted to see. A reader that has gone has seen enough: the program ends as others do
/// then, without a word.
pub(crate) fn print_text(text: &str) -> Result<(), OutputError> {
    Ok(print(printable(text).as_bytes()).inspect_err(|error| {
        if error.kind() == io::ErrorKind::BrokenPipe {
            let _ = emulate_default_handler(SIGPIPE); // it does not come back
        }
    })?)
}

/// In one write: a reader sees all of it or nothing.
fn print(text: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text)?;
    stdout.flush()
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct CredentialProcess<'c> {
    version: u8,
    access_key_id: &'c str,
    secret_access_key: &'c str,
    session_token: &'c str,
    expiration: String,
}

fn credential_process_json(credentials: &Credentials) -> serde_json::Result<SecretSlice<u8>> {
    let mut json = serde_json::to_vec(&CredentialProcess {
        version: 1,
        access_key_id: &credentials.access_key_id,
        secret_access_key: credentials.secret_access_key.expose_secret(),
        session_token: credentials.session_token.expose_secret(),
        expiration: credentials.expiration.to_string(),
    })?;
    json.push(b'\n');
    Ok(json.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_is_what_credential_process_wants() {
        let credentials = Credentials {
            access_key_id: "ASIA1".into(),
            secret_access_key: "s/+\"".into(),
            session_token: "t==".into(),
            expiration: "2026-01-01T01:00:00Z".parse().unwrap(),
        };
        let json = credential_process_json(&credentials).unwrap();
        assert_eq!(
            str::from_utf8(json.expose_secret()).unwrap(),
            "{\"Version\":1,\"AccessKeyId\":\"ASIA1\",\"SecretAccessKey\":\"s/+\\\"\",\
             \"SessionToken\":\"t==\",\"Expiration\":\"2026-01-01T01:00:00Z\"}\n"
        );
    }
}
