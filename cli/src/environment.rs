//! What the flags leave open: environment variables, then defaults. An empty variable counts as
//! unset, as AWS's tools have it.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Where the system's agent listens.
const SYSTEM_SOCKET: &str = "/run/roleseal/agent.sock";

/// The variables, as the help shows them.
pub(crate) const HELP: &str = "\
Environment:
  ROLESEAL_SOCKET  the agent's socket, where --socket is not given
  XDG_RUNTIME_DIR  $XDG_RUNTIME_DIR/roleseal/agent.sock is used next, where it exists
                   (else /run/roleseal/agent.sock)
  AWS_CA_BUNDLE    certificates to trust instead of the system's, where --ca-bundle is not given
  SSL_CERT_FILE, SSL_CERT_DIR
                   where the system's certificates are, if not in the usual place";

/// The agent's socket.
pub(crate) fn socket(flag: Option<PathBuf>) -> PathBuf {
    choose_socket(
        flag,
        variable("ROLESEAL_SOCKET"),
        variable("XDG_RUNTIME_DIR"),
        Path::exists,
    )
}

/// The certificates to trust; `None` for the system's.
pub(crate) fn ca_bundle(flag: Option<PathBuf>) -> Option<PathBuf> {
    flag.or_else(|| variable("AWS_CA_BUNDLE").map(PathBuf::from))
}

fn choose_socket(
    flag: Option<PathBuf>,
    roleseal_socket: Option<OsString>,
    runtime_directory: Option<OsString>,
    exists: impl Fn(&Path) -> bool,
) -> PathBuf {
    let users_own = || {
        runtime_directory
            .map(|directory| Path::new(&directory).join("roleseal/agent.sock"))
            .filter(|path| path.is_absolute() && exists(path)) // XDG: relative ones are invalid
    };
    flag.or_else(|| roleseal_socket.map(PathBuf::from))
        .or_else(users_own)
        .unwrap_or_else(|| SYSTEM_SOCKET.into())
}

fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_wins_then_the_variable_then_the_users_own_then_the_systems() {
        let choose = |flag: Option<&str>, variable: Option<&str>, runtime: Option<&str>, exists| {
            choose_socket(
                flag.map(PathBuf::from),
                variable.map(OsString::from),
                runtime.map(OsString::from),
                |_| exists,
            )
            .into_os_string()
            .into_string()
            .unwrap()
        };
        let run = Some("/run/user/7");
        assert_eq!(choose(Some("f"), Some("v"), run, true), "f");
        assert_eq!(choose(None, Some("v"), run, true), "v");
        assert_eq!(
            choose(None, None, run, true),
            "/run/user/7/roleseal/agent.sock"
        );
        for (runtime, exists) in [(run, false), (None, true), (Some("relative"), true)] {
            assert_eq!(choose(None, None, runtime, exists), SYSTEM_SOCKET);
        }
        assert!(HELP.contains(SYSTEM_SOCKET));
    }
}
