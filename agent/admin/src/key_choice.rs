//! Which key a command is about, as its arguments name it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{ArgGroup, Args};
use token::account::Account;
use token::link::{OpenTpmKey, TpmKeySource};
use token::operator::pkcs11;
use token::{PinSource, Pkcs11Uri, Tcti, tpm_device};

use crate::failure::Failure;
use crate::handle::Handle;
use crate::pins::{PinArguments, TpmPinArguments, at_terminal, in_file};
use crate::token_key::{KeyPlace, other_answer};
use crate::token_program::{Patience, Program};
use config::DEFAULT_MODULE;

/// One key: of a PKCS#11 token, in a file, or at a persistent handle.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which-key").args(["uri", "key", "handle"]).required(true))]
pub(crate) struct KeyChoice {
    /// The key on a PKCS#11 token (RFC 7512), such as 'pkcs11:token=lab;object=web'
    #[arg(long, value_name = "URI")]
    pub(crate) uri: Option<UriText>,
    /// The key in this TSS2 PRIVATE KEY file
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// The key at this persistent handle of the TPM, such as 0x81000101
    #[arg(long, value_name = "HANDLE")]
    pub(crate) handle: Option<Handle>,
    #[command(flatten)]
    pub(crate) module: ModuleArgument,
    /// How to reach the TPM [default: device:/dev/tpmrm0]
    #[arg(long, value_name = "TCTI", num_args = 0..=1, default_missing_value = "device:/dev/tpmrm0", conflicts_with = "uri")]
    pub(crate) tpm: Option<Tcti>,
    #[command(flatten)]
    pub(crate) pin: PinArguments,
    #[command(flatten)]
    pub(crate) tpm_pins: TpmPinArguments,
}

/// The PKCS#11 module.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ModuleArgument {
    /// The PKCS#11 module: a path, or a name for the dynamic linker [default: the URI's module-path,
    /// else p11-kit-proxy.so]
    #[arg(long, value_name = "MODULE")]
    module: Option<PathBuf>,
    /// What the configuration says, where one is read.
    #[arg(skip)]
    configured: Option<PathBuf>,
}

/// A PKCS#11 URI that was not read yet: clap would repeat one that is wrong, and a PIN in it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct UriText(String);

impl KeyChoice {
    /// Where it is, and where its PINs are.
    pub(crate) fn place(&self) -> Result<KeyPlace, Failure> {
        if let Some(uri) = &self.uri {
            self.tpm_pins.check_unused()?;
            return place_on_token(uri.read()?, &self.module, &self.pin, None);
        }
        if self.module.is_given() {
            return Err(Failure::usage(
                "cannot use --module without --uri: it is for PKCS#11 tokens",
            ));
        }
        let source = match (&self.key, self.handle) {
            (Some(path), _) => TpmKeySource::File(absolute(path)?),
            (None, Some(Handle(handle))) => TpmKeySource::Handle(handle),
            (None, None) => return Err(Failure::usage("name a key: --uri, --key or --handle")),
        };
        let tcti = self.tpm.clone().unwrap_or_default();
        place_in_tpm(tcti, source, &self.pin, Some(&self.tpm_pins))
    }
}

/// A key on a PKCS#11 token; `user` as [`KeyPlace`] has it.
pub(crate) fn place_on_token(
    mut uri: Pkcs11Uri,
    module: &ModuleArgument,
    pin: &PinArguments,
    user: Option<Account>,
) -> Result<KeyPlace, Failure> {
    let module = module.of(&mut uri);
    let pin = pin_of_token(pin, &mut uri, &module)?;
    Ok(KeyPlace::Pkcs11 {
        module,
        uri,
        pin,
        user: user.map(Box::new),
    })
}

/// The PIN of the URI's token. A token that needs no login gets none that was not given.
pub(super) fn pin_of_token(
    pin: &PinArguments,
    uri: &mut Pkcs11Uri,
    module: &Path,
) -> Result<Option<PinSource>, Failure> {
    let name = Pkcs11Uri::from(uri.token.clone()).to_string();
    let given = pin.of_token(uri.pin.take(), &name)?;
    if given.is_some() {
        return Ok(given);
    }
    let request = pkcs11::Request {
        module: module.to_owned(),
        pin: None,
        user: None,
        task: pkcs11::Task::NeedsPin { token: uri.clone() },
    };
    let patience = Patience::usual("finding the token", []);
    match Program::start(token::Program::Pkcs11)?.ask(&request, patience)? {
        pkcs11::Answer::NeedsPin(true) => at_terminal(&name).map(Some),
        pkcs11::Answer::NeedsPin(false) => Ok(None),
        _ => Err(other_answer()),
    }
}

/// A key of a TPM; without `parents` where it has none to be loaded under.
pub(crate) fn place_in_tpm(
    tcti: Tcti,
    source: TpmKeySource,
    pin: &PinArguments,
    parents: Option<&TpmPinArguments>,
) -> Result<KeyPlace, Failure> {
    check_tpm(&tcti)?;
    let pin = pin.of_tpm_key(&source.to_string(), false)?;
    let key = OpenTpmKey {
        source,
        pin,
        parent_pin: parents.and_then(|pins| in_file(&pins.parent_pin_file)),
        owner_pin: parents.and_then(|pins| in_file(&pins.owner_pin_file)),
    };
    Ok(KeyPlace::Tpm { tcti, key })
}

/// Whether the TPM's device can be opened, before anything else is done.
pub(crate) fn check_tpm(tcti: &Tcti) -> Result<(), Failure> {
    match tcti {
        Tcti::Device(path) => match tpm_device::obstacle(path) {
            Some(obstacle) => Err(Failure::failed(obstacle.into_text())),
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

impl ModuleArgument {
    /// The one given, else the URI's, else the default. The URI is without it then.
    pub(crate) fn of(&self, uri: &mut Pkcs11Uri) -> PathBuf {
        let in_uri = uri.module_path.take();
        let given = self.module.clone().or(in_uri);
        given.unwrap_or_else(|| self.default())
    }

    /// The one of the configuration, else the agent's own default.
    pub(crate) fn default(&self) -> PathBuf {
        let configured = self.configured.clone();
        configured.unwrap_or_else(|| PathBuf::from(DEFAULT_MODULE))
    }

    /// Takes the configuration's default.
    pub(crate) fn set_configured(&mut self, module: PathBuf) {
        self.configured = Some(module);
    }

    /// Whether one is given.
    pub(crate) fn is_given(&self) -> bool {
        self.module.is_some()
    }
}

impl UriText {
    /// The URI.
    pub(crate) fn read(&self) -> Result<Pkcs11Uri, Failure> {
        self.0
            .parse()
            .map_err(|error| Failure::usage(format!("--uri: {error}")))
    }
}

impl FromStr for UriText {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<UriText, Self::Err> {
        Ok(UriText(text.to_owned()))
    }
}

impl fmt::Debug for UriText {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("UriText(…)")
    }
}

/// As the configuration wants paths.
pub(super) fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path)
        .map_err(|error| Failure::usage(format!("cannot use {}: {error}", path.display())))
}
