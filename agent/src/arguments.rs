//! The command line. In the library, so that the manual is written from it.

use std::path::PathBuf;

use clap::Parser;

use crate::log;

/// Signs AWS IAM Roles Anywhere requests with keys that stay in their HSM or TPM
///
/// Runs in the foreground, logs to standard error and serves at its Unix socket until SIGTERM or
/// SIGINT. It opens each token once, with a PIN that only the token program reads. SIGHUP makes it
/// read the configuration and the certificates again; a configuration with a fault changes nothing.
///
/// Keys, certificate requests and renewals are made by roleseal-admin.
///
/// Exit status: 0 ended by a signal, or the configuration is valid; 1 the agent
/// cannot start; 2 wrong arguments; 78 the configuration has a fault.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
pub struct Arguments {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = "/etc/roleseal/agent.toml")]
    pub config: PathBuf,

    /// Check the configuration, PIN files and certificate files, then exit; no token is touched. Run by root, it
    /// looks as the agent's user, and says so
    #[arg(long)]
    pub check: bool,

    /// Check as this user [default: the user of roleseal-agent.service, if root runs this]
    #[arg(long, value_name = "USER", requires = "check")]
    pub user: Option<String>,

    /// How the log on standard error is written
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = log::Format::Text)]
    pub log_format: log::Format,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_grammar_is_consistent() {
        Arguments::command().debug_assert();
        for (line, taken) in [
            (&["x"][..], true),
            (&["x", "--config", "f", "--check"], true),
            (&["x", "--user", "u"], false),
            (&["x", "key", "list"], false),
        ] {
            assert_eq!(Arguments::try_parse_from(line).is_ok(), taken, "{line:?}");
        }
    }
}
