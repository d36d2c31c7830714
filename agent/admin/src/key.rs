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
    /// On a PKCS#11 token: a key pair for signing only, sensitive and not extractable. In a TPM: a key with fixedTPM
    /// and fixedParent, in a file that only this TPM can load, or at a persistent handle. Never replaces a key or a
    /// file.
    #[command(after_long_help = generate::EXAMPLES)]
    Generate(Box<generate::GenerateArguments>),
    /// Show tokens, keys and certificates
    ///
    /// Without a login, only public objects show: most tokens hide private keys until then. Each key has the URI or
    /// handle that identifies it in the agent's configuration.
    #[command(after_long_help = list::EXAMPLES)]
    List(Box<list::ListArguments>),
    /// Destroy a key irrevocably
    ///
    /// On a PKCS#11 token, with its public key and certificates; in a TPM, from its persistent handle. Shows the
    /// objects and asks for confirmation: only `yes` confirms.
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
