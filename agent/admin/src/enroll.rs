//! `roleseal-admin enroll`: from a blank token to an identity that signs, in one command that can be run again
//! wherever it has stopped.

mod configuration;
mod document;
mod identity_table;
mod issued;
mod plan;

use std::path::PathBuf;

use clap::Args;
use rolesanywhere::certificate::CertificationRequest;

use crate::agent;
use crate::failure::Failure;
use crate::input::read_text;
use crate::lock::Lock;
use crate::new_file::NewFile;
use crate::new_key::NewKeyArguments;
use crate::new_request::{AltNameArguments, Subject, Wanted};
use crate::output;
use crate::owner::OwnerArgument;
use crate::replace_file;
use crate::signed_request;
use crate::token_key::TokenKey;
use config::IdentityName;
use configuration::Edit;
use plan::Plan;

/// Make a key, obtain its certificate, and add an identity with it to the configuration
///
/// Makes key and CSR, obtains the certificate, checks it as IAM Roles Anywhere would, adds the identity to the
/// configuration and reloads the agent. Run again, it continues from what exists, and makes no second key.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct EnrollArguments {
    /// The identity
    #[arg(long, value_name = "NAME")]
    name: IdentityName,
    /// Use the existing key
    #[arg(long)]
    existing_key: bool,
    /// Show each step without running it
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    key: NewKeyArguments,
    /// The certificate's subject (RFC 4514): 'CN=web,O=Example'
    #[arg(long, value_name = "NAME", help_heading = "The certificate")]
    subject: Subject,
    #[command(flatten, next_help_heading = "The certificate")]
    alt_names: AltNameArguments,
    /// Run this with /bin/sh: it reads the CSR (PEM) from standard input and writes leaf and intermediates (PEM) to
    /// standard output
    #[arg(long, value_name = "COMMAND", help_heading = "The certificate")]
    issue: Option<String>,
    /// Without --issue: wait for this file with leaf and intermediates [default: the file of --certificate]
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "issue",
        help_heading = "The certificate"
    )]
    cert: Option<PathBuf>,
    /// Install the certificate here, and the CSR beside it as .csr [default: /var/lib/roleseal/NAME.pem]
    #[arg(long, value_name = "FILE", help_heading = "The certificate")]
    certificate: Option<PathBuf>,
    /// Renew it by the command of --issue
    #[arg(long, requires = "issue", help_heading = "The certificate")]
    renew: bool,
    /// Renew it this long before it expires, such as 10d
    #[arg(
        long,
        value_name = "TIME",
        requires = "issue",
        help_heading = "The certificate"
    )]
    renew_before: Option<String>,
    /// The configuration; made where it does not exist
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/roleseal/agent.toml",
        help_heading = "The configuration"
    )]
    config: PathBuf,
    /// Let this local user use the identity (name, number or *); may be repeated
    #[arg(long, value_name = "USER", help_heading = "The configuration")]
    allow_user: Vec<String>,
    /// Let this local group use the identity; may be repeated
    #[arg(long, value_name = "GROUP", help_heading = "The configuration")]
    allow_group: Vec<String>,
    /// An endpoint beside AWS's own, `https://HOST[:PORT]`; may be repeated
    #[arg(long, value_name = "URL", help_heading = "The configuration")]
    endpoint: Vec<String>,
    #[command(flatten, next_help_heading = "The configuration")]
    owner: OwnerArgument,
}

const EXAMPLES: &str = "\
Examples:
  roleseal-admin enroll --name web --uri 'pkcs11:token=lab;object=web' \\
    --module /usr/lib/vendor/libpkcs11.so --pin-file /etc/roleseal-pins/lab \\
    --subject 'CN=web,O=Example' --issue /etc/roleseal/ca --renew \\
    --allow-user web
  roleseal-admin enroll --name web --tpm --out /etc/roleseal/web.tss \\
    --subject CN=web --cert /root/web.crt";

/// A request is nobody's secret.
const PUBLIC: u32 = 0o644;

pub(super) fn run(arguments: &EnrollArguments) -> Result<(), Failure> {
    let mut arguments = arguments.clone();
    if let Some(module) = configuration::default_module(&arguments.config) {
        arguments.key.module().set_configured(module);
    }
    let arguments = &arguments;
    // All that the arguments, the configuration and the files can be at fault in, before anything is made.
    let plan = Plan::new(arguments)?;
    if arguments.dry_run {
        return output::print(&plan.to_string());
    }
    let mut done = Vec::new();
    enroll(arguments, &plan, &mut done).map_err(|failure| match (failure, &done[..]) {
        (Failure::Interrupted(signal), _) => {
            output::note(&format!("hint: {}", how_to_continue(&plan)));
            Failure::Interrupted(signal)
        }
        (failure, []) => failure,
        (failure, done) => {
            let done = done.join("\n");
            Failure::failed(format!("{failure}\nDone so far:\n{done}")).hint(how_to_continue(&plan))
        }
    })
}

/// A key alone does not show that it was made for this.
fn how_to_continue(plan: &Plan) -> &'static str {
    match plan.request_is_there() {
        true => "the same command, run again, continues from there",
        false => "if the key is made, add --existing-key to the command and run it again",
    }
}

/// Says each step when it is done.
fn enroll(arguments: &EnrollArguments, plan: &Plan, done: &mut Vec<String>) -> Result<(), Failure> {
    let mut step = |text: String| {
        done.push(text.clone());
        output::print_step(&format!("{text}\n"))
    };
    plan.make_directory()?;
    let request = match plan.request_is_there() {
        true => continue_with(arguments, plan, &mut step)?,
        false => begin(arguments, plan, &mut step)?,
    };
    let certificate = issued::obtain(arguments, plan, &request)?;
    step(format!(
        "certificate: {}: serial {}, valid until {}",
        plan.certificate.display(),
        certificate.serial,
        certificate.not_after
    ))?;
    let config = plan.config.display();
    match &plan.edit {
        Edit::Add(_) => {
            add(plan)?;
            step(format!(
                "configuration: {config}: identity {} added",
                plan.name
            ))?;
        }
        Edit::RenewalInput => step(format!(
            "configuration: {config}: identity {} already exists",
            plan.name
        ))?,
        Edit::LacksPin => {
            return output::print_step(&format!(
                "configuration: not written: the agent cannot ask for the PIN. Store it in a file of mode 0600 (or \
                 in a systemd credential), and add to {config}:\n\n{}",
                document::render(&plan.identity)
            ));
        }
    }
    agent::reload_and_wait(&plan.name, &plan.socket, || true)
}

/// Key and request are from an earlier run.
fn continue_with(
    arguments: &EnrollArguments,
    plan: &Plan,
    step: &mut impl FnMut(String) -> Result<(), Failure>,
) -> Result<CertificationRequest, Failure> {
    let path = plan.request.display();
    let text = read_text(&plan.request)?;
    let fault = |what: String| {
        Failure::failed(format!("cannot use CSR {path}: {what}"))
            .hint("move it away, or name another --certificate")
    };
    let request =
        CertificationRequest::from_pem(&text).map_err(|error| fault(error.to_string()))?;
    let subject = arguments.subject.0.to_string();
    if request.subject() != subject {
        return Err(fault(format!(
            "it is of an earlier run, for {}, and not for {subject}",
            request.subject()
        )));
    }
    let key = TokenKey::open(plan.place.clone())?;
    if key.public_key()?.0 != request.public_key() {
        return Err(fault(format!("it is for another key than {}", key.place())));
    }
    step(format!("key: {}: it is there", key.place()))?;
    step(format!("request: {path}: it is there"))?;
    Ok(request)
}

fn begin(
    arguments: &EnrollArguments,
    plan: &Plan,
    step: &mut impl FnMut(String) -> Result<(), Failure>,
) -> Result<CertificationRequest, Failure> {
    // Before a key is made that it would be for.
    let file = NewFile::begin(&plan.request, PUBLIC, plan.owner.as_ref())?;
    if arguments.existing_key {
        plan.give_key_file()?;
        step(format!("key: {}: the one that is there", plan.place))?;
    } else {
        let key = arguments.key.make(plan.owner.as_ref());
        let key = key.map_err(hint_at_existing_key)?;
        let owner = key.owner.map(|owner| format!(", for {owner}"));
        let owner = owner.unwrap_or_default();
        step(format!(
            "key: {}: {} made{owner}",
            plan.place, key.algorithm
        ))?;
    }
    let wanted = Wanted {
        subject: arguments.subject.0.clone(),
        alt_names: arguments.alt_names.names(),
    };
    let request = signed_request::request(&mut TokenKey::open(plan.place.clone())?, &wanted)?;
    file.put(signed_request::to_pem(&request)?.as_bytes())?;
    step(format!("request: {}", plan.request.display()))?;
    Ok(request)
}

fn hint_at_existing_key(failure: Failure) -> Failure {
    match failure {
        Failure::Interrupted(_) | Failure::Usage(_) => failure,
        other => {
            Failure::failed(other.to_string()).hint("to enroll an existing key, add --existing-key")
        }
    }
}

/// Adds the identity, unless somebody has changed the file since.
fn add(plan: &Plan) -> Result<(), Failure> {
    let config = plan.config.display();
    let place = replace_file::place(&plan.config)?;
    let _lock = Lock::on(&place)
        .map_err(|error| Failure::failed(format!("cannot lock {config}: {error}")))?
        .ok_or_else(|| {
            Failure::failed(format!(
                "cannot edit {config}: another command is editing it"
            ))
        })?;
    // It may be another one by now: a person had to certify something meanwhile.
    let (edit, _) = configuration::plan(
        &plan.config,
        &plan.name,
        &plan.place,
        &plan.certificate,
        &plan.identity,
    )?;
    match edit {
        Edit::Add(text) => {
            replace_file::replace(&place, text.as_bytes(), configuration::MODE)?;
            Ok(())
        }
        Edit::RenewalInput | Edit::LacksPin => Ok(()),
    }
}
