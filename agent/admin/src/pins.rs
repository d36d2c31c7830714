//! Where the command line says that PINs come from. A PIN itself is never an argument: every local user can
//! read those.

use std::path::PathBuf;

use clap::Args;
use token::{PinSource, Question};

use crate::failure::Failure;
use crate::output;

/// Where a token program asks a person.
pub(super) const TERMINAL: &str = "/dev/tty";

/// The PIN of a token, or the auth value of a TPM's key.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "The PIN (of a TPM: the key's auth value)")]
pub(crate) struct PinArguments {
    /// Read it from this file, of mode 0600
    #[arg(long, value_name = "FILE", group = "pin-source")]
    pin_file: Option<PathBuf>,
    /// Read it from this systemd credential
    #[arg(long, value_name = "NAME", group = "pin-source", value_parser = credential_name)]
    pin_credential: Option<String>,
    /// Have systemd-ask-password ask for it
    #[arg(long, group = "pin-source")]
    pin_ask_password: bool,
    /// Ask for it at the terminal: for PKCS#11 tokens that need a login done anyway, where none of the others is given
    #[arg(long, group = "pin-source")]
    pin_prompt: bool,
}

/// The auth values beside a TPM key's own.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "More auth values of a TPM")]
pub(crate) struct TpmPinArguments {
    /// File with the owner hierarchy's auth value, if any
    #[arg(long, value_name = "FILE")]
    pub(crate) owner_pin_file: Option<PathBuf>,
    /// File with the auth value of the persistent parent key
    #[arg(long, value_name = "FILE")]
    pub(crate) parent_pin_file: Option<PathBuf>,
}

impl TpmPinArguments {
    /// Refuses them for a key on a PKCS#11 token.
    pub(crate) fn check_unused(&self) -> Result<(), Failure> {
        match (&self.owner_pin_file, &self.parent_pin_file) {
            (None, None) => Ok(()),
            _ => Err(Failure::usage(
                "cannot use --owner-pin-file or --parent-pin-file with --uri: they are for TPM keys",
            )),
        }
    }
}

impl PinArguments {
    /// Whether any is given.
    pub(crate) fn any(&self) -> bool {
        self.source("", false).is_some()
    }

    /// What is given, asked for by this question; a `new` one twice.
    pub(crate) fn source(&self, question: &str, new: bool) -> Option<PinSource> {
        let question = || Question {
            text: question.to_owned(),
            twice: new,
        };
        if let Some(path) = &self.pin_file {
            return Some(PinSource::File(path.clone()));
        }
        if let Some(name) = &self.pin_credential {
            return Some(PinSource::Credential(name.clone()));
        }
        if self.pin_ask_password {
            return Some(PinSource::AskPassword(question()));
        }
        self.pin_prompt.then(|| PinSource::Terminal(question()))
    }

    /// The PIN of a PKCS#11 token: what is given, or what the URI has.
    pub(crate) fn of_token(
        &self,
        in_uri: Option<PinSource>,
        token: &str,
    ) -> Result<Option<PinSource>, Failure> {
        let question = question_of(token);
        let source = match (self.source(&question, false), in_uri) {
            (Some(_), Some(_)) => {
                return Err(Failure::usage(
                    "cannot choose the PIN's source: both the URI and an option name one",
                )
                .hint("leave one of them out"));
            }
            (Some(source), None) => source,
            (None, Some(source)) => {
                if matches!(source, PinSource::Value(_)) {
                    output::warn(
                        "every local user can read the URI's pin-value in this command line: use \
                         pin-source, or --pin-file",
                    );
                }
                source
            }
            (None, None) => return Ok(None),
        };
        check_terminal(&source)?;
        Ok(Some(source))
    }

    /// The auth value of a TPM's key; `None` where none is spoken of.
    pub(crate) fn of_tpm_key(&self, key: &str, new: bool) -> Result<Option<PinSource>, Failure> {
        let what = if new { "New auth value" } else { "Auth value" };
        let source = self.source(&format!("{what} of {key}"), new);
        source.iter().try_for_each(check_terminal)?;
        Ok(source)
    }
}

/// The PIN of a PKCS#11 token that needs one where none is given: from a person at the terminal.
pub(super) fn at_terminal(token: &str) -> Result<PinSource, Failure> {
    let source = PinSource::Terminal(Question {
        text: question_of(token),
        twice: false,
    });
    check_terminal(&source)?;
    Ok(source)
}

fn question_of(token: &str) -> String {
    format!("PIN of {token}")
}

/// A file's name, since whatever else would be read without a look at its mode.
fn credential_name(text: &str) -> Result<String, &'static str> {
    match text {
        "" | "." | ".." => Err("the credential has no name"),
        name if name.contains('/') => {
            Err("a credential has a name, not a path: use --pin-file for a path")
        }
        name => Ok(name.to_owned()),
    }
}

/// Whether a person can be asked, where one has to be.
fn check_terminal(source: &PinSource) -> Result<(), Failure> {
    let asks_here = matches!(source, PinSource::Terminal(_));
    let opens = || {
        std::fs::File::options()
            .read(true)
            .write(true)
            .open(TERMINAL)
    };
    match asks_here && opens().is_err() {
        false => Ok(()),
        true => Err(Failure::failed("cannot ask for the PIN: no terminal").hint(
            "give --pin-file FILE, --pin-credential NAME or --pin-ask-password, or pin-source=/FILE in the URI",
        )),
    }
}

/// The PIN in a file, where one is named.
pub(super) fn in_file(path: &Option<PathBuf>) -> Option<PinSource> {
    path.clone().map(PinSource::File)
}
