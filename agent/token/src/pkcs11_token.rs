//! A token behind a PKCS#11 module, as the configuration names it and a token program opens it.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::module_file::is_same_module;
use crate::{PinSource, Pkcs11Uri, TokenMatch};

/// Where PKCS#11 keys are, and the PIN that they share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pkcs11Token {
    /// The PKCS#11 module: absolute, or a bare name for the dynamic linker.
    pub module: PathBuf,
    /// Whether the module may use networks; `None` leaves it to what the module is known to need.
    pub network: Option<bool>,
    /// Which token of the module.
    pub token: TokenMatch,
    /// The user PIN; `None` where the token needs no login.
    pub pin: Option<PinSource>,
    /// Sessions to sign with in parallel, at the most.
    pub sessions: usize,
}

impl Pkcs11Token {
    /// Returns whether both name the token in the same way.
    pub fn is_named_as(&self, other: &Pkcs11Token) -> bool {
        is_same_module(&self.module, &other.module) && self.token == other.token
    }

    /// Returns whether one token could be meant by both.
    pub fn overlaps(&self, other: &Pkcs11Token) -> bool {
        is_same_module(&self.module, &other.module) && self.token.overlaps(&other.token)
    }
}

/// Without module and PIN.
impl fmt::Display for Pkcs11Token {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        Pkcs11Uri::from(self.token.clone()).fmt(f)
    }
}
