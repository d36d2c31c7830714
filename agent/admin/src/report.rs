//! What a token says of a key, for people and as JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use der::Decode;
use der::pem::LineEnding;
use serde::Serialize;
use token::account::Account;
use token::operator::{PublicKeyInfo, pkcs11, tpm};
use token::{PinSource, Tcti};

use crate::pins::TpmPinArguments;
use config::DEFAULT_MODULE;

/// Where certificates are, unless somebody wants them elsewhere: what the systemd unit lets the agent write to
/// (`StateDirectory=`).
pub(crate) const CERTIFICATES: &str = "/var/lib/roleseal";

/// A key.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct KeyJson {
    /// As the agent's configuration names it: a PKCS#11 URI, `handle:0x…`, or a key file's path.
    pub(crate) key: String,
    /// Such as `EC-P-256`.
    pub(crate) algorithm: String,
    /// What the token says of it, by the standards' names.
    pub(crate) attributes: BTreeMap<&'static str, bool>,
    /// `TPMA_OBJECT` attributes that are set.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) tpm_attributes: Vec<String>,
    /// PEM.
    pub(crate) public_key: Option<String>,
    /// Those with its `CKA_ID`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) certificates: Vec<CertificateJson>,
    /// Whose its files are, where they are not this user's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) owner: Option<String>,
    /// What to look at.
    pub(crate) warnings: Vec<String>,
    /// What an identity with it needs beside `key`: lines of TOML.
    #[serde(skip)]
    settings: Vec<String>,
    /// What a command about it needs beside its name.
    #[serde(skip)]
    options: Vec<String>,
}

/// A certificate on a token.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CertificateJson {
    /// Its URI.
    pub(crate) uri: String,
    /// RFC 4514; `None` where it cannot be read.
    pub(crate) subject: Option<String>,
    /// RFC 4514.
    pub(crate) issuer: Option<String>,
    /// When it expires.
    pub(crate) not_after: Option<String>,
}

impl KeyJson {
    /// Of a PKCS#11 token.
    pub(crate) fn of_token(report: &pkcs11::KeyReport) -> KeyJson {
        let said = &report.attributes;
        let attributes = [
            ("CKA_SIGN", said.sign),
            ("CKA_SENSITIVE", said.sensitive),
            ("CKA_EXTRACTABLE", said.extractable),
            ("CKA_ALWAYS_SENSITIVE", said.always_sensitive),
            ("CKA_NEVER_EXTRACTABLE", said.never_extractable),
            ("CKA_LOCAL", said.local),
            ("CKA_ALWAYS_AUTHENTICATE", said.always_authenticate),
        ];
        let told = attributes.into_iter();
        KeyJson {
            key: report.uri.to_string(),
            algorithm: report.algorithm.clone(),
            attributes: told
                .filter_map(|(name, value)| Some((name, value?)))
                .collect(),
            tpm_attributes: Vec::new(),
            public_key: report.public_key.as_ref().and_then(pem),
            certificates: report
                .certificates
                .iter()
                .map(CertificateJson::of)
                .collect(),
            warnings: report.warnings.clone(),
            owner: None,
            settings: Vec::new(),
            options: Vec::new(),
        }
    }

    /// Of a TPM; at its persistent handle, or in this place.
    pub(crate) fn of_tpm(report: &tpm::KeyReport, place: Option<String>) -> KeyJson {
        let at_handle = report.handle.map(|handle| format!("handle:0x{handle:08X}"));
        KeyJson {
            key: place.or(at_handle).unwrap_or_default(),
            algorithm: report.algorithm.clone(),
            attributes: BTreeMap::new(),
            tpm_attributes: report.attributes.clone(),
            public_key: report.public_key.as_ref().and_then(pem),
            certificates: Vec::new(),
            warnings: report.warnings.clone(),
            owner: None,
            settings: Vec::new(),
            options: Vec::new(),
        }
    }

    pub(super) fn with_module(mut self, module: &Path) -> KeyJson {
        if module != Path::new(DEFAULT_MODULE) {
            self.options.push(format!(
                "--module {}",
                quoted(&module.display().to_string())
            ));
        }
        self
    }

    pub(super) fn with_owner(mut self, owner: Option<&Account>) -> KeyJson {
        self.owner = owner.map(|owner| owner.name.clone());
        self
    }

    pub(super) fn with_tcti(mut self, tcti: &Tcti) -> KeyJson {
        if *tcti != Tcti::default() {
            self.options
                .push(format!("--tpm {}", quoted(&tcti.to_string())));
            self.settings.push(format!(
                "tpm = {{ tcti = {} }}",
                toml_string(&tcti.to_string())
            ));
        }
        self
    }

    pub(super) fn with_pin(mut self, pin: Option<&PinSource>) -> KeyJson {
        let setting = match pin {
            None => return self,
            Some(PinSource::File(path)) => {
                self.options.push(format!(
                    "--pin-file {}",
                    quoted(&path.display().to_string())
                ));
                format!("pin = {{ file = {} }}", toml_string(&absolute(path)))
            }
            Some(PinSource::Credential(name)) => {
                self.options
                    .push(format!("--pin-credential {}", quoted(name)));
                format!("pin = {{ credential = {} }}", toml_string(name))
            }
            Some(PinSource::Terminal(_) | PinSource::AskPassword(_) | PinSource::Value(_)) => {
                "pin = { file = \"/etc/roleseal-pins/NAME\" }  # a file of mode 0600 with the PIN"
                    .to_owned()
            }
        };
        self.settings.push(setting);
        self
    }

    pub(super) fn with_tpm_pins(mut self, pins: &TpmPinArguments) -> KeyJson {
        for (name, path) in [
            ("owner", &pins.owner_pin_file),
            ("parent", &pins.parent_pin_file),
        ] {
            if let Some(path) = path
                && !self.key.starts_with("handle:")
            {
                self.options.push(format!(
                    "--{name}-pin-file {}",
                    quoted(&path.display().to_string())
                ));
                let path = toml_string(&absolute(path));
                self.settings
                    .push(format!("{name}-pin = {{ file = {path} }}"));
            }
        }
        self
    }

    /// The argument that names it in a command line.
    fn argument(&self) -> String {
        match self.key.strip_prefix("handle:") {
            Some(handle) => format!("--handle {handle}"),
            None if self.key.starts_with("pkcs11:") => format!("--uri {}", quoted(&self.key)),
            None => format!("--key {}", quoted(&self.key)),
        }
    }
}

/// What to do with a key that was just made.
pub(crate) fn next_steps(key: &KeyJson) -> String {
    let mut command = format!("roleseal-admin csr {}", key.argument());
    for option in &key.options {
        command += &format!(" {option}");
    }
    let settings: String = key
        .settings
        .iter()
        .map(|line| format!("  {line}\n"))
        .collect();
    let name = toml_string(&key.name());
    format!(
        "\nNext, a request for its certificate, for your CA:\n  {command} --subject 'CN={}' --out {}\n\
         Then, in /etc/roleseal/agent.toml:\n  [[identity]]\n  name = {name}\n  key = {}\n{settings}  \
         certificate = \"{CERTIFICATES}/{}.pem\"  # the leaf, then intermediates\n",
        key.name(),
        quoted(&format!("{}.csr", key.name())),
        toml_string(&key.key),
        key.name(),
    )
}

impl KeyJson {
    /// For an identity and its files: the label's or the file's plain characters.
    fn name(&self) -> String {
        let label = self
            .key
            .split([';', ':', '?'])
            .find_map(|part| part.strip_prefix("object="));
        let file = Path::new(&self.key)
            .file_stem()
            .and_then(|stem| stem.to_str());
        let at_handle = self.key.starts_with("handle:");
        let name = label.or(file.filter(|_| !at_handle)).unwrap_or("web");
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        match !name.is_empty() && name.chars().all(plain) {
            true => name.to_owned(),
            false => "web".to_owned(),
        }
    }
}

impl CertificateJson {
    /// As far as it can be read.
    pub(crate) fn of(report: &pkcs11::CertificateReport) -> CertificateJson {
        let read = x509_cert::Certificate::from_der(&report.certificate.0).ok();
        let tbs = read
            .as_ref()
            .map(|certificate| certificate.tbs_certificate());
        CertificateJson {
            uri: report.uri.to_string(),
            subject: tbs.map(|tbs| tbs.subject().to_string()),
            issuer: tbs.map(|tbs| tbs.issuer().to_string()),
            not_after: tbs.map(|tbs| tbs.validity().not_after.to_string()),
        }
    }
}

impl fmt::Display for KeyJson {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        writeln!(f, "key {}", self.key)?;
        writeln!(f, "  algorithm: {}", self.algorithm)?;
        let named = |holds: bool| {
            self.attributes
                .iter()
                .filter(move |(_, said)| **said == holds)
        };
        let mut attributes: Vec<String> = named(true).map(|(name, _)| (*name).to_owned()).collect();
        attributes.extend(named(false).map(|(name, _)| format!("not {name}")));
        attributes.extend(self.tpm_attributes.clone());
        if !attributes.is_empty() {
            writeln!(f, "  attributes: {}", attributes.join(", "))?;
        }
        if let Some(owner) = &self.owner {
            writeln!(f, "  owner: {owner}, so that the agent can read it")?;
        }
        for certificate in &self.certificates {
            writeln!(f, "  {certificate}")?;
        }
        for warning in &self.warnings {
            writeln!(f, "  warning: {}", warning.replace('\n', "\n  "))?;
        }
        Ok(())
    }
}

impl fmt::Display for CertificateJson {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "certificate {}", self.uri)?;
        match (&self.subject, &self.not_after) {
            (Some(subject), Some(until)) => write!(f, " ({subject}, until {until})"),
            _ => f.write_str(" (cannot be read)"),
        }
    }
}

fn pem(key: &PublicKeyInfo) -> Option<String> {
    der::pem::encode_string("PUBLIC KEY", LineEnding::LF, &key.0).ok()
}

fn absolute(path: &Path) -> String {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    path.display().to_string()
}

/// For a shell.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:=,%".contains(c);
    match !text.is_empty() && text.chars().all(plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

fn toml_string(text: &str) -> String {
    toml_edit::Value::from(text).to_string()
}
