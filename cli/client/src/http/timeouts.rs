//! How long each part of a request may take.

use std::time::Duration;

/// TCP and TLS together. A healthy endpoint takes some 100 ms from anywhere; a firewall that drops
/// packets should not cost an AWS CLI call the time for all tries.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// From the request's last byte to the answer's head, and from there to its end. The service takes less
/// than a second; a try that hangs should leave time for another.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
