//! Secrets that a client has to show.

use std::io;

use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;

/// A secret to compare with, in a time that tells nothing of it: what is compared are two MACs under a key
/// that nobody knows.
pub(crate) struct Secret {
    key: hmac::Key,
    expected: hmac::Tag,
}

/// The system gives no random bytes.
#[derive(Debug, Error)]
#[error("the system gives no random bytes")]
pub(crate) struct NoRandom;

impl From<NoRandom> for io::Error {
    fn from(error: NoRandom) -> io::Error {
        io::Error::other(error)
    }
}

/// Nobody guesses 256 bits.
const LENGTH: usize = 32;

impl Secret {
    pub(crate) fn new(text: &SecretString) -> Result<Secret, NoRandom> {
        let key = random_key()?;
        let expected = hmac::sign(&key, text.expose_secret().as_bytes());
        Ok(Secret { key, expected })
    }

    pub(crate) fn is(&self, shown: &[u8]) -> bool {
        hmac::verify(&self.key, shown, self.expected.as_ref()).is_ok()
    }

    /// A new one, in hex.
    pub(crate) fn random() -> Result<SecretString, NoRandom> {
        let mut bytes = [0; LENGTH];
        SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandom)?;
        Ok(hex::encode(bytes).into())
    }

    /// Whether a text has the form of one.
    pub(crate) fn is_well_formed(text: &[u8]) -> bool {
        text.len() == 2 * LENGTH && text.iter().all(u8::is_ascii_hexdigit)
    }
}

pub(super) fn random_key() -> Result<hmac::Key, NoRandom> {
    hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).map_err(|_| NoRandom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_secret_will_do() {
        let text = Secret::random().unwrap();
        let secret = Secret::new(&text).unwrap();
        let shown = text.expose_secret().as_bytes();
        assert!(secret.is(shown) && Secret::is_well_formed(shown));
        for other in [&[][..], &shown[1..], &[shown, b"0"].concat(), &[b'0'; 64]] {
            assert!(!secret.is(other));
        }
        assert_ne!(
            text.expose_secret(),
            Secret::random().unwrap().expose_secret()
        );
        assert!(!Secret::is_well_formed(b"") && !Secret::is_well_formed(&[b'x'; 64]));
    }
}
