//! Service-account tokens of Kubernetes: JWTs that a cluster signs for its pods, and for whom they stand.
//!
//! A token goes through [`Expected::read`], which checks everything but the signature, at the cost of reading it, and
//! then through [`Unverified::verify`] with the cluster's [`KeySet`]. [`Refresh`] says when that is read again. Nothing here
//! reads a clock, a file or a socket.

mod account;
mod keys;
mod pattern;
mod provider;
mod refresh;
mod session_name;
mod token;

pub use account::{Caller, Pod, ServiceAccount};
pub use keys::{KEY_SET_LIMIT, KeySet, KeySetError};
pub use pattern::AccountPattern;
pub use refresh::{Pace, Refresh};
pub use session_name::SessionNameTemplate;
pub use token::{Expected, Refusal, TOKEN_LIMIT, Unverified, quoted};
