//! A PIN. It is read in the token program only, just before it is used.

mod error;
mod file;
mod fingerprint;
mod prompt;
mod read_all;
mod source;

use std::fmt;
use std::io;
use std::sync::Arc;

use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use zeroize::Zeroizing;

use crate::secret_memory::SecretMemory;
pub use error::PinError;
pub use fingerprint::{Failures, PinFingerprint, PinKey};
pub use source::{PinSource, Question, TakeOver};

/// A PIN, in memory that is locked and wiped. There is one copy of it, however often it is cloned. Its
/// `Debug` shows nothing.
#[derive(Clone)]
pub struct Pin {
    memory: Arc<SecretMemory>,
    length: usize,
}

/// Longer than any token's maximum; a file of this size is not a PIN.
const PIN_LIMIT: usize = 1024;

impl Pin {
    /// The PIN, for the one call that hands it to the token.
    pub fn secret(&self) -> &[u8] {
        self.memory.bytes().get(..self.length).unwrap_or_default()
    }

    /// Whether it has a blank at an end, which nobody sees in a file.
    pub fn has_blank_end(&self) -> bool {
        self.secret().trim_ascii() != self.secret()
    }

    /// From what `read` writes, which says how much that is; or what is wrong with it.
    fn read(
        read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<Result<Pin, &'static str>> {
        let mut memory = SecretMemory::new(PIN_LIMIT);
        let read = read(memory.bytes_mut())?;
        Ok(find_pin(memory, read))
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

/// What some editors put in front of UTF-8.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// The one PIN in the first `read` bytes, without a closing line break; or what is wrong with them.
fn find_pin(memory: SecretMemory, read: usize) -> Result<Pin, &'static str> {
    let text = memory.bytes().get(..read).unwrap_or_default();
    if std::str::from_utf8(text).is_err() {
        return Err("is no text (UTF-8)");
    }
    if text.starts_with(BYTE_ORDER_MARK) {
        return Err("starts with a byte order mark, which is part of no PIN: write it without one");
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
