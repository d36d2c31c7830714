//! Where a PIN comes from. It is read in the token program only, just before it is used.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::rand::{GetRandomFlags, getrandom};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
use thiserror::Error;
use zeroize::Zeroizing;

/// Where a PIN is found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PinSource {
    /// A file of its own: its content, without a closing line break.
    File(PathBuf),
    /// A systemd credential: a file of this name in `$CREDENTIALS_DIRECTORY`.
    Credential(String),
    /// The PIN itself, from a URI's `pin-value`.
    Value(Pin),
}

/// A PIN. Its `Debug` shows nothing.
#[derive(Debug, Clone)]
pub struct Pin(SecretString);

/// Why a PIN cannot be read.
#[derive(Debug, Error)]
pub enum PinError {
    /// Opening or reading failed.
    #[error("cannot read the PIN from {path}: {error}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The file could show the PIN to others.
    #[error(
        "PIN file {path} has mode {mode:04o}, which gives access to others: run `chmod 600 {path}`"
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Not a plain file with one PIN.
    #[error("PIN file {path} {fault}")]
    Unfit {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        fault: &'static str,
    },
    /// systemd passed no credentials.
    #[error(
        "credential {0:?} is not there: start the agent by systemd with LoadCredential={0}:FILE"
    )]
    NoCredential(String),
}

/// Longer than any token's maximum; a file of this size is not a PIN.
const PIN_LIMIT: usize = 1024;

impl PinSource {
    /// Whether the PIN could be read, without reading it.
    pub fn check(&self) -> Result<(), PinError> {
        match self {
            PinSource::Value(_) => Ok(()),
            PinSource::File(path) => open_private(path).map(drop),
            PinSource::Credential(name) => open_plain(&credential_path(name)?).map(drop),
        }
    }

    /// The PIN.
    pub fn read(&self) -> Result<Pin, PinError> {
        match self {
            PinSource::Value(pin) => Ok(pin.clone()),
            PinSource::File(path) => read_pin(open_private(path)?, path),
            PinSource::Credential(name) => {
                let path = credential_path(name)?;
                read_pin(open_plain(&path)?, &path)
            }
        }
    }
}

/// systemd keeps this directory readable for the service alone, partly by ACLs that the mode bits do
/// not show: no check of modes there.
fn credential_path(name: &str) -> Result<PathBuf, PinError> {
    match std::env::var_os("CREDENTIALS_DIRECTORY") {
        Some(directory) => Ok(Path::new(&directory).join(name)),
        None => Err(PinError::NoCredential(name.to_owned())),
    }
}

/// Opens a regular file; a FIFO would otherwise make us wait for a writer.
fn open_plain(path: &Path) -> Result<File, PinError> {
    let unreadable = |error| PinError::Unreadable {
        path: path.to_owned(),
        error,
    };
    let file = File::options()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(path)
        .map_err(unreadable)?;
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err(PinError::Unfit {
            path: path.to_owned(),
            fault: "is not a regular file",
        });
    }
    Ok(file)
}

/// Opens a regular file that only its owner, and the agent's own group, can read.
fn open_private(path: &Path) -> Result<File, PinError> {
    let file = open_plain(path)?;
    let metadata = file.metadata().map_err(|error| PinError::Unreadable {
        path: path.to_owned(),
        error,
    })?;
    let own_group = metadata.gid() == rustix::process::getegid().as_raw();
    let others = if own_group { 0o007 } else { 0o077 };
    if metadata.mode() & others != 0 {
        return Err(PinError::Exposed {
            path: path.to_owned(),
            mode: metadata.mode() & 0o7777,
        });
    }
    Ok(file)
}

fn read_pin(file: File, path: &Path) -> Result<Pin, PinError> {
    let unfit = |fault| PinError::Unfit {
        path: path.to_owned(),
        fault,
    };
    // Never reallocated, so that no copy of the PIN stays behind.
    let mut text = Zeroizing::new(String::with_capacity(PIN_LIMIT));
    file.take(PIN_LIMIT as u64)
        .read_to_string(&mut text)
        .map_err(|error| PinError::Unreadable {
            path: path.to_owned(),
            error,
        })?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let pin = line.strip_suffix('\r').unwrap_or(line);
    if pin.is_empty() {
        return Err(unfit("is empty"));
    }
    if text.len() >= PIN_LIMIT || pin.contains(['\n', '\0']) {
        return Err(unfit("holds more than one PIN"));
    }
    Ok(Pin::from(pin.to_owned()))
}

impl Pin {
    /// The PIN, for the one call that hands it to the token.
    pub fn secret(&self) -> &SecretString {
        &self.0
    }
}

impl From<String> for Pin {
    fn from(pin: String) -> Pin {
        Pin(pin.into())
    }
}

impl PartialEq for Pin {
    fn eq(&self, other: &Pin) -> bool {
        self.0.expose_secret() == other.0.expose_secret()
    }
}

impl Eq for Pin {}

/// For the link alone: a `pin-value` stands in the agent's configuration and has to reach the token.
impl Serialize for Pin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.expose_secret())
    }
}

impl<'de> Deserialize<'de> for Pin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Pin, D::Error> {
        String::deserialize(deserializer).map(Pin::from)
    }
}

/// Tells whether PINs are still the ones that were refused, without being them: a salted SHA-256. Made in
/// the token program; the agent keeps it, and hands it to the next token program.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinFingerprint {
    #[serde(with = "crate::link::hex_bytes")]
    salt: Vec<u8>,
    #[serde(with = "crate::link::hex_bytes")]
    hash: Vec<u8>,
}

/// As long as the salts of password files, in bytes.
const SALT: usize = 16;

impl PinFingerprint {
    /// Of the PINs that `owner`, a token or a key, is used with.
    pub fn of(owner: &str, pins: &[&Pin]) -> io::Result<PinFingerprint> {
        let mut salt = vec![0; SALT];
        if getrandom(salt.as_mut_slice(), GetRandomFlags::empty())? != SALT {
            return Err(io::Error::other("the system has no random bytes"));
        }
        let hash = hash(&salt, owner, pins);
        Ok(PinFingerprint { salt, hash })
    }

    /// Whether these are the same PINs of the same owner.
    pub fn is_of(&self, owner: &str, pins: &[&Pin]) -> bool {
        self.hash == hash(&self.salt, owner, pins)
    }
}

fn hash(salt: &[u8], owner: &str, pins: &[&Pin]) -> Vec<u8> {
    let mut hash = Sha256::new();
    let secrets = pins.iter().map(|pin| pin.0.expose_secret().as_bytes());
    for part in [salt, owner.as_bytes()].into_iter().chain(secrets) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().to_vec()
}

/// A short PIN could be found from it.
impl fmt::Debug for PinFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("PinFingerprint(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    /// A PIN file in a directory that goes away.
    struct PinFile(tempfile::TempDir, PathBuf);

    fn pin_file(content: &[u8], mode: u32) -> PinFile {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pin");
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        PinFile(directory, path)
    }

    fn read(content: &[u8], mode: u32) -> Result<String, String> {
        let PinFile(_directory, path) = pin_file(content, mode);
        let source = PinSource::File(path);
        let pin = source.read().map_err(|error| error.to_string())?;
        source.check().unwrap();
        Ok(pin.secret().expose_secret().to_owned())
    }

    #[test]
    fn one_line_break_is_no_part_of_the_pin() {
        for content in ["1234", "1234\n", "1234\r\n"] {
            assert_eq!(read(content.as_bytes(), 0o600).unwrap(), "1234");
        }
        assert_eq!(read(b" 12 34 \n", 0o400).unwrap(), " 12 34 ");
    }

    #[test]
    fn what_is_no_pin_is_refused() {
        for (content, fault) in [
            (&b""[..], "empty"),
            (b"\n", "empty"),
            (b"1\n2\n", "more than one"),
            (b"1\n\n", "more than one"),
            (&[b'1'; 2000], "more than one"),
            (b"\xff\xfe", "UTF-8"),
        ] {
            let message = read(content, 0o600).unwrap_err();
            assert!(message.contains(fault), "{message}");
        }
    }

    #[test]
    fn others_may_not_read_it() {
        for mode in [0o644, 0o604, 0o602, 0o601] {
            let PinFile(_directory, path) = pin_file(b"1234", mode);
            let source = PinSource::File(path);
            for result in [source.check(), source.read().map(drop)] {
                let message = result.unwrap_err().to_string();
                assert!(message.contains(&format!("{mode:04o}")) && message.contains("chmod 600"));
            }
        }
    }

    #[test]
    fn directories_and_absent_files_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let message = PinSource::File(directory.path().into())
            .check()
            .unwrap_err();
        assert!(message.to_string().contains("not a regular file"));
        let absent = directory.path().join("absent");
        let message = PinSource::File(absent.clone()).check().unwrap_err();
        assert!(message.to_string().contains(absent.to_str().unwrap()));
    }

    #[test]
    fn debug_shows_nothing() {
        let source = PinSource::Value(Pin::from("1234".to_owned()));
        assert!(!format!("{source:?}").contains("1234"));
    }

    #[test]
    fn a_fingerprint_knows_its_pins_and_their_owner_again() {
        let [one, other] = ["1234", "1235"].map(|pin| Pin::from(pin.to_owned()));
        let fingerprint = PinFingerprint::of("lab", &[&one, &other]).unwrap();
        assert!(fingerprint.is_of("lab", &[&one, &other]));
        for (owner, pins) in [
            ("lab", &[&one][..]),
            ("lab", &[&other, &one]),
            ("la", &[&one, &other]),
        ] {
            assert!(!fingerprint.is_of(owner, pins));
        }
        let again = PinFingerprint::of("lab", &[&one, &other]).unwrap();
        assert_ne!(fingerprint, again); // salted
        assert!(!format!("{fingerprint:?}").contains(&hex::encode(&fingerprint.hash)));
    }
}
