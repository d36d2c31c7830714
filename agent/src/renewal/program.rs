//! `roleseal-agent renew`: by hand, or started by the launcher when it is time.

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use super::command::Stop;
use super::renew;
use crate::accounts::Accounts;
use crate::operator::{Failure, output};
use config::renewal::Report;
use config::{Config, IdentityName};

/// Renew an identity's certificate with the command in its configuration
///
/// Does nothing while the certificate is not due, unless it is forced. The agent takes a new certificate over
/// by itself.
///
/// Exit status: 0 renewed, or not due; 1 failed, and the certificate is as it was; 2 wrong arguments, or an
/// identity without renew.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
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

impl Arguments {
    /// Renews.
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let done = self.renew();
        if !self.report {
            return self.say(&done.map_err(|failure| self.named(failure))?);
        }
        let report = done.unwrap_or_else(|failure| Report::Failed(failure.to_string()));
        // Without it the agent knows that this failed, and looks at the file in any case.
        tell(&report).map_err(|error| Failure::failed(format!("the agent is gone: {error}")))
    }

    fn renew(&self) -> Result<Report, Failure> {
        let lost = |error: io::Error| Failure::failed(error.to_string());
        let link = match self.report {
            true => {
                let _ = rustix::process::setsid(); // by which the launcher finds what is left of it
                Some(stdin().map_err(lost)?)
            }
            false => None,
        };
        // Before anything is started that it would have to end.
        let stop = Stop::new(link).map_err(lost)?;
        let config = Config::load(&self.config, &Accounts::Own)
            .map_err(|error| Failure::failed(error.to_string()))?;
        let (file, name) = (self.config.display(), self.identity.to_string());
        let identity = config.identities.iter().find(|one| one.name == name);
        let identity =
            identity.ok_or_else(|| Failure::usage(format!("{file} has no identity {name:?}")))?;
        if identity.renewal.is_none() {
            return Err(Failure::usage(format!(
                "{file} has no renew = {{ command = … }} for {name}"
            )));
        }
        renew::renew(identity, self.force, &stop).map_err(Failure::Failed)
    }

    fn named(&self, failure: Failure) -> Failure {
        match failure {
            Failure::Failed(why) => {
                Failure::Failed(format!("{}: not renewed: {why}", self.identity))
            }
            other => other,
        }
    }

    fn say(&self, report: &Report) -> Result<(), Failure> {
        let name = &self.identity;
        match report {
            Report::Renewed { serial, not_after } => output::print(&format!(
                "{name}: renewed: serial {serial}, valid until {not_after}\n"
            )),
            Report::NotDue => output::print(&format!(
                "{name}: not due yet; --force renews it all the same\n"
            )),
            Report::Failed(why) => Err(Failure::failed(why.as_str())),
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
