//! `roleseal-agent renew`: by hand, or started by the launcher when it is time.

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;

use super::command::Stop;
use super::{Report, renew};
use crate::accounts::Accounts;
use crate::config::{Config, IdentityName};

/// Renew an identity's certificate with the command in its configuration
///
/// Does nothing while the certificate is not due, unless it is forced. The agent takes a new certificate over
/// by itself.
///
/// Exit status: 0 renewed, or not due; 1 failed, and the certificate is as it was; 2 wrong arguments, or an
/// identity without renew.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = "/etc/roleseal/agent.toml")]
    config: PathBuf,

    /// Which identity
    #[arg(long, value_name = "NAME")]
    identity: IdentityName,

    /// Renew even if the certificate is not due
    #[arg(long)]
    force: bool,

    /// Report to whoever started this, at the socket that is its standard input
    #[arg(long, hide = true)]
    report: bool,
}

/// Standard input's flag for a launcher.
pub(crate) const REPORT: &str = "--report";

enum Fault {
    Usage(String),
    Failed(String),
}

/// The program.
pub fn main(arguments: &Arguments) -> ExitCode {
    let result = run(arguments);
    if arguments.report {
        let report = match &result {
            Ok(report) => report.clone(),
            Err(Fault::Usage(why) | Fault::Failed(why)) => Report::Failed(why.clone()),
        };
        // Without it the agent knows that this failed, and looks at the file in any case.
        let _ = tell(&report);
    } else {
        say(&arguments.identity, &result);
    }
    match result {
        Ok(_) => ExitCode::SUCCESS,
        Err(Fault::Failed(_)) => ExitCode::FAILURE,
        Err(Fault::Usage(_)) => ExitCode::from(2),
    }
}

fn run(arguments: &Arguments) -> Result<Report, Fault> {
    let failed = |error: &dyn ToString| Fault::Failed(error.to_string());
    let link = match arguments.report {
        true => Some(stdin().map_err(|error| failed(&error))?),
        false => None,
    };
    // Before anything is started that it would have to end.
    let stop = Stop::new(link).map_err(|error| failed(&error))?;
    let config = Config::load(&arguments.config, &Accounts::Own).map_err(|error| failed(&error))?;
    let name = arguments.identity.to_string();
    let identity = config.identities.iter().find(|one| one.name == name);
    let identity = identity.ok_or_else(|| {
        Fault::Usage(format!(
            "{} has no identity of that name",
            arguments.config.display()
        ))
    })?;
    if identity.renewal.is_none() {
        return Err(Fault::Usage(format!(
            "{} has no renew = {{ command = … }} for it",
            arguments.config.display()
        )));
    }
    renew::renew(identity, arguments.force, &stop).map_err(Fault::Failed)
}

fn say(name: &IdentityName, result: &Result<Report, Fault>) {
    match result {
        Ok(Report::Renewed { serial, not_after }) => {
            println!("{name}: renewed: serial {serial}, valid until {not_after}");
        }
        Ok(Report::NotDue) => {
            println!("{name}: not due yet; --force renews it all the same");
        }
        Ok(Report::Failed(why)) | Err(Fault::Usage(why) | Fault::Failed(why)) => {
            eprintln!("roleseal-agent: {name}: not renewed: {why}");
        }
    }
}

fn stdin() -> io::Result<OwnedFd> {
    io::stdin().as_fd().try_clone_to_owned()
}

fn tell(report: &Report) -> io::Result<()> {
    let mut link = UnixStream::from(stdin()?);
    link.write_all(&serde_json::to_vec(report)?)
}
