//! What `roleseal-agent` and its token programs share.
//!
//! The agent starts one token program for each token and speaks with it over a socketpair: first it
//! sends [`link::Open`], then any number of strings to sign, and [`link::Open`] again where a token that
//! was lost may be had again by the same program. The token program reads the PIN itself,
//! and reads each [`StringToSign`] again before it signs: whatever happens to the agent, the key
//! signs nothing but IAM Roles Anywhere requests.

pub mod account;
pub mod greeting;
mod hex_bytes;
pub mod host;
mod key;
pub mod link;
mod module_file;
pub mod operator;
mod pin;
mod pkcs11_token;
mod pkcs11_uri;
pub mod program;
mod program_name;
pub mod sandbox;
mod secret_memory;
pub mod signals;
pub mod softhsm;
mod string_to_sign;
mod tcti;
pub mod tpm_device;

pub use key::{Key, Signature, TokenError};
pub use pin::{Failures, Pin, PinError, PinFingerprint, PinKey, PinSource, Question, TakeOver};
pub use pkcs11_token::Pkcs11Token;
pub use pkcs11_uri::{ObjectMatch, Pkcs11Uri, TokenMatch, UriError, unpad};
pub use program_name::Program;
pub use rolesanywhere::{RSA_LENGTHS, is_rsa_length};
pub use string_to_sign::{Algorithm, AmzDate, NotASignableText, Scope, StringToSign};
pub use tcti::{Tcti, TctiError};
