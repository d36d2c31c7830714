//! Where a PIN comes from.

use std::fmt;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::error::PinError;
use super::file::{check_private, credential_path, look_at, open, read_pin};
use super::{Pin, prompt};

/// Where a PIN is found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PinSource {
    /// A file of its own: its content, without a closing line break.
    File(PathBuf),
    /// A systemd credential: a file of this name in `$CREDENTIALS_DIRECTORY`.
    Credential(String),
    /// The PIN itself, from a URI's `pin-value`.
    Value(Pin),
    /// A person at the terminal of an operator's command.
    Terminal(Question),
    /// A person, asked by `systemd-ask-password` for an operator's command.
    AskPassword(Question),
}

/// What a person is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// Such as `PIN of pkcs11:token=lab`.
    pub text: String,
    /// Whether it is a new one, and asked for twice.
    pub twice: bool,
}

/// How a running agent comes to a corrected PIN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TakeOver {
    /// It reads the PIN again when it is reloaded.
    Reload,
    /// systemd copies credentials when it starts a service, and at no other time.
    Restart,
}

impl PinSource {
    /// Whether the PIN could be read by a token program, without opening its file: a confined agent may not.
    pub fn check(&self) -> Result<(), PinError> {
        match self {
            PinSource::Value(_) | PinSource::Terminal(_) | PinSource::AskPassword(_) => Ok(()),
            PinSource::File(path) => check_private(&look_at(path)?, path),
            PinSource::Credential(name) => look_at(&credential_path(name)?)
                .map(drop)
                .map_err(unfit_credential(name)),
        }
    }

    /// How a running agent comes to what is in there now.
    pub fn take_over(&self) -> TakeOver {
        match self {
            PinSource::Credential(_) => TakeOver::Restart,
            PinSource::File(_)
            | PinSource::Value(_)
            | PinSource::Terminal(_)
            | PinSource::AskPassword(_) => TakeOver::Reload,
        }
    }

    /// The file that it is in, where it is in one.
    pub fn file(&self) -> Option<PathBuf> {
        match self {
            PinSource::Value(_) | PinSource::Terminal(_) | PinSource::AskPassword(_) => None,
            PinSource::File(path) => Some(path.clone()),
            PinSource::Credential(name) => credential_path(name).ok(),
        }
    }

    /// The PIN.
    pub fn read(&self) -> Result<Pin, PinError> {
        match self {
            PinSource::Value(pin) => Ok(pin.clone()),
            PinSource::File(path) => {
                let (file, metadata) = open(path)?;
                check_private(&metadata, path)?;
                read_pin(file, path)
            }
            PinSource::Credential(name) => {
                let path = credential_path(name)?;
                open(&path)
                    .and_then(|(file, _)| read_pin(file, &path))
                    .map_err(unfit_credential(name))
            }
            PinSource::Terminal(question) => question.ask(prompt::at_terminal),
            PinSource::AskPassword(question) => question.ask(prompt::by_systemd),
        }
    }
}

impl TakeOver {
    /// What it takes for all of them.
    pub fn of<'s>(sources: impl IntoIterator<Item = &'s PinSource>) -> TakeOver {
        let each = sources.into_iter().map(PinSource::take_over);
        each.max().unwrap_or(TakeOver::Reload)
    }
}

/// As an order.
impl fmt::Display for TakeOver {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            TakeOver::Reload => "reload the agent",
            TakeOver::Restart => {
                "restart the agent (systemd copies credentials when it starts a service: a reload does not)"
            }
        })
    }
}

fn unfit_credential(name: &str) -> impl FnOnce(PinError) -> PinError {
    let name = name.to_owned();
    |error| PinError::UnfitCredential {
        name,
        error: Box::new(error),
    }
}

impl Question {
    fn ask(&self, answer: impl Fn(&str, &mut [u8]) -> io::Result<usize>) -> Result<Pin, PinError> {
        let given = |text: &str| {
            Pin::read(|buffer| answer(text, buffer))?
                .map_err(|fault| io::Error::other(format!("it {fault}")))
        };
        let both = || {
            let pin = given(&self.text)?;
            if self.twice && given(&format!("{}, once more", self.text))? != pin {
                return Err(io::Error::other("these are two different ones"));
            }
            Ok(pin)
        };
        both().map_err(|error| PinError::NotGiven {
            question: self.text.clone(),
            error,
        })
    }
}
