//! `roleseal-admin key list`.

use clap::Args;
use serde::Serialize;
use token::operator::{pkcs11, tpm};
use token::{Pkcs11Uri, Tcti};

use crate::failure::Failure;
use crate::key_choice::{ModuleArgument, UriText, token_of};
use crate::output;
use crate::pins::PinArguments;
use crate::report::{CertificateJson, KeyJson};
use crate::token_key::other_answer;
use crate::token_program::{Patience, Program};

pub(super) const EXAMPLES: &str = "\
Examples:
  roleseal-admin key list --module /usr/lib/vendor/libpkcs11.so
  roleseal-admin key list --uri 'pkcs11:token=lab' --login
  roleseal-admin key list --tpm --json";

/// Which tokens.
#[derive(Debug, Args)]
pub(crate) struct ListArguments {
    /// Only tokens that this URI matches, and on them only objects that it matches (RFC 7512) [default: pkcs11:,
    /// everything that the module shows]
    #[arg(long, value_name = "URI")]
    uri: Option<UriText>,
    #[command(flatten)]
    module: ModuleArgument,
    /// The TPM's persistent keys, reached in this way [default: device:/dev/tpmrm0]; PKCS#11 tokens then
    /// only with --uri or --module
    #[arg(long, value_name = "TCTI", num_args = 0..=1, default_missing_value = "device:/dev/tpmrm0")]
    tpm: Option<Tcti>,
    /// Log in to the one token that matches, with the PIN asked for at the terminal or the options below
    #[arg(long)]
    login: bool,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pin: PinArguments,
}

/// All that was found.
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
            "a TPM has no login: its persistent keys show without one",
        ));
    }
    let listing = Listing {
        tokens: of_tokens.then(|| tokens(arguments)).transpose()?,
        tpm: arguments.tpm.as_ref().map(tpm).transpose()?,
    };
    match arguments.json {
        true => output::print_json(&listing),
        false => output::print(&listing.text()),
    }
}

fn tokens(arguments: &ListArguments) -> Result<Vec<TokenJson>, Failure> {
    let mut uri = match &arguments.uri {
        Some(uri) => uri.read()?,
        None => Pkcs11Uri::default(),
    };
    let module = arguments.module.of(&mut uri);
    let in_uri = uri.pin.take();
    let wanted = arguments.login || arguments.pin.any() || in_uri.is_some();
    let name = token_of(&uri);
    let pin = wanted
        .then(|| arguments.pin.of_token(in_uri, &name))
        .transpose()?;
    let patience = Patience::usual("looking at the tokens", &[pin.as_ref()]);
    let request = pkcs11::Request {
        module: module.clone(),
        pin,
        user: None,
        task: pkcs11::Task::List { token: uri },
    };
    let tokens = match Program::start(token::Program::Pkcs11)?.ask(&request, patience)? {
        pkcs11::Answer::Tokens(tokens) => tokens,
        _ => return Err(other_answer()),
    };
    let nobody_can = tokens
        .iter()
        .all(|token| !token.logged_in && token.needs_login());
    if wanted && tokens.len() > 1 && nobody_can {
        return Err(Failure::usage(format!(
            "--login is for one token, and {} match {name}: name one of them by --uri:\n{}",
            tokens.len(),
            tokens
                .iter()
                .map(|token| token.uri.to_string())
                .collect::<Vec<_>>()
                .join("\n")
        )));
    }
    Ok(tokens.into_iter().map(TokenJson::of).collect())
}

fn tpm(tcti: &Tcti) -> Result<TpmJson, Failure> {
    let patience = Patience::usual("looking at the TPM", &[]);
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

trait NeedsLogin {
    fn needs_login(&self) -> bool;
}

impl NeedsLogin for pkcs11::TokenReport {
    fn needs_login(&self) -> bool {
        self.flags.iter().any(|flag| flag == "CKF_LOGIN_REQUIRED")
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
            keys: report.keys.iter().map(KeyJson::of_token).collect(),
            certificates: report
                .certificates
                .iter()
                .map(CertificateJson::of)
                .collect(),
            warnings: report.warnings,
        }
    }

    fn text(&self) -> String {
        let mut text = format!(
            "token {}\n  slot {}, {}\n  flags: {}\n",
            self.uri,
            self.slot,
            self.model,
            self.flags.join(", ")
        );
        text += &remarks(&self.warnings);
        text += &keys(&self.keys);
        let shown = |certificate: &&CertificateJson| {
            let mut with_keys = self.keys.iter().flat_map(|key| &key.certificates);
            with_keys.any(|shown| shown.uri == certificate.uri)
        };
        for certificate in self.certificates.iter().filter(|one| !shown(one)) {
            text += &format!("  {certificate}\n");
        }
        let has = |name: &str| self.flags.iter().any(|flag| flag == name);
        if !self.logged_in && has("CKF_TOKEN_INITIALIZED") && has("CKF_LOGIN_REQUIRED") {
            text += "  without a login, private objects do not show: --login shows all\n";
        }
        text
    }
}

impl Listing {
    fn text(&self) -> String {
        let mut parts: Vec<String> = Vec::new();
        if let Some(tokens) = &self.tokens {
            parts.extend(tokens.iter().map(TokenJson::text));
        }
        parts.extend(self.tpm.as_ref().map(TpmJson::text));
        parts.join("\n")
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
            text += "  no persistent keys; keys in files are named by their files\n";
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
    let text: String = keys.iter().map(ToString::to_string).collect();
    text.lines().map(|line| format!("  {line}\n")).collect()
}
