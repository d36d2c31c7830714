//! Refused PINs are known again without being kept.

use std::fmt;
use std::io;

use rustix::rand::{GetRandomFlags, getrandom};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Pin;

/// Tells whether PINs are still the ones that were refused, without being them: a salted SHA-256. Made in
/// the token program; the agent keeps it, and hands it to the next token program.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinFingerprint {
    #[serde(default)]
    failures: Failures,
    #[serde(with = "crate::hex_bytes")]
    salt: Vec<u8>,
    #[serde(with = "crate::hex_bytes")]
    hash: Vec<u8>,
}

/// How many failures a token counts, as far as it tells: what shows later whether a try without an answer was one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Failures {
    /// The token does not tell.
    #[default]
    Untold,
    /// So many.
    Counted(u32),
    /// A failure does not count for this key.
    Harmless,
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
        let failures = Failures::Untold;
        Ok(PinFingerprint {
            failures,
            salt,
            hash,
        })
    }

    /// As a token counts failures before these PINs are tried.
    #[must_use]
    pub fn before_try(self, failures: Failures) -> PinFingerprint {
        PinFingerprint { failures, ..self }
    }

    /// Of PINs that the token refused, whatever it counts.
    #[must_use]
    pub fn refused(self) -> PinFingerprint {
        self.before_try(Failures::Untold)
    }

    /// Whether a later look can tell if the try of these PINs counted as a failure.
    pub fn can_tell(&self) -> bool {
        self.failures != Failures::Untold
    }

    /// Whether these PINs must not be tried, where the token counts `now`: they were refused; or their try had no
    /// answer, and the token counts a failure more.
    pub fn forbids(&self, now: Failures) -> bool {
        match (self.failures, now) {
            (Failures::Counted(before), Failures::Counted(now)) => now > before,
            (Failures::Harmless, _) | (Failures::Counted(_), Failures::Harmless) => false,
            (Failures::Untold, _) | (Failures::Counted(_), Failures::Untold) => true,
        }
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
        let counted = |count| fingerprint.clone().before_try(Failures::Counted(count));
        for (before, now, forbidden) in [
            (fingerprint.clone(), Failures::Counted(0), true),
            (counted(1), Failures::Counted(1), false),
            (counted(1), Failures::Counted(0), false),
            (counted(1), Failures::Counted(2), true),
            (counted(1), Failures::Untold, true),
            (counted(1), Failures::Harmless, false),
            (counted(1).refused(), Failures::Harmless, true),
            (
                fingerprint.clone().before_try(Failures::Harmless),
                Failures::Counted(9),
                false,
            ),
        ] {
            assert_eq!(
                before.forbids(now),
                forbidden,
                "{:?} {now:?}",
                before.failures
            );
        }
        let again = PinFingerprint::of("lab", &[&one, &other]).unwrap();
        assert_ne!(fingerprint, again); // salted
        assert!(!format!("{fingerprint:?}").contains(&hex::encode(&fingerprint.hash)));
    }
}
