//! What flags and files leave open: environment variables, then defaults. An empty variable counts as
//! unset, as AWS's tools have it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// Where the system's agent listens.
const SYSTEM_SOCKET: &str = "/run/roleseal/agent.sock";

/// The variables, as the help shows them.
pub const HELP: &str = "\
Environment, where neither an option nor the target says it:
  ROLESEAL_SOCKET  the agent's socket
  XDG_RUNTIME_DIR  $XDG_RUNTIME_DIR/roleseal/agent.sock is used next, where it exists
                   (else /run/roleseal/agent.sock)
  ROLESEAL_TARGETS the targets file, instead of the two usual ones:
                   ${XDG_CONFIG_HOME:-~/.config}/roleseal/targets.toml, /etc/roleseal/targets.toml
  AWS_SHARED_CREDENTIALS_FILE
                   the file that update writes [~/.aws/credentials]
  AWS_CA_BUNDLE    certificates to trust instead of the system's
  SSL_CERT_FILE, SSL_CERT_DIR
                   where the system's certificates are, if not in the usual place
  HTTPS_PROXY, NO_PROXY
                   the HTTP proxy, and the hosts that are reached without it (or in lower case)
  AWS_USE_FIPS_ENDPOINT, AWS_USE_DUALSTACK_ENDPOINT
                   true for these variants of AWS's endpoint
Sessions are kept in $XDG_RUNTIME_DIR/roleseal, or $RUNTIME_DIRECTORY/roleseal, if in memory (tmpfs).";

const VARIABLES: [&str; 18] = [
    "ROLESEAL_SOCKET",
    "ROLESEAL_TARGETS",
    "XDG_RUNTIME_DIR",
    "RUNTIME_DIRECTORY",
    "XDG_CONFIG_HOME",
    "HOME",
    "AWS_CA_BUNDLE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "https_proxy",
    "HTTPS_PROXY",
    "no_proxy",
    "NO_PROXY",
    "AWS_USE_FIPS_ENDPOINT",
    "AWS_USE_DUALSTACK_ENDPOINT",
    "INVOCATION_ID",
    "NOTIFY_SOCKET",
    "KUBERNETES_SERVICE_HOST",
    "KUBERNETES_SERVICE_PORT",
];

/// The variables that count, as they were when they were read.
#[derive(Debug, Clone, Default)]
pub struct Environment(BTreeMap<&'static str, OsString>);

impl Environment {
    /// This process's.
    pub fn of_process() -> Environment {
        let set = |name| Some((name, env::var_os(name).filter(|value| !value.is_empty())?));
        Environment(VARIABLES.into_iter().filter_map(set).collect())
    }

    /// The agent's socket.
    pub fn socket(&self) -> PathBuf {
        self.choose_socket(Path::exists)
    }

    /// What says so.
    pub fn socket_from(&self) -> &'static str {
        let chosen = self.socket();
        if self.variable("ROLESEAL_SOCKET").is_some() {
            "by $ROLESEAL_SOCKET"
        } else if chosen == Path::new(SYSTEM_SOCKET) {
            "the default"
        } else {
            "in $XDG_RUNTIME_DIR"
        }
    }

    /// The targets file that is used instead of the usual ones.
    pub fn targets(&self) -> Option<PathBuf> {
        self.variable("ROLESEAL_TARGETS").map(PathBuf::from)
    }

    /// The directory of the user's configuration files.
    pub fn user_config(&self) -> Option<PathBuf> {
        self.directory("XDG_CONFIG_HOME")
            .or_else(|| Some(self.directory("HOME")?.join(".config")))
    }

    /// Where this user, or this service, may keep what goes with the session or the service's run.
    pub fn runtime_directory(&self) -> Option<PathBuf> {
        let of_service = || {
            // Several are separated by colons; the first is the service's own.
            let all = self.variable("RUNTIME_DIRECTORY")?.to_str()?;
            let first = PathBuf::from(all.split(':').next()?);
            first.is_absolute().then_some(first)
        };
        self.directory("XDG_RUNTIME_DIR").or_else(of_service)
    }

    /// The address of the API server, `HOST:PORT`, as Kubernetes tells each container.
    pub fn kubernetes_service(&self) -> Option<String> {
        let host = self.variable("KUBERNETES_SERVICE_HOST")?.to_str()?;
        let port = self.variable("KUBERNETES_SERVICE_PORT")?.to_str()?;
        Some(match host.contains(':') {
            true => format!("[{host}]:{port}"),
            false => format!("{host}:{port}"),
        })
    }

    /// The certificates to trust; `None` for the system's.
    pub fn ca_bundle(&self) -> Option<PathBuf> {
        self.variable("AWS_CA_BUNDLE").map(PathBuf::from)
    }

    /// AWS's shared credentials file; a leading `~/` is the home directory, as AWS's tools have it.
    pub fn credentials_file(&self) -> Option<PathBuf> {
        let Some(named) = self.variable("AWS_SHARED_CREDENTIALS_FILE") else {
            return Some(self.directory("HOME")?.join(".aws/credentials"));
        };
        match Path::new(named).strip_prefix("~") {
            Ok(rest) => Some(self.directory("HOME")?.join(rest)),
            Err(_) => Some(named.into()),
        }
    }

    /// The URL of the HTTP proxy, and the variable that has it; one in lower case wins, as with curl and Python.
    pub fn https_proxy(&self) -> Option<(&'static str, Cow<'_, str>)> {
        self.either(["https_proxy", "HTTPS_PROXY"])
    }

    /// The hosts that are reached without the proxy, and the variable that has them.
    pub(crate) fn no_proxy(&self) -> Option<(&'static str, Cow<'_, str>)> {
        self.either(["no_proxy", "NO_PROXY"])
    }

    /// Whether AWS's FIPS endpoint is wanted.
    pub fn fips(&self) -> Result<bool, String> {
        self.flag("AWS_USE_FIPS_ENDPOINT")
    }

    /// Whether AWS's dual-stack endpoint is wanted.
    pub(crate) fn dual_stack(&self) -> Result<bool, String> {
        self.flag("AWS_USE_DUALSTACK_ENDPOINT")
    }

    /// Whether systemd or Kubernetes started this process: others may do so on many hosts at once.
    pub fn is_service(&self) -> bool {
        ["INVOCATION_ID", "NOTIFY_SOCKET", "KUBERNETES_SERVICE_HOST"]
            .iter()
            .any(|name| self.variable(name).is_some())
    }

    fn choose_socket(&self, exists: impl Fn(&Path) -> bool) -> PathBuf {
        let users_own = || {
            let directory = self.directory("XDG_RUNTIME_DIR")?;
            let path = directory.join("roleseal/agent.sock");
            exists(&path).then_some(path)
        };
        self.variable("ROLESEAL_SOCKET")
            .map(PathBuf::from)
            .or_else(users_own)
            .unwrap_or_else(|| SYSTEM_SOCKET.into())
    }

    /// A relative path is invalid, by the XDG specification.
    fn directory(&self, name: &str) -> Option<PathBuf> {
        let path = PathBuf::from(self.variable(name)?);
        path.is_absolute().then_some(path)
    }

    /// To guess would be to use another endpoint than somebody wants.
    fn flag(&self, name: &str) -> Result<bool, String> {
        match self.variable(name) {
            None => Ok(false),
            Some(value) if value.eq_ignore_ascii_case("true") => Ok(true),
            Some(value) if value.eq_ignore_ascii_case("false") => Ok(false),
            Some(value) => Err(format!("${name} is {value:?}: it may be true or false")),
        }
    }

    fn either(&self, names: [&'static str; 2]) -> Option<(&'static str, Cow<'_, str>)> {
        let name = names
            .into_iter()
            .find(|name| self.variable(name).is_some())?;
        Some((name, self.variable(name)?.to_string_lossy()))
    }

    fn variable(&self, name: &str) -> Option<&OsStr> {
        self.0.get(name).map(OsString::as_os_str)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// One with these variables and no others.
    pub(crate) fn environment<const N: usize>(variables: [(&'static str, &str); N]) -> Environment {
        Environment(variables.map(|(name, value)| (name, value.into())).into())
    }

    #[test]
    fn the_variable_wins_then_the_users_own_then_the_systems() {
        let run = ("XDG_RUNTIME_DIR", "/run/user/7");
        let named = environment([("ROLESEAL_SOCKET", "v"), run]);
        assert_eq!(named.choose_socket(|_| true), Path::new("v"));
        let own = environment([run]);
        let path = Path::new("/run/user/7/roleseal/agent.sock");
        assert_eq!(own.choose_socket(|_| true), path);
        let relative = environment([("XDG_RUNTIME_DIR", "relative")]);
        for (environment, exists) in [
            (own, false),
            (Environment::default(), true),
            (relative, true),
        ] {
            let socket = environment.choose_socket(|_| exists);
            assert_eq!(socket, Path::new(SYSTEM_SOCKET));
        }
        assert!(HELP.contains(SYSTEM_SOCKET));
    }

    #[test]
    fn directories_are_absolute_or_not_used() {
        let config = |variables: [_; 2]| environment(variables).user_config();
        let home = ("HOME", "/home/u");
        let own = config([("XDG_CONFIG_HOME", "/c"), home]);
        assert_eq!(own, Some("/c".into()));
        let usual = config([("XDG_CONFIG_HOME", "c"), home]);
        assert_eq!(usual, Some("/home/u/.config".into()));
        assert_eq!(config([("HOME", "u"), ("NO_PROXY", "x")]), None);

        let service = ("RUNTIME_DIRECTORY", "/run/web:/run/other");
        let runtime = |variables: [_; 2]| environment(variables).runtime_directory();
        let user = runtime([("XDG_RUNTIME_DIR", "/run/user/7"), service]);
        assert_eq!(user, Some("/run/user/7".into()));
        let none = runtime([("XDG_RUNTIME_DIR", "x"), service]);
        assert_eq!(none, Some("/run/web".into()));
        assert_eq!(runtime([("RUNTIME_DIRECTORY", "web"), home]), None);
    }

    #[test]
    fn a_service_is_known_by_what_started_it() {
        for name in ["INVOCATION_ID", "NOTIFY_SOCKET", "KUBERNETES_SERVICE_HOST"] {
            assert!(environment([(name, "x")]).is_service());
        }
        assert!(!environment([("HOME", "/home/u")]).is_service());
    }

    #[test]
    fn a_variant_of_the_endpoint_is_true_or_false() {
        let fips = |value| environment([("AWS_USE_FIPS_ENDPOINT", value)]).fips();
        assert_eq!(fips("True"), Ok(true));
        assert_eq!(fips("false"), Ok(false));
        assert!(fips("1").unwrap_err().contains("AWS_USE_FIPS_ENDPOINT"));
        assert_eq!(Environment::default().dual_stack(), Ok(false));
    }
}
