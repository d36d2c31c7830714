//! The command line. In the library, so that the manual is written from it.

use std::path::PathBuf;

use clap::Parser;

use crate::{audit, operator};

/// Signs AWS IAM Roles Anywhere requests with keys that stay in their HSM or TPM
///
/// Runs in the foreground, logs to standard error and serves at its Unix socket until SIGTERM or
/// SIGINT. It opens each token once, with a PIN that only the token program reads. SIGHUP makes it
/// read the configuration and the certificates again; a configuration with a fault changes nothing.
///
/// The commands are an operator's, and need no agent: they make keys on tokens, requests for their
/// certificates, and end.
///
/// Exit status: 0 ended by a signal, the configuration is valid, or the command is done; 1 the agent
/// cannot start, or the command failed; 2 wrong arguments; 78 the configuration has a fault.
#[derive(Parser)]
#[command(version, max_term_width = 100, args_conflicts_with_subcommands = true)]
pub struct Arguments {
    /// An operator's command.
    #[command(flatten)]
    pub operator: operator::Arguments,

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
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = audit::Format::Text)]
    pub log_format: audit::Format,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn daemon_and_commands_have_one_grammar() {
        Arguments::command().debug_assert();
        for (line, taken) in [
            (&["x"][..], true),
            (&["x", "--config", "f", "--check"], true),
            (&["x", "key", "list"], true),
            (&["x", "--check", "key", "list"], false),
            (&["x", "key", "list", "--check"], false),
            (&["x", "keys"], false),
        ] {
            assert_eq!(Arguments::try_parse_from(line).is_ok(), taken, "{line:?}");
        }
    }
}
