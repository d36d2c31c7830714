//! What an operator's command, such as `roleseal-admin key generate`, has a token program do: make, list and
//! delete keys, sign certificate requests, store certificates.
//!
//! Not for the daemon: a token program takes these tasks only when it is started with [`ARGUMENT`], as neither
//! the agent nor its launcher ever does; and started so, it signs nothing for AWS. One task at a time, each
//! with one answer, or with several where the task says so, until the command closes the link.

mod certification_request;
pub mod pkcs11;
pub mod tpm;

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::str::FromStr;
use std::time::Duration;

use rustix::stdio::dup2_stdin;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use certification_request::check_certification_request;

use crate::{TokenError, greeting, host, link};

/// The one argument of a token program that does an operator's tasks.
pub const ARGUMENT: &str = "--operator";

/// How long a task may go on after its command is gone. Cards take this long to make an RSA key, and half of
/// one helps nobody; a library that hangs is not to stay logged in for ever.
const FINISH_DEADLINE: Duration = Duration::from_secs(60);

/// Tells the command of a result before the last one.
pub type Tell<'a, A> = &'a mut dyn FnMut(A) -> io::Result<()>;

/// What comes back for a task.
pub type Outcome<T> = Result<T, TokenError>;

/// The kinds of keys that can be made: what Roles Anywhere takes and tokens usually have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyType {
    /// ECDSA on P-256 (secp256r1).
    EcP256,
    /// ECDSA on P-384 (secp384r1).
    EcP384,
    /// RSA with a modulus of 2048 bits.
    Rsa2048,
    /// RSA with a modulus of 3072 bits.
    Rsa3072,
    /// RSA with a modulus of 4096 bits.
    Rsa4096,
}

/// DER of a `SubjectPublicKeyInfo` (RFC 5280, 4.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PublicKeyInfo(#[serde(with = "crate::hex_bytes")] pub Vec<u8>);

/// DER that is handed over as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Der(#[serde(with = "crate::hex_bytes")] pub Vec<u8>);

/// A name that is no [`KeyType`]'s.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("there is no key type {0:?}: write ec-p256, ec-p384, rsa-2048, rsa-3072 or rsa-4096")]
pub struct UnknownKeyType(String);

impl KeyType {
    /// Each of them, the usual first.
    pub const ALL: [KeyType; 5] = [
        KeyType::EcP256,
        KeyType::EcP384,
        KeyType::Rsa2048,
        KeyType::Rsa3072,
        KeyType::Rsa4096,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            KeyType::EcP256 => "ec-p256",
            KeyType::EcP384 => "ec-p384",
            KeyType::Rsa2048 => "rsa-2048",
            KeyType::Rsa3072 => "rsa-3072",
            KeyType::Rsa4096 => "rsa-4096",
        }
    }
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for KeyType {
    type Err = UnknownKeyType;

    fn from_str(name: &str) -> Result<KeyType, UnknownKeyType> {
        KeyType::ALL
            .into_iter()
            .find(|one| one.name() == name)
            .ok_or_else(|| UnknownKeyType(name.to_owned()))
    }
}

/// A token program's work for an operator: answers each task at standard input until the command is gone.
pub(crate) fn serve<T: DeserializeOwned, A: Serialize>(
    mut work: impl FnMut(T, Tell<A>) -> Outcome<A>,
) -> io::Result<()> {
    let mut command = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    // What a token library reads, or hands to children of its own, is not our link.
    dup2_stdin(File::open("/dev/null")?)?;
    greeting::send(&mut command)?;
    let link = command.try_clone()?;
    std::thread::spawn(move || host::end_with(&link, FINISH_DEADLINE));
    while let Some(task) = link::receive(&mut command)? {
        let last = work(task, &mut |part| {
            link::send(&mut command, &Outcome::Ok(part))
        });
        match link::send(&mut command, &last.map_err(TokenError::shortened)) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()), // it has heard enough
            sent => sent?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_types_have_names() {
        for key_type in KeyType::ALL {
            assert_eq!(key_type.to_string().parse(), Ok(key_type));
        }
        let error = "ed25519".parse::<KeyType>().unwrap_err().to_string();
        assert!(
            error.contains("ed25519") && error.contains("ec-p256"),
            "{error}"
        );
    }
}
