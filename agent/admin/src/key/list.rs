//! `roleseal-admin key list`.

use std::collections::BTreeSet;

use clap::Args;
use serde::Serialize;
use token::operator::{pkcs11, tpm};
use token::{Pkcs11Uri, Tcti};

use crate::failure::Failure;
use crate::key_choice::{ModuleArgument, UriText};
use crate::output;
use crate::pins::{PinArguments, at_terminal};
use crate::report::{CertificateJson, KeyJson};
use crate::token_key::other_answer;
use crate::token_program::{Patience, Program};

pub(super) const EXAMPLES: &str = "\
Examples:
  roleseal-admin key list --module /usr/lib/vendor/libpkcs11.so
  roleseal-admin key list --uri 'pkcs11:token=lab' --login
  roleseal-admin key list --tpm --json";

/// Selects tokens.
#[derive(Debug, Args)]
pub(crate) struct ListArguments {
    /// List only the tokens and objects that this URI matches (RFC 7512) [default: pkcs11:, all of the module]
    #[arg(long, value_name = "URI")]
    uri: Option<UriText>,
    #[command(flatten)]
    module: ModuleArgument,
    /// List the persistent keys of the TPM at this TCTI [default: device:/dev/tpmrm0]; PKCS#11 tokens only
    /// with --uri or --module
    #[arg(long, value_name = "TCTI", num_args = 0..=1, default_missing_value = "device:/dev/tpmrm0")]
    tpm: Option<Tcti>,
    /// Log in to the matching token; ask for the PIN at the terminal, or take it from the options below
    #[arg(long)]
    login: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pin: PinArguments,
}

/// The tokens and keys found.
#[derive(Debug, Serialize)]
struct Listing {
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens: Option<Vec<TokenJson>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tpm: Option<TpmJson>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TokenJson {
    uri: String,
    slot: u64,
    model: String,
    flags: Vec<String>,
    logged_in: bool,
    keys: Vec<KeyJson>,
    certificates: Vec<CertificateJson>,
    warnings: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TpmJson {
    tcti: String,
    model: String,
    lockout_counter: u32,
    max_auth_fail: u32,
    keys: Vec<KeyJson>,
    warnings: Vec<String>,
}

pub(super) fn run(arguments: &ListArguments) -> Result<(), Failure> {
    let of_tokens =
        arguments.tpm.is_none() || arguments.uri.is_some() || arguments.module.is_given();
    if !of_tokens && (arguments.login || arguments.pin.any()) {
        return Err(Failure::usage(
            "cannot log in to a TPM: its persistent keys are listed without a login",
        ));
    }
    if !arguments.json {
        return print(arguments, of_tokens);
    }
    let mut listed = Vec::new();
    if of_tokens {
        tokens(arguments, &mut |answer| collect(&mut listed, answer))?;
    }
    output::print_json(&Listing {
        tokens: of_tokens.then_some(listed),
        tpm: arguments.tpm.as_ref().map(tpm).transpose()?,
    })
}

/// Passes each answer to `take`, as it arrives.
fn tokens(
    arguments: &ListArguments,
    take: &mut dyn FnMut(pkcs11::Answer) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut uri = match &arguments.uri {
        Some(uri) => uri.read()?,
        None => Pkcs11Uri::default(),
    };
    let module = arguments.module.of(&mut uri);
    let name = Pkcs11Uri::from(uri.token.clone()).to_string();
    let wanted = arguments.login || arguments.pin.any() || uri.pin.is_some();
    let pin = match wanted {
        true => arguments.pin.of_token(uri.pin.take(), &name)?,
        false => None,
    };
    let pin = match pin {
        None if arguments.login => Some(at_terminal(&name)?),
        pin => pin,
    };
    let patience = Patience::usual("reading the tokens", &pin);
    let request = pkcs11::Request {
        module,
        pin,
        user: None,
        task: pkcs11::Task::List { token: uri },
    };
    let mut program = Program::start(token::Program::Pkcs11)?;
    program.ask_for_each(&request, patience, |answer| match answer {
        pkcs11::Answer::Tokens(tokens) if wanted => check_one(&tokens, &name).map(|()| true),
        pkcs11::Answer::Tokens(_) | pkcs11::Answer::Working => Ok(true),
        pkcs11::Answer::Listed => Ok(false),
        answer => take(answer).map(|()| true),
    })
}

/// Checks that at most one token needs a login.
fn check_one(tokens: &[pkcs11::TokenReport], name: &str) -> Result<(), Failure> {
    let tokens: Vec<_> = tokens
        .iter()
        .filter(|token| token.has("CKF_TOKEN_INITIALIZED"))
        .collect();
    let nobody_can = tokens
        .iter()
        .all(|token| !token.logged_in && token.has("CKF_LOGIN_REQUIRED"));
    if tokens.len() < 2 || !nobody_can {
        return Ok(());
    }
    let uris = tokens.iter().map(|token| token.uri.to_string());
    Err(Failure::usage(format!(
        "cannot log in: {} tokens match {name}; select one by --uri:\n{}",
        tokens.len(),
        uris.collect::<Vec<_>>().join("\n")
    )))
}

fn collect(tokens: &mut Vec<TokenJson>, answer: pkcs11::Answer) -> Result<(), Failure> {
    if let pkcs11::Answer::Token(report) = answer {
        tokens.push(TokenJson::of(*report));
        return Ok(());
    }
    let token = tokens.last_mut().ok_or_else(other_answer)?;
    match answer {
        pkcs11::Answer::ListedKey(key) => token.keys.push(KeyJson::of_token(&key)),
        pkcs11::Answer::Certificate(one) => token.certificates.push(CertificateJson::of(&one)),
        pkcs11::Answer::Warning(text) => token.warnings.push(text),
        _ => return Err(other_answer()),
    }
    Ok(())
}

/// Prints text, each key as soon as it is read.
fn print(arguments: &ListArguments, of_tokens: bool) -> Result<(), Failure> {
    let mut printed = Printed::default();
    if of_tokens {
        tokens(arguments, &mut |answer| printed.answer(answer))?;
        printed.end_token()?;
    }
    match arguments.tpm.as_ref().map(tpm).transpose()? {
        Some(tpm) if of_tokens => output::print(&format!("\n{}", tpm.text())),
        Some(tpm) => output::print(&tpm.text()),
        None => Ok(()),
    }
}

/// The state of a printed list.
#[derive(Default)]
struct Printed {
    token: Option<TokenJson>,
    /// Certificates, with their keys.
    certificates: BTreeSet<String>,
}

impl Printed {
    fn answer(&mut self, answer: pkcs11::Answer) -> Result<(), Failure> {
        let text = match answer {
            pkcs11::Answer::Token(report) => {
                let separator = if self.token.is_some() { "\n" } else { "" };
                self.end_token()?;
                let token = TokenJson::of(*report);
                let text = separator.to_owned() + &token.head();
                self.certificates.clear();
                self.token = Some(token);
                text
            }
            pkcs11::Answer::ListedKey(key) => {
                let key = KeyJson::of_token(&key);
                let uris = key.certificates.iter().map(|one| one.uri.clone());
                self.certificates.extend(uris);
                indented(&key.to_string())
            }
            pkcs11::Answer::Certificate(report) => {
                let certificate = CertificateJson::of(&report);
                match self.certificates.contains(&certificate.uri) {
                    true => return Ok(()),
                    false => format!("  {certificate}\n"),
                }
            }
            pkcs11::Answer::Warning(text) => remarks(&[text]),
            _ => return Err(other_answer()),
        };
        output::print(&text)
    }

    fn end_token(&mut self) -> Result<(), Failure> {
        match self.token.take().is_some_and(|token| token.hides_objects()) {
            true => output::print("  private objects are hidden without a login: use --login\n"),
            false => Ok(()),
        }
    }
}

fn tpm(tcti: &Tcti) -> Result<TpmJson, Failure> {
    let patience = Patience::usual("reading the TPM", []);
    let request = tpm::Request {
        tcti: tcti.clone(),
        task: tpm::Task::List,
    };
    match Program::start(token::Program::Tpm)?.ask(&request, patience)? {
        tpm::Answer::Tpm(report) => Ok(TpmJson {
            tcti: tcti.to_string(),
            model: report.model,
            lockout_counter: report.lockout_counter,
            max_auth_fail: report.max_auth_fail,
            keys: report
                .keys
                .iter()
                .map(|key| KeyJson::of_tpm(key, None))
                .collect(),
            warnings: report.warnings,
        }),
        _ => Err(other_answer()),
    }
}

trait Flags {
    fn has(&self, name: &str) -> bool;
}

impl Flags for pkcs11::TokenReport {
    fn has(&self, name: &str) -> bool {
        self.flags.iter().any(|flag| flag == name)
    }
}

impl TokenJson {
    fn of(report: pkcs11::TokenReport) -> TokenJson {
        TokenJson {
            uri: report.uri.to_string(),
            slot: report.slot,
            model: report.model,
            flags: report.flags,
            logged_in: report.logged_in,
            keys: Vec::new(),
            certificates: Vec::new(),
            warnings: report.warnings,
        }
    }

    fn head(&self) -> String {
        let head = format!(
            "token {}\n  slot {}, {}\n  flags: {}\n",
            self.uri,
            self.slot,
            self.model,
            self.flags.join(", ")
        );
        head + &remarks(&self.warnings)
    }

    fn hides_objects(&self) -> bool {
        let has = |name: &str| self.flags.iter().any(|flag| flag == name);
        !self.logged_in && has("CKF_TOKEN_INITIALIZED") && has("CKF_LOGIN_REQUIRED")
    }
}

impl TpmJson {
    fn text(&self) -> String {
        let mut text = format!(
            "TPM {}\n  {}\n  wrong auth values: {} of {}\n",
            self.tcti, self.model, self.lockout_counter, self.max_auth_fail
        );
        text += &remarks(&self.warnings);
        text += &keys(&self.keys);
        if self.keys.is_empty() {
            text += "  no persistent keys (keys in files are not listed)\n";
        }
        text
    }
}

fn remarks(warnings: &[String]) -> String {
    let lines = warnings.iter();
    lines
        .map(|warning| format!("  warning: {warning}\n"))
        .collect()
}

fn keys(keys: &[KeyJson]) -> String {
    keys.iter().map(|key| indented(&key.to_string())).collect()
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}
