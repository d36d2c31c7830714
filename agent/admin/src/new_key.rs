//! A key that is to be made: the options for it, and its making.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{ArgGroup, Args};
use token::account::Account;
use token::link::TpmKeySource;
use token::operator::tpm::NewKey;
use token::operator::{KeyType, pkcs11, tpm};
use token::{Tcti, softhsm};

use crate::failure::Failure;
use crate::handle::Handle;
use crate::key_choice::{
    ModuleArgument, UriText, absolute, check_tpm, place_in_tpm, place_on_token,
};
use crate::new_file::NewFile;
use crate::pins::{PinArguments, TpmPinArguments, in_file};
use crate::report::KeyJson;
use crate::token_key::{KeyPlace, other_answer};
use crate::token_program::{Patience, Program};

/// Which key to make, and where.
#[derive(Debug, Clone, Args)]
#[command(group = ArgGroup::new("where").args(["uri", "tpm"]).required(true))]
#[command(group = ArgGroup::new("place").args(["out", "persist"]))]
pub(crate) struct NewKeyArguments {
    /// The token (RFC 7512), and as its object the label of the key: 'pkcs11:token=lab;object=web'
    #[arg(long, value_name = "URI")]
    uri: Option<UriText>,
    #[command(flatten)]
    module: ModuleArgument,
    /// Make it in the TPM, reached in this way [default: device:/dev/tpmrm0]
    #[arg(long, value_name = "TCTI", num_args = 0..=1, default_missing_value = "device:/dev/tpmrm0", requires = "place")]
    tpm: Option<Tcti>,
    /// The kind of key: ec-p256, ec-p384, rsa-2048, rsa-3072 or rsa-4096
    #[arg(long = "type", value_name = "TYPE", default_value_t = KeyType::EcP256)]
    key_type: KeyType,
    /// Write the TPM's key to this new file (TSS2 PRIVATE KEY), of mode 0600
    #[arg(long, value_name = "FILE", conflicts_with = "uri")]
    out: Option<PathBuf>,
    /// Keep the key in the TPM, at this persistent handle
    #[arg(long, value_name = "HANDLE", conflicts_with = "uri")]
    persist: Option<Handle>,
    /// Store it under the key at this persistent handle, and not under the storage primary of the owner
    /// hierarchy
    #[arg(long, value_name = "HANDLE", conflicts_with = "uri")]
    parent: Option<Handle>,
    /// Let it sign only as long as these PCRs (SHA-256) are as they are now, such as 7,11
    #[arg(long, value_name = "LIST", conflicts_with = "uri")]
    pcr: Option<Pcrs>,
    #[command(flatten)]
    pin: PinArguments,
    #[command(flatten)]
    tpm_pins: TpmPinArguments,
}

/// Numbers of PCRs, each once.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pcrs(Vec<u8>);

/// A PC's TPM has PCRs 0 to 23.
const PCR_COUNT: u8 = 24;

impl NewKeyArguments {
    /// The PKCS#11 module, as it is given or defaulted.
    pub(crate) fn module(&mut self) -> &mut ModuleArgument {
        &mut self.module
    }

    /// The PKCS#11 module where none is given.
    pub(crate) fn default_module(&self) -> PathBuf {
        self.module.default()
    }

    /// Makes it. `owner`: whose its files are to be, if not this user's.
    pub(crate) fn make(&self, owner: Option<&Account>) -> Result<KeyJson, Failure> {
        match (&self.uri, &self.tpm) {
            (Some(uri), _) => self.on_token(uri, owner),
            (None, Some(tcti)) => self.in_tpm(tcti, owner),
            (None, None) => Err(Failure::usage("name a token: --uri or --tpm")),
        }
    }

    /// Where it is, once it is made.
    pub(crate) fn place(&self, owner: Option<&Account>) -> Result<KeyPlace, Failure> {
        if let Some(uri) = &self.uri {
            self.tpm_pins.check_unused()?;
            return place_on_token(uri.read()?, &self.module, &self.pin, owner.cloned());
        }
        let source = self.source()?;
        // A key at a handle has no parent to be loaded under.
        let parents = self.out.is_some().then_some(&self.tpm_pins);
        let tcti = self.tpm.clone().unwrap_or_default();
        place_in_tpm(tcti, source, &self.pin, parents)
    }

    /// Where in a TPM.
    fn source(&self) -> Result<TpmKeySource, Failure> {
        match (&self.out, self.persist) {
            (Some(path), _) => Ok(TpmKeySource::File(absolute(path)?)),
            (None, Some(Handle(handle))) => Ok(TpmKeySource::Handle(handle)),
            (None, None) => Err(Failure::usage(
                "say where the key is stored: --out or --persist",
            )),
        }
    }

    fn on_token(&self, uri: &UriText, owner: Option<&Account>) -> Result<KeyJson, Failure> {
        if uri.read()?.object.label.is_none() {
            return Err(Failure::usage(
                "--uri: name the new key by its label: 'pkcs11:token=lab;object=web'",
            ));
        }
        let KeyPlace::Pkcs11 {
            module,
            uri,
            pin,
            user,
        } = self.place(owner)?
        else {
            return Err(other_answer());
        };
        let patience = Patience::making(&pin);
        let request = pkcs11::Request {
            module: module.clone(),
            pin: pin.clone(),
            user: user.map(|user| *user),
            task: pkcs11::Task::Generate {
                key: uri,
                key_type: self.key_type,
            },
        };
        let owner = owner.filter(|_| softhsm::is_module(&module));
        match Program::start(token::Program::Pkcs11)?.ask(&request, patience)? {
            pkcs11::Answer::Key(report) => Ok(KeyJson::of_token(&report)
                .with_module(&module)
                .with_owner(owner)
                .with_pin(pin.as_ref())),
            _ => Err(other_answer()),
        }
    }

    fn in_tpm(&self, tcti: &Tcti, owner: Option<&Account>) -> Result<KeyJson, Failure> {
        if self.module.is_given() {
            return Err(Failure::usage(
                "cannot use --module with --tpm: it is for PKCS#11 tokens",
            ));
        }
        let place = self.source()?.to_string();
        check_tpm(tcti)?;
        // Before the key is made: without a place it would be lost.
        let file = self.out.as_deref();
        let file = file.map(|path| NewFile::begin(path, 0o600, owner));
        let file = file.transpose()?;
        let owner = owner.filter(|_| file.is_some());
        let key = NewKey {
            key_type: self.key_type,
            parent: self.parent.map(|handle| handle.0),
            parent_pin: in_file(&self.tpm_pins.parent_pin_file),
            owner_pin: in_file(&self.tpm_pins.owner_pin_file),
            pin: self.pin.of_tpm_key(&place, true)?,
            pcrs: self.pcr.clone().map(|pcrs| pcrs.0).unwrap_or_default(),
            persist: self.persist.map(|handle| handle.0),
        };
        let pin = key.pin.clone();
        let patience = Patience::making(&pin);
        let request = tpm::Request {
            tcti: tcti.clone(),
            task: tpm::Task::Generate(key),
        };
        let report = match Program::start(token::Program::Tpm)?.ask(&request, patience)? {
            tpm::Answer::Key(report) => report,
            _ => return Err(other_answer()),
        };
        match (file, &report.key_file) {
            (Some(file), Some(pem)) => file.put(pem.as_bytes())?,
            (None, _) => {}
            (Some(_), None) => return Err(other_answer()),
        }
        let key = KeyJson::of_tpm(&report, Some(place)).with_pin(pin.as_ref());
        Ok(key
            .with_owner(owner)
            .with_tcti(tcti)
            .with_tpm_pins(&self.tpm_pins))
    }
}

impl FromStr for Pcrs {
    type Err = String;

    fn from_str(text: &str) -> Result<Pcrs, String> {
        let mut pcrs = Vec::new();
        for number in text.split(',') {
            let pcr = match number.parse::<u8>() {
                Ok(pcr) if pcr < PCR_COUNT && !number.starts_with('+') => pcr,
                _ => return Err(format!("{number:?} is not a PCR: the numbers are 0 to 23")),
            };
            if pcrs.contains(&pcr) {
                return Err(format!("PCR {pcr} is given twice"));
            }
            pcrs.push(pcr);
        }
        pcrs.sort_unstable();
        Ok(Pcrs(pcrs))
    }
}
