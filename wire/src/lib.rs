//! `org.roleseal.Agent`, the protocol between `roleseal` and `roleseal-agent`.
//!
//! It is [Varlink](https://varlink.org/): over a Unix stream socket, each message is one JSON
//! object and a NUL byte. A caller sends `{"method": …, "parameters": {…}}` and reads
//! `{"parameters": {…}}` or `{"error": …, "parameters": {…}}`. Calls on one connection are
//! answered in their order. Any Varlink client can speak it; [`INTERFACE`] is the whole interface:
//!
//! ```varlink
#![doc = include_str!("org.roleseal.Agent.varlink")]
//! ```
//!
//! The path of a message: [`Transport`] cuts the stream into frames, with a limit and deadlines;
//! the [`codec`] turns a frame into a [`Request`] or [`Reply`] and back; [`Client`] is both ends of
//! that for a caller. There is no policy here and no cryptography.

mod client;
pub mod codec;
mod json_object;
mod message;
mod transport;

pub use client::{Client, ClientError};
pub use codec::INTERFACE_NAME;
pub use json_object::JsonObject;
pub use message::{
    Call, Identity, PinSource, Refusal, Reply, Request, RequestFault, Rule, ServiceInfo, State,
    UnsignedRequest,
};
pub use transport::{MESSAGE_LIMIT, Presence, REPLY_LIMIT, Transport, TransportError};

/// The interface's definition, as `GetInterfaceDescription` answers it.
pub const INTERFACE: &str = include_str!("org.roleseal.Agent.varlink");
