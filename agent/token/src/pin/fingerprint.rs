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
    #[serde(with = "crate::hex_bytes")]
    salt: Vec<u8>,
    #[serde(with = "crate::hex_bytes")]
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
