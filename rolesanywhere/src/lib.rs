//! What both sides of the socket know of AWS IAM Roles Anywhere: ARNs, partitions and endpoints,
//! the limits of a session's parameters, and certificates as the service reads them, with how names in
//! them are shown. Each is a type once read. Sources: the IAM Roles Anywhere user guide, "The CreateSession API", "Trust model" and
//! "Endpoints and quotas".

mod arn;
pub mod certificate;
mod endpoint;
mod partition;
mod printable;
mod rsa_length;
mod session;

pub use arn::{ArnError, ProfileArn, RoleArn, Target, TrustAnchorArn};
pub use endpoint::{Endpoint, EndpointError};
pub use partition::{Partition, Region};
pub use printable::printable;
pub use rsa_length::{RSA_LENGTHS, is_rsa_length};
pub use session::{DEFAULT_DURATION, DURATION, SessionDuration, SessionName};
