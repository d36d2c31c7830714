//! `roleseal-agent`: signs AWS IAM Roles Anywhere `CreateSession` requests for the local processes
//! that its policy allows, with keys that never leave their token.
//!
//! The path of one request: [`listener`] accepts the connection and asks the kernel who it is
//! ([`peer`]); [`connection`] reads the call and tells the rest as a story: [`identity`] says which
//! identity is meant; [`create_session`] reads the unsigned request strictly; [`policy`] judges it;
//! [`sigv4`] makes the string to sign; [`keeper`] has it signed by the token program behind
//! [`token_process`]; [`certificate`] verifies the signature; [`sigv4`] writes the headers; [`audit`]
//! says what was decided, and [`metrics`] counts it.
//!
//! Before all that, [`sandbox`] takes from the agent what it does not need; what it then cannot do itself,
//! such as starting token programs, its [`launcher`] does. Beside that path, [`agent`] puts a reloaded
//! [`config`] in force, [`renewal`] has certificates renewed in time, and [`watch`] takes over those that were.
//!
//! An [`operator`]'s commands are another program in the same file: they make keys and requests, without the agent.

pub mod accounts;
pub mod agent;
pub mod audit;
pub mod certificate;
pub mod check;
pub mod config;
pub mod connection;
pub mod create_session;
pub mod descriptors;
pub mod executable;
pub mod identity;
pub mod keeper;
pub mod launcher;
pub mod listener;
pub mod metrics;
pub mod operator;
pub mod panics;
pub mod peer;
pub mod policy;
pub mod rate;
pub mod renewal;
pub mod sandbox;
pub mod sigv4;
pub mod token_process;
pub mod unit;
pub mod watch;
