//! `roleseal-admin key delete`.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};

use clap::{ArgGroup, Args};
use rolesanywhere::printable;
use token::Tcti;
use token::operator::tpm;

use crate::failure::Failure;
use crate::handle::Handle;
use crate::key_choice::{ModuleArgument, UriText, place_on_token};
use crate::output;
use crate::pins::{PinArguments, TERMINAL, in_file};
use crate::report::KeyJson;
use crate::token_key::{Report, TokenKey, other_answer};
use crate::token_program::{Patience, Program};

pub(super) const EXAMPLES: &str = "\
Examples:
  roleseal-admin key delete --uri 'pkcs11:token=lab;object=web'
  roleseal-admin key delete --tpm --handle 0x81000101 --yes
A key in a file is deleted with its file.";

/// Selects the key.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which-key").args(["uri", "handle"]).required(true))]
pub(crate) struct DeleteArguments {
    /// The key on a PKCS#11 token (RFC 7512), such as 'pkcs11:token=lab;object=web'
    #[arg(long, value_name = "URI")]
    uri: Option<UriText>,
    #[command(flatten)]
    module: ModuleArgument,
    /// The key at this persistent handle of the TPM, such as 0x81000101
    #[arg(long, value_name = "HANDLE")]
    handle: Option<Handle>,
    /// TCTI of the TPM [default: device:/dev/tpmrm0]
    #[arg(long, value_name = "TCTI", num_args = 0..=1, default_missing_value = "device:/dev/tpmrm0", conflicts_with = "uri")]
    tpm: Option<Tcti>,
    /// Delete the key without confirmation
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    pin: PinArguments,
    /// File with the owner hierarchy's auth value, if it has one
    #[arg(long, value_name = "FILE", conflicts_with = "uri")]
    owner_pin_file: Option<std::path::PathBuf>,
}

/// The longest line read from the terminal, in bytes.
const LINE_LIMIT: u64 = 64;

pub(super) fn run(arguments: &DeleteArguments) -> Result<(), Failure> {
    // Before a PIN is asked for.
    let terminal = match arguments.yes {
        true => None,
        false => Some(terminal()?),
    };
    match (&arguments.uri, arguments.handle) {
        (Some(uri), _) => arguments.on_token(uri, terminal),
        (None, Some(handle)) => arguments.in_tpm(handle, terminal),
        (None, None) => Err(Failure::usage("name a key: --uri or --handle")),
    }
}

impl DeleteArguments {
    fn on_token(&self, uri: &UriText, terminal: Option<File>) -> Result<(), Failure> {
        let mut key = TokenKey::open(place_on_token(uri.read()?, &self.module, &self.pin, None)?)?;
        let shown = match key.report() {
            Report::Pkcs11(report) => KeyJson::of_token(report),
            Report::Tpm(_) => return Err(other_answer()),
        };
        ask(
            terminal,
            &format!("{shown}  with its public key and certificates\n"),
        )?;
        let gone = key.delete()?;
        let gone: Vec<String> = gone.iter().map(|uri| format!("deleted {uri}")).collect();
        say_gone(&gone.join("\n"))
    }

    fn in_tpm(&self, Handle(handle): Handle, terminal: Option<File>) -> Result<(), Failure> {
        if self.module.is_given() || self.pin.any() {
            return Err(Failure::usage(
                "cannot use --module or a PIN option with --handle: a TPM deletes a key by the owner hierarchy's \
                 auth value (--owner-pin-file)",
            ));
        }
        let tcti = self.tpm.clone().unwrap_or_default();
        let mut program = Program::start(token::Program::Tpm)?;
        let mut request = tpm::Request {
            tcti,
            task: tpm::Task::List,
        };
        let patience = Patience::usual("deleting", []);
        let tpm::Answer::Tpm(found) = program.ask(&request, patience)? else {
            return Err(other_answer());
        };
        let name = Handle(handle);
        let Some(key) = found.keys.iter().find(|key| key.handle == Some(handle)) else {
            let fault = format!("cannot delete {name}: the TPM has no key at this handle");
            return Err(Failure::failed(fault).hint("list its keys: roleseal-admin key list --tpm"));
        };
        ask(terminal, &KeyJson::of_tpm(key, None).to_string())?;
        request.task = tpm::Task::Delete {
            handle,
            shown: Box::new(key.clone()),
            owner_pin: in_file(&self.owner_pin_file),
        };
        match program.ask(&request, patience)? {
            tpm::Answer::Done => say_gone(&format!("deleted handle:{name}")),
            _ => Err(other_answer()),
        }
    }
}

fn say_gone(gone: &str) -> Result<(), Failure> {
    output::print_done(gone, &format!("{gone}\n"))
}

fn terminal() -> Result<File, Failure> {
    let opened = File::options().read(true).write(true).open(TERMINAL);
    opened
        .map_err(|_| Failure::failed("cannot ask for confirmation: no terminal").hint("give --yes"))
}

/// Asks for confirmation at the terminal.
fn ask(terminal: Option<File>, what: &str) -> Result<(), Failure> {
    let Some(mut terminal) = terminal else {
        return Ok(());
    };
    let question = format!("{}Delete this key permanently? Type yes: ", printable(what));
    let mut line = String::new();
    let answered = terminal
        .write_all(question.as_bytes())
        .and_then(|()| BufReader::new(terminal.take(LINE_LIMIT)).read_line(&mut line));
    match answered {
        Ok(_) if line.trim() == "yes" => Ok(()),
        Ok(_) => Err(Failure::failed("not confirmed: nothing was deleted")),
        Err(error) => Err(Failure::failed(format!(
            "cannot read the confirmation: {error}; nothing was deleted"
        ))),
    }
}
