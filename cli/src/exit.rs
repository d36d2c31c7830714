//! Exit codes: scripts rely on them.

use std::process::ExitCode;

/// How a run failed. Success is 0, and 2 is clap's own for a usage error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Something local: standard output, the CA bundle.
    Failed = 1,
    /// Nobody at the socket, or no sensible answer.
    AgentUnreachable = 3,
    /// The agent's policy, or the request itself.
    RefusedByAgent = 4,
    /// The identity's key, certificate or token.
    TokenTrouble = 5,
    /// An HTTP answer that brings no credentials.
    RefusedByAws = 6,
    /// No HTTP answer.
    Network = 7,
}

/// The codes as the help shows them.
pub(crate) const HELP: &str = "\
Exit codes:
  0  done
  1  something on this host failed, such as reading the CA bundle or writing the output
  2  usage: the arguments are wrong or do not fit together
  3  roleseal-agent cannot be reached or gives no sensible answer
  4  roleseal-agent refused: its policy, or the request itself
  5  the token or the identity is in trouble: token gone, PIN rejected, certificate unusable, busy
  6  AWS refused, or its answer holds no usable credentials
  7  network: name resolution, connection, TLS, timeout";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}
