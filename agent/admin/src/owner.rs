//! Whose the files are that root makes for the agent.

use clap::Args;
use token::account::Account;

use crate::failure::Failure;
use config::unit::{self, Unit};

/// `--owner`
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct OwnerArgument {
    /// Give new files to this user, so that the agent can read them; SoftHSM then runs as this user, since its tokens
    /// are files [default: the user of roleseal-agent.service, if root runs this]
    #[arg(long, value_name = "USER[:GROUP]")]
    owner: Option<String>,
}

impl OwnerArgument {
    /// Who that is, if it is another than this process's user.
    pub(crate) fn account(&self) -> Result<Option<Account>, Failure> {
        let fault = |what: String| Failure::usage(format!("cannot use --owner: {what}"));
        let own = Account::own().map_err(|error| fault(error.to_string()))?;
        let account = match &self.owner {
            Some(text) => Some(named(text).map_err(fault)?),
            None if own.is_root() => unit::account(Unit::read().ok().as_ref()).map_err(fault)?,
            None => None,
        };
        match account.filter(|account| (account.uid, account.gid) != (own.uid, own.gid)) {
            Some(account) if !own.is_root() => {
                let why = format!("only root gives files to {}", account.name);
                Err(fault(why).hint("run this by sudo"))
            }
            account => Ok(account),
        }
    }
}

/// The uid of the agent's user, where root runs this: root's commands read a configuration that is that user's.
pub(crate) fn agents_user() -> Option<u32> {
    let is_root = rustix::process::geteuid().is_root();
    let account = is_root.then(|| unit::account(Unit::read().ok().as_ref()).ok()?);
    account.flatten().map(|account| account.uid)
}

fn named(text: &str) -> Result<Account, String> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let account = Account::named(user)
        .map_err(|error| error.to_string())?
        .ok_or_else(|| format!("no user {user:?}"))?;
    match group {
        Some(group) => account
            .with_primary_group(group)
            .map_err(|error| error.to_string()),
        None => Ok(account),
    }
}
