//! PINs that were tried are known again without being kept.

use std::fmt;
use std::io;

use ring::hmac;
use rustix::rand::{GetRandomFlags, getrandom};
use serde::{Deserialize, Serialize};

use super::Pin;

/// The key of fingerprints: without it, nobody guesses a PIN from one. The agent keeps it, and lends it to token
/// programs.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PinKey(#[serde(with = "crate::hex_bytes::array")] [u8; LENGTH]);

/// Tells whether a PIN is one that was tried before: HMAC-SHA-256 over the PIN and what the token says of itself.
/// Computed in the token program, which alone reads PINs.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PinFingerprint(#[serde(with = "crate::hex_bytes::array")] [u8; LENGTH]);

/// How a token counts failures, as far as it tells: what shows later whether a try without an answer was one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Failures {
    /// The token does not tell.
    #[default]
    Untold,
    /// So many now. The token forgets them in time.
    Counted(u32),
    /// Whether there was one since the last login, until the next.
    Flagged(bool),
    /// A failure does not count for this key.
    Harmless,
}

/// Of a key and of a fingerprint, in bytes.
const LENGTH: usize = 32;

impl PinKey {
    /// Makes a new one.
    pub fn random() -> io::Result<PinKey> {
        let mut key = [0; LENGTH];
        match getrandom(&mut key, GetRandomFlags::empty())? {
            LENGTH => Ok(PinKey(key)),
            _ => Err(io::Error::other("the system has no random bytes")),
        }
    }

    /// For its file.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// From its file; `None` where that is damaged.
    pub fn from_bytes(bytes: &[u8]) -> Option<PinKey> {
        Some(PinKey(bytes.try_into().ok()?))
    }
}

impl PinFingerprint {
    /// Of the PINs that a key or token is used with. `owner`: what it says of itself.
    pub fn of(key: &PinKey, owner: &str, pins: &[&Pin]) -> PinFingerprint {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key.0);
        let mut text = hmac::Context::with_key(&key);
        let secrets = pins.iter().map(|pin| pin.secret());
        for part in [owner.as_bytes()].into_iter().chain(secrets) {
            text.update(&(part.len() as u64).to_be_bytes());
            text.update(part);
        }
        let mut hash = [0; LENGTH];
        hash.copy_from_slice(text.sign().as_ref()); // SHA-256 has this length
        PinFingerprint(hash)
    }

    /// In hex, such as for the name of a file.
    pub fn to_hex(&self) -> String {
        hex::encode(self.0)
    }

    /// From hex.
    pub fn from_hex(text: &str) -> Option<PinFingerprint> {
        let mut hash = [0; LENGTH];
        hex::decode_to_slice(text, &mut hash).ok()?;
        Some(PinFingerprint(hash))
    }
}

impl Failures {
    /// Whether a later look can tell if a try at this count was a failure.
    pub fn can_tell(self) -> bool {
        !matches!(self, Failures::Untold | Failures::Flagged(true))
    }

    /// Whether a try at this count was no failure, as the token counts `now`.
    pub fn was_none(self, now: Failures) -> bool {
        match (self, now) {
            (_, Failures::Harmless | Failures::Flagged(false)) => true,
            (Failures::Counted(before), Failures::Counted(now)) => now <= before,
            _ => false,
        }
    }
}

/// PINs could be guessed with it.
impl fmt::Debug for PinKey {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("PinKey(…)")
    }
}

impl fmt::Debug for PinFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("PinFingerprint(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_knows_its_pins_and_their_owner_again() {
        let [one, other] = ["1234", "1235"].map(|pin| Pin::from(pin.to_owned()));
        let key = PinKey::random().unwrap();
        let fingerprint = PinFingerprint::of(&key, "lab", &[&one, &other]);
        assert_eq!(
            fingerprint,
            PinFingerprint::of(&key, "lab", &[&one, &other])
        );
        for (owner, pins) in [
            ("lab", &[&one][..]),
            ("lab", &[&other, &one]),
            ("la", &[&one, &other]),
        ] {
            assert_ne!(fingerprint, PinFingerprint::of(&key, owner, pins));
        }
        let other_key = PinKey::random().unwrap();
        assert_ne!(
            fingerprint,
            PinFingerprint::of(&other_key, "lab", &[&one, &other])
        );
        assert_eq!(
            PinFingerprint::from_hex(&fingerprint.to_hex()),
            Some(fingerprint)
        );
        assert_eq!(PinFingerprint::from_hex("0a"), None);
        assert_eq!(PinKey::from_bytes(key.bytes()), Some(key));
        assert_eq!(PinKey::from_bytes(b"short"), None);
    }

    #[test]
    fn a_later_look_tells_of_a_try_without_an_answer() {
        use Failures::*;
        for (before, now, was_none) in [
            (Untold, Counted(0), false),
            (Counted(1), Counted(1), true),
            (Counted(1), Counted(0), true),
            (Counted(1), Counted(2), false),
            (Counted(1), Untold, false),
            (Counted(1), Harmless, true),
            (Harmless, Counted(9), false),
            (Flagged(false), Flagged(false), true),
            (Flagged(false), Flagged(true), false),
            (Untold, Flagged(false), true),
        ] {
            assert_eq!(before.was_none(now), was_none, "{before:?} {now:?}");
        }
        assert!(!Untold.can_tell() && !Flagged(true).can_tell());
        assert!(Flagged(false).can_tell() && Counted(7).can_tell() && Harmless.can_tell());
    }
}
