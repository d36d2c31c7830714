//! `roleseal-agent`: signs AWS IAM Roles Anywhere `CreateSession` requests for the local processes
//! that its policy allows, with keys that never leave their token.
//!
//! The path of one request: [`listener`] accepts the connection and asks the kernel who it is
//! ([`peer`]); [`connection`] reads the call and tells the rest as a story: [`identity`] says which
//! identity is meant; [`create_session`] reads the unsigned request strictly; [`policy`] judges it;
//! [`sigv4`] makes the string to sign; [`token_worker`] has it signed by its token program;
//! [`config::certificate`] verifies the signature; [`sigv4`] writes the headers; a [`decision`] says in the [`log`]
//! what was decided, and [`metrics`] counts it.
//!
//! Before all that, [`sandbox`] takes from the agent what it does not need; what it then cannot do itself,
//! such as starting token programs, its [`launcher`] does. Beside that path, [`state`] puts a reloaded
//! [configuration](config) in force, [`watch`] takes over renewed certificates, and [`renewal_view`] tells how renewals went.
//!
//! Keys, certificate requests and renewals are roleseal-admin's, another program.

pub mod accounts;
pub mod arguments;
pub mod connection;
pub mod create_session;
pub mod decision;
pub mod descriptors;
pub mod identity;
pub mod launcher;
pub mod listener;
pub mod log;
pub mod metrics;
pub mod metrics_server;
pub mod panics;
pub mod peer;
pub mod policy;
pub mod rate;
pub mod renewal_view;
pub mod sandbox;
pub mod service_manager;
pub mod sigv4;
pub mod state;
mod sync;
pub mod token_worker;
pub mod unix_socket;
pub mod watch;
