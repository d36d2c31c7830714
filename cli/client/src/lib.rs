//! A session for a target: temporary AWS credentials that the agent's key vouched for.
//!
//! The path of a session: options, the targets file and the [`environment`] become a [`target`]; [`sessions`] finds
//! its session in the [`cache`] or asks for one by `create_session`: the agent signs a [`request`] by
//! [`agent_client`], [`http`] sends it, AWS's [`answer`] becomes [`credentials`] or an [`aws_refusal`].
//! [`refresher`] keeps a session fresh for as long as somebody hands it out, by [`refresh_policy`].

pub mod agent_client;
pub mod answer;
pub mod aws_refusal;
pub mod cache;
pub mod clock_skew;
pub mod create_session;
pub mod credentials;
mod diagnostic;
pub mod environment;
mod error;
pub mod exit;
pub mod http;
pub mod input;
pub mod moment;
pub mod progress;
pub mod proxy;
pub mod refresh_policy;
pub mod refresher;
pub mod request;
pub mod retry;
pub mod session;
pub mod sessions;
pub mod socket_access;
pub mod target;
pub mod timeout;

pub use diagnostic::Diagnostic;
pub use error::Error;
