//! `roleseal-admin key generate`.

use clap::Args;

use crate::failure::Failure;
use crate::new_key::NewKeyArguments;
use crate::output;
use crate::owner::OwnerArgument;
use crate::report::next_steps;

pub(super) const EXAMPLES: &str = "\
Examples:
  roleseal-admin key generate --uri 'pkcs11:token=lab;object=web' \\
    --module /usr/lib/vendor/libpkcs11.so
  roleseal-admin key generate --tpm --out /etc/roleseal/web.tss
  roleseal-admin key generate --tpm --persist 0x81000101 --type rsa-2048
  roleseal-admin key generate --tpm --out web.tss --pcr 7 \\
    --pin-file /etc/roleseal-pins/web
then:
  roleseal-admin csr --key /etc/roleseal/web.tss --subject 'CN=web,O=Example' \\
    --out web.csr";

/// Selects the new key and the output.
#[derive(Debug, Args)]
pub(crate) struct GenerateArguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    owner: OwnerArgument,
    #[command(flatten)]
    key: NewKeyArguments,
}

pub(super) fn run(arguments: &GenerateArguments) -> Result<(), Failure> {
    let key = arguments.key.make(arguments.owner.account()?.as_ref())?;
    let text = match arguments.json {
        true => output::json(&key)?,
        false => format!("{key}{}", next_steps(&key)),
    };
    output::print_done(&format!("generated the key {}", key.key), &text)
}
