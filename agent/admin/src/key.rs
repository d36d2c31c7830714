//! `roleseal-admin key`: keys on tokens.

mod delete;
mod generate;
mod list;

use clap::Subcommand;

use crate::failure::Failure;

/// What is done with keys.
#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a key that cannot leave its token
    ///
    /// On a PKCS#11 token, a key pair for signing alone: sensitive, not extractable. In a TPM, a key that is
    /// bound to it (fixedTPM, fixedParent); it is kept in a file that only this TPM can load, or at a
    /// persistent handle. Nothing that exists is replaced.
    #[command(after_long_help = generate::EXAMPLES)]
    Generate(Box<generate::GenerateArguments>),
    /// Show tokens, keys and certificates
    ///
    /// Without a login only public objects show: most tokens hide private keys until then. Each key is shown
    /// with the URI or handle that names it alone, for the agent's configuration.
    #[command(after_long_help = list::EXAMPLES)]
    List(Box<list::ListArguments>),
    /// Destroy a key for ever
    ///
    /// On a PKCS#11 token, with its public key and certificates. In a TPM, by taking it from its persistent
    /// handle. It shows what would go and asks; nothing but `yes` is a yes.
    #[command(after_long_help = delete::EXAMPLES)]
    Delete(Box<delete::DeleteArguments>),
}

impl KeyCommand {
    pub(super) fn run(&self) -> Result<(), Failure> {
        match self {
            KeyCommand::Generate(arguments) => generate::run(arguments),
            KeyCommand::List(arguments) => list::run(arguments),
            KeyCommand::Delete(arguments) => delete::run(arguments),
        }
    }
}
