//! Session tokens of IMDSv2. They say themselves until when they are good, under a MAC: however many are
//! asked for, nothing is kept.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ring::hmac;

use super::secret::{NoRandom, random_key};

/// Makes and checks tokens. Times are since any one moment, by a clock that is not set.
pub(super) struct Tokens {
    key: hmac::Key,
    /// No two tokens are the same.
    issued: AtomicU64,
}

/// Its end in seconds, and its number.
const CLAIM: usize = 16;
const TAG: usize = 32;

impl Tokens {
    pub(super) fn new() -> Result<Tokens, NoRandom> {
        Ok(Tokens {
            key: random_key()?,
            issued: AtomicU64::new(0),
        })
    }

    pub(super) fn issue(&self, ttl: Duration, now: Duration) -> String {
        let end = now.saturating_add(ttl).as_secs();
        let number = self.issued.fetch_add(1, Ordering::Relaxed);
        let mut token = [end.to_be_bytes(), number.to_be_bytes()].concat();
        let tag = hmac::sign(&self.key, &token);
        token.extend(tag.as_ref());
        hex::encode(token)
    }

    pub(super) fn check(&self, token: &[u8], now: Duration) -> bool {
        let mut bytes = [0; CLAIM + TAG];
        if hex::decode_to_slice(token, &mut bytes).is_err() {
            return false;
        }
        let (claim, tag) = bytes.split_at(CLAIM);
        let Some(end) = claim.first_chunk().copied().map(u64::from_be_bytes) else {
            return false;
        };
        hmac::verify(&self.key, claim, tag).is_ok() && now.as_secs() < end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(7);
    const TTL: Duration = Duration::from_secs(60);

    #[test]
    fn a_token_is_good_until_its_end() {
        let tokens = Tokens::new().unwrap();
        let token = tokens.issue(TTL, NOW);
        assert!(tokens.check(token.as_bytes(), NOW));
        assert!(tokens.check(token.as_bytes(), NOW + TTL - Duration::from_secs(1)));
        assert!(!tokens.check(token.as_bytes(), NOW + TTL));
        assert_ne!(token, tokens.issue(TTL, NOW));
    }

    #[test]
    fn what_was_not_issued_here_is_no_token() {
        let tokens = Tokens::new().unwrap();
        let token = tokens.issue(TTL, NOW).into_bytes();
        let elsewhere = Tokens::new().unwrap().issue(TTL, NOW);
        assert!(!tokens.check(elsewhere.as_bytes(), NOW));
        for position in 0..token.len() {
            let mut changed = token.clone();
            changed[position] = if changed[position] == b'0' {
                b'1'
            } else {
                b'0'
            };
            assert!(!tokens.check(&changed, NOW), "{position}");
        }
        for other in [&b""[..], b"x", &token[2..], &[&token[..], b"00"].concat()] {
            assert!(!tokens.check(other, NOW));
        }
    }
}
