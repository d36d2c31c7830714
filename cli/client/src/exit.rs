//! Exit codes: scripts rely on them.

use std::process::ExitCode;

/// Why a command failed. Success is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Something local: standard output, the CA bundle.
    Failed = 1,
    /// The arguments, by clap's own choice of a code, or the target.
    Usage = 2,
    /// Nobody at the socket, or no sensible answer.
    AgentUnreachable = 3,
    /// The agent's policy, or the request itself.
    RefusedByAgent = 4,
    /// The identity's key, certificate or token.
    TokenTrouble = 5,
    /// An HTTP answer that brings no credentials; of `inspect`, `aws-setup` and `doctor`, a certificate or a trust
    /// policy for which there would be one.
    RefusedByAws = 6,
    /// No HTTP answer.
    Network = 7,
    /// The command of `exec` cannot be started.
    CommandNotRunnable = 126,
    /// There is no such command.
    CommandNotFound = 127,
}

/// The codes as the help shows them.
pub const HELP: &str = "\
Exit codes:
  0  done
  1  something on this host failed, such as reading the CA bundle or writing the output
  2  usage: the arguments or the target's settings are wrong or do not fit together
  3  roleseal-agent cannot be reached or gives no sensible answer
  4  roleseal-agent refused: its policy, or the request itself
  5  the token or the identity is in trouble: token gone, PIN rejected, certificate unusable, busy
  6  AWS refused, or its answer holds no usable credentials; inspect, aws-setup, doctor: AWS would refuse
  7  network: name resolution, connection, TLS, timeout
exec has those of its command, or 128 and the number of the signal that ended it; 126 where it
cannot be started, 127 if it does not exist. Commands that only print are terminated by SIGPIPE.";

impl Exit {
    /// The failure of a process that ended with this code.
    pub(crate) fn from_code(code: u8) -> Exit {
        [
            Exit::Usage,
            Exit::AgentUnreachable,
            Exit::RefusedByAgent,
            Exit::TokenTrouble,
            Exit::RefusedByAws,
            Exit::Network,
        ]
        .into_iter()
        .find(|exit| *exit as u8 == code)
        .unwrap_or(Exit::Failed)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}
