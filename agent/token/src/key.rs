//! The seam between the agent and every kind of token.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::StringToSign;

/// A private key that stays where it is.
///
/// No public key here: whether a key belongs to a certificate is proved by a signature, which every
/// token can make, while public-key objects are missing from many.
pub trait Key {
    /// Signs the text: with SHA-256 for RSA and ECDSA, whatever the curve.
    fn sign(&mut self, text: &StringToSign) -> Result<Signature, TokenError>;
}

/// A signature as AWS wants it: PKCS#1 v1.5 for RSA, DER `SEQUENCE { r, s }` for ECDSA.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Signature(#[serde(with = "crate::hex_bytes")] pub Vec<u8>);

/// Why a token did not do what it was asked, named by what helps. Each text says what failed, on
/// what, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum TokenError {
    /// The token or its session is not there, or no longer: open it again.
    #[error("{0}")]
    Gone(String),
    /// No answer in time: end the token program and open the token again.
    #[error("{0}")]
    Hung(String),
    /// The PIN was refused, or must not be tried: an operator has to act first.
    #[error("{0}")]
    PinRejected(String),
    /// It must not be tried before so many seconds have passed.
    #[error("{text}")]
    Wait {
        /// Why.
        text: String,
        /// How long.
        seconds: u64,
    },
    /// Key, certificate or configuration do not fit the token: an operator has to mend them.
    #[error("{0}")]
    Unusable(String),
    /// The token answered nonsense.
    #[error("{0}")]
    Broken(String),
}

/// Enough for twenty candidates with their URIs, in characters; what a token says can be of any length.
const TEXT_LIMIT: usize = 4096;

impl TokenError {
    /// Says in front what it is about.
    #[must_use]
    pub fn about(self, name: &str) -> TokenError {
        self.with_text(|text| format!("{name}: {text}"))
    }

    /// With a text that fits into an answer.
    #[must_use]
    pub fn shortened(self) -> TokenError {
        self.with_text(|mut text| {
            if let Some((end, _)) = text.char_indices().nth(TEXT_LIMIT) {
                text.truncate(end);
                text.push('…');
            }
            text
        })
    }

    fn with_text(self, change: impl FnOnce(String) -> String) -> TokenError {
        match self {
            TokenError::Gone(text) => TokenError::Gone(change(text)),
            TokenError::Hung(text) => TokenError::Hung(change(text)),
            TokenError::PinRejected(text) => TokenError::PinRejected(change(text)),
            TokenError::Wait { text, seconds } => TokenError::Wait {
                text: change(text),
                seconds,
            },
            TokenError::Unusable(text) => TokenError::Unusable(change(text)),
            TokenError::Broken(text) => TokenError::Broken(change(text)),
        }
    }
}
