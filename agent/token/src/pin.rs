//! Where a PIN comes from. It is read in the token program only, just before it is used.

mod prompt;

use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Access, OFlags, access};
use rustix::rand::{GetRandomFlags, getrandom};
use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use sha2::{Digest, Sha256};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::secret_memory::SecretMemory;

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

/// A PIN, in memory that is locked and wiped. There is one copy of it, however often it is cloned. Its
/// `Debug` shows nothing.
#[derive(Clone)]
pub struct Pin {
    memory: Arc<SecretMemory>,
    length: usize,
}

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
    /// No person gave it.
    #[error("{question}: {error}; or name a file or a systemd credential that has it")]
    NotGiven {
        /// What was asked for.
        question: String,
        /// Why there is none.
        error: io::Error,
    },
}

/// Longer than any token's maximum; a file of this size is not a PIN.
const PIN_LIMIT: usize = 1024;

impl PinSource {
    /// Whether the PIN could be read by a token program, without opening its file: a confined agent may not.
    pub fn check(&self) -> Result<(), PinError> {
        match self {
            PinSource::Value(_) | PinSource::Terminal(_) | PinSource::AskPassword(_) => Ok(()),
            PinSource::File(path) => check_private(&look_at(path)?, path),
            PinSource::Credential(name) => look_at(&credential_path(name)?).map(drop),
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
            PinSource::File(path) => read_pin(open_private(path)?, path),
            PinSource::Credential(name) => {
                let path = credential_path(name)?;
                read_pin(open_plain(&path)?, &path)
            }
            PinSource::Terminal(question) => question.ask(|text| {
                let mut memory = SecretMemory::new(PIN_LIMIT);
                let length = prompt::at_terminal(text, memory.bytes_mut())?;
                Ok((memory, length))
            }),
            PinSource::AskPassword(question) => question.ask(|text| {
                prompt::by_systemd(text, |output| {
                    let mut memory = SecretMemory::new(PIN_LIMIT);
                    let length = read_all(output, memory.bytes_mut())?;
                    Ok((memory, length))
                })
            }),
        }
    }
}

impl Question {
    fn ask(
        &self,
        answer: impl Fn(&str) -> io::Result<(SecretMemory, usize)>,
    ) -> Result<Pin, PinError> {
        let given = |text: &str| {
            let (memory, read) = answer(text)?;
            find_pin(memory, read).map_err(io::Error::other)
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

/// systemd keeps this directory readable for the service alone, partly by ACLs that the mode bits do
/// not show: no check of modes there.
fn credential_path(name: &str) -> Result<PathBuf, PinError> {
    match std::env::var_os("CREDENTIALS_DIRECTORY") {
        Some(directory) => Ok(Path::new(&directory).join(name)),
        None => Err(PinError::NoCredential(name.to_owned())),
    }
}

/// What is known of a regular file that this user may read.
fn look_at(path: &Path) -> Result<Metadata, PinError> {
    let unreadable = |error| PinError::Unreadable {
        path: path.to_owned(),
        error,
    };
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    check_plain(&metadata, path)?;
    access(path, Access::READ_OK).map_err(|error| unreadable(error.into()))?;
    Ok(metadata)
}

fn check_plain(metadata: &Metadata, path: &Path) -> Result<(), PinError> {
    match metadata.is_file() {
        true => Ok(()),
        false => Err(PinError::Unfit {
            path: path.to_owned(),
            fault: "is not a regular file",
        }),
    }
}

/// Only its owner, and the agent's own group, may have access.
fn check_private(metadata: &Metadata, path: &Path) -> Result<(), PinError> {
    let own_group = metadata.gid() == rustix::process::getegid().as_raw();
    let others = if own_group { 0o007 } else { 0o077 };
    match metadata.mode() & others {
        0 => Ok(()),
        _ => Err(PinError::Exposed {
            path: path.to_owned(),
            mode: metadata.mode() & 0o7777,
        }),
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
    check_plain(&file.metadata().map_err(unreadable)?, path)?;
    Ok(file)
}

/// Opens a regular file that only its owner, and the agent's own group, can read.
fn open_private(path: &Path) -> Result<File, PinError> {
    let file = open_plain(path)?;
    let metadata = file.metadata().map_err(|error| PinError::Unreadable {
        path: path.to_owned(),
        error,
    })?;
    check_private(&metadata, path)?;
    Ok(file)
}

fn read_pin(file: File, path: &Path) -> Result<Pin, PinError> {
    let mut memory = SecretMemory::new(PIN_LIMIT);
    let read = read_all(file, memory.bytes_mut()).map_err(|error| PinError::Unreadable {
        path: path.to_owned(),
        error,
    })?;
    find_pin(memory, read).map_err(|fault| PinError::Unfit {
        path: path.to_owned(),
        fault,
    })
}

/// The one PIN in the first `read` bytes, without a closing line break; or what is wrong with them.
fn find_pin(memory: SecretMemory, read: usize) -> Result<Pin, &'static str> {
    let text = memory.bytes().get(..read).unwrap_or_default();
    if std::str::from_utf8(text).is_err() {
        return Err("is no text (UTF-8)");
    }
    let line = text.strip_suffix(b"\n").unwrap_or(text);
    let pin = line.strip_suffix(b"\r").unwrap_or(line);
    if pin.is_empty() {
        return Err("is empty");
    }
    if read == PIN_LIMIT || pin.contains(&b'\n') || pin.contains(&0) {
        return Err("holds more than one PIN");
    }
    let length = pin.len();
    Ok(Pin {
        memory: Arc::new(memory),
        length,
    })
}

/// Straight to where the PIN stays: there is no copy of it to wipe. Says how much there is, up to the
/// size of `buffer`.
fn read_all(mut file: impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while let Some(rest) = buffer.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

impl Pin {
    /// The PIN, for the one call that hands it to the token.
    pub fn secret(&self) -> &[u8] {
        self.memory.bytes().get(..self.length).unwrap_or_default()
    }

    fn new(length: usize, write: impl FnOnce(&mut [u8])) -> Pin {
        let mut memory = SecretMemory::new(length.max(1)); // there are no empty mappings
        write(memory.bytes_mut().get_mut(..length).unwrap_or_default());
        Pin {
            memory: Arc::new(memory),
            length,
        }
    }
}

/// Wipes the string.
impl From<String> for Pin {
    fn from(pin: String) -> Pin {
        let pin = Zeroizing::new(pin);
        Pin::new(pin.len(), |memory| memory.copy_from_slice(pin.as_bytes()))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("Pin(..)")
    }
}

impl PartialEq for Pin {
    fn eq(&self, other: &Pin) -> bool {
        self.secret() == other.secret()
    }
}

impl Eq for Pin {}

/// For the link alone: a `pin-value` stands in the agent's configuration and has to reach the token. In
/// hex, which JSON has nothing to escape in: escapes go through a buffer that nobody wipes.
impl Serialize for Pin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let hex = Zeroizing::new(hex::encode(self.secret()));
        serializer.serialize_str(&hex)
    }
}

impl<'de> Deserialize<'de> for Pin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Pin, D::Error> {
        struct Hex;
        impl Visitor<'_> for Hex {
            type Value = Pin;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a PIN in hex")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Pin, E> {
                let mut result = Ok(());
                let pin = Pin::new(text.len() / 2, |memory| {
                    result = hex::decode_to_slice(text, memory);
                });
                // Not the error's own text: it shows a character.
                result.map_err(|_| E::custom("the PIN is no hex"))?;
                Ok(pin)
            }
        }
        deserializer.deserialize_str(Hex)
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
    let secrets = pins.iter().map(|pin| pin.secret());
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
        Ok(String::from_utf8(pin.secret().to_vec()).unwrap())
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
    fn the_link_carries_any_pin_and_no_escapes() {
        for text in ["1234", "", "\"\\\n\u{1}é"] {
            let pin = Pin::from(text.to_owned());
            let json = serde_json::to_string(&pin).unwrap();
            assert!(!json.contains('\\'), "{json}");
            let back: Pin = serde_json::from_str(&json).unwrap();
            assert_eq!(back.secret(), text.as_bytes());
        }
        for text in ["\"3\"", "\"3g\"", "\"é\"", "1", "null"] {
            let error = serde_json::from_str::<Pin>(text).unwrap_err().to_string();
            assert!(!error.contains("3g"), "{error}");
        }
    }

    #[test]
    fn a_clone_is_no_copy() {
        let pin = Pin::from("1234".to_owned());
        assert_eq!(pin.clone().secret().as_ptr(), pin.secret().as_ptr());
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
