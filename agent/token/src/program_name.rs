//! The token programs by name.

use serde::{Deserialize, Serialize};

/// A token program: nothing else is ever started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Program {
    /// `roleseal-pkcs11`.
    Pkcs11,
    /// `roleseal-tpm`.
    Tpm,
}

impl Program {
    /// Its file, beside the agent's.
    pub fn file_name(self) -> &'static str {
        match self {
            Program::Pkcs11 => "roleseal-pkcs11",
            Program::Tpm => "roleseal-tpm",
        }
    }
}
