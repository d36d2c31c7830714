//! `roleseal-agent`: signs AWS IAM Roles Anywhere `CreateSession` requests for the local processes
//! that its policy allows, with keys that never leave their token.
//!
//! The path of one request: [`listener`] accepts the connection and asks the kernel who it is
//! ([`peer`]); [`connection`] reads the call and tells the rest as a story: [`identity`] says which
//! identity is meant; [`create_session`] reads the unsigned request strictly; [`policy`] judges it;
//! [`sigv4`] makes the string to sign; [`keeper`] has it signed by the token program behind
//! [`token_process`]; [`certificate`] verifies the signature; [`sigv4`] writes the headers; [`audit`]
//! says what was decided.
//!
//! Before all that, [`harden`] and [`sandbox`] take from the agent what it does not need; what it then
//! cannot do itself, such as starting token programs, its [`launcher`] does.

pub mod accounts;
pub mod audit;
pub mod certificate;
pub mod config;
pub mod connection;
pub mod create_session;
pub mod harden;
pub mod identity;
pub mod keeper;
pub mod launcher;
pub mod listener;
pub mod peer;
pub mod policy;
pub mod sandbox;
pub mod sigv4;
pub mod token_process;
