//! As whom `--check` looks: as the agent's user, where root runs it, since root may read everything.

use std::fmt;
use std::path::PathBuf;

use rustix::fs::{Access, access};
use token::account::Account;
use token::{PinSource, softhsm};

use crate::unit::{self, Loaded, Unit};

/// A user, and the unit whose user that is.
#[derive(Debug)]
pub struct Viewpoint {
    account: Account,
    /// Why it is not the agent's user.
    doubt: Option<String>,
    /// The agent's unit; or why nothing is known of it.
    unit: Result<Unit, String>,
    /// Files of its credentials that are not there, as root sees it.
    missing: Vec<PathBuf>,
}

/// What there is to say of a credential.
#[derive(Debug, PartialEq, Eq)]
pub enum Credential {
    /// The unit loads it from a file that exists.
    Good,
    /// The unit does not load it, or from no file.
    Fault(String),
    /// What the unit loads is not known, and why.
    Unseen(String),
}

impl Viewpoint {
    /// As root, makes this process the agent's user's, or that of the user named, for good.
    pub fn take(named: Option<&str>) -> Result<Viewpoint, String> {
        let own = Account::own().map_err(|error| format!("cannot look up this user: {error}"))?;
        let unit = Unit::read();
        if !own.is_root() {
            return Viewpoint::of_user(own, named, unit);
        }
        let agents = unit::account(unit.as_ref().ok())?;
        let mut doubt = None;
        let account = match (named, agents) {
            (None, Some(agents)) => agents,
            (None, None) => {
                let user = unit::user_of(unit.as_ref().ok());
                doubt = Some(format!(
                    "there is no user {user} yet; --user NAME looks as another"
                ));
                own
            }
            (Some(name), Some(agents)) if name == agents.name => agents,
            (Some(name), _) => Account::named(name)
                .map_err(|error| format!("--user: cannot look up {name}: {error}"))?
                .ok_or_else(|| format!("--user: there is no user {name:?}"))?,
        };
        let missing = unit.as_ref().map(Unit::missing_files).unwrap_or_default();
        if !account.is_root() {
            let name = &account.name;
            account
                .become_for_good()
                .map_err(|error| format!("cannot become {name}: {error}"))?;
        }
        Ok(Viewpoint {
            account,
            doubt,
            unit,
            missing,
        })
    }

    fn of_user(
        own: Account,
        named: Option<&str>,
        unit: Result<Unit, String>,
    ) -> Result<Viewpoint, String> {
        if let Some(name) = named.filter(|name| *name != own.name) {
            return Err(format!(
                "--user {name}: only root can look as another user: sudo roleseal-agent --check"
            ));
        }
        Ok(Viewpoint {
            account: own,
            doubt: None,
            unit,
            missing: Vec::new(),
        })
    }

    /// The unit, if this is its user.
    fn unit(&self) -> Result<&Unit, String> {
        let unit = self.unit.as_ref().map_err(String::clone)?;
        let user = unit::user_of(Some(unit));
        match user == self.account.name {
            true => Ok(unit),
            false => Err(format!("{} runs as {user}", unit::NAME)),
        }
    }

    /// What can be told of a credential from outside of the service.
    pub fn credential(&self, name: &str) -> Credential {
        let place = format!("credential {name:?}");
        let unit = match self.unit() {
            Ok(unit) => unit,
            Err(why) => {
                return Credential::Unseen(format!(
                    "{place} was not checked, since systemd passes it to the service alone ({why})"
                ));
            }
        };
        match unit.credential(name) {
            Loaded::From(file) if self.missing.contains(&file) => Credential::Fault(format!(
                "{place}: {} takes it from {}, which is not there",
                unit::NAME,
                file.display()
            )),
            Loaded::From(_) => Credential::Good,
            Loaded::Otherwise => Credential::Unseen(format!(
                "{place} was not checked: {} has it from elsewhere than a file",
                unit::NAME
            )),
            Loaded::Not => Credential::Fault(format!(
                "{place}: {} does not load it: add LoadCredential={name}:FILE (sudo systemctl edit {})",
                unit::NAME,
                unit::NAME
            )),
        }
    }

    /// What keeps this user from SoftHSM's store.
    pub fn softhsm_obstacle(&self) -> Option<String> {
        let own = std::env::var_os(softhsm::VARIABLE);
        // What systemd has started has the unit's environment, wherever that comes from.
        let started_by_systemd = std::env::var_os("INVOCATION_ID").is_some();
        match self.unit() {
            Ok(unit) if !started_by_systemd => match unit.variable(softhsm::VARIABLE) {
                None if unit.has_more_variables() => None, // nobody knows
                named => softhsm::obstacle(named.map(AsRef::as_ref)),
            },
            _ => softhsm::obstacle(own.as_deref()),
        }
    }
}

/// A PIN that this process has no way to look at: systemd has passed it to the service alone. Before systemd 255, a control
/// process (ExecReload=) is told where the service's credentials are, but may not enter that directory.
pub fn is_passed_by_systemd(pin: &PinSource) -> Option<&str> {
    let PinSource::Credential(name) = pin else {
        return None;
    };
    let directory = std::env::var_os("CREDENTIALS_DIRECTORY");
    let is_open = directory.is_some_and(|path| access(path, Access::EXEC_OK).is_ok());
    (!is_open).then_some(name.as_str())
}

/// `looked at as roleseal`
impl fmt::Display for Viewpoint {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "looked at as {}", self.account.name)?;
        match &self.doubt {
            Some(doubt) => write!(f, ": {doubt}"),
            None => Ok(()),
        }
    }
}
