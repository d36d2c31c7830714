//! `roleseal-agent`: signs AWS IAM Roles Anywhere `CreateSession` requests for the local processes
//! that its policy allows, with keys that never leave their token.
//!
//! [`connection`] tells the story of one request; docs/architecture.md has its steps, a file each. [`sandbox`] takes from
//! the agent what it does not need; what it then cannot do itself, such as starting token programs, its [`launcher`] does.
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
