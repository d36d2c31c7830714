//! The fixtures one by one: `softhsm`, `tpm`, `pki`.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use hsm_fixtures::{
    Issuer, KeyKind, KeySpec, LeafSpec, Pki, SoftHsm, Swtpm, TpmKeyForm, TpmKeySpec,
};
use openssl::pkey::PKey;

use crate::interrupt::Interrupt;

#[derive(Args)]
pub(crate) struct SoftHsmArguments {
    /// Where the store, its softhsm.conf and the public keys (NAME.pub.pem) go.
    dir: PathBuf,
    /// The token's label.
    #[arg(long, default_value = "lab")]
    token: String,
    /// The user's PIN; others can see it in the list of processes, so let it be a throw-away.
    #[arg(long, default_value = hsm_fixtures::PIN)]
    pin: String,
    /// A key to generate: NAME=KIND, with KIND rsa-2048, rsa-3072, rsa-4096, ec-p256, ec-p384 or ec-p521; repeatable.
    #[arg(long = "key", value_name = "NAME=KIND")]
    keys: Vec<NamedKey>,
}

#[derive(Args)]
pub(crate) struct TpmArguments {
    /// Where the TPM's state and its log, key files (NAME.tss) and public keys (NAME.pub.pem) go.
    dir: PathBuf,
    /// A key to make: NAME=KIND for a file, NAME=KIND@0x81000101 for a persistent handle; repeatable.
    #[arg(long = "key", value_name = "NAME=KIND[@HANDLE]")]
    keys: Vec<TpmKeyName>,
    /// The auth value of all keys; others can see it in the list of processes, so let it be a throw-away.
    #[arg(long)]
    auth: Option<String>,
    /// Make key files with tpm2-openssl instead of tpm2-tools.
    #[arg(long)]
    openssl: bool,
}

#[derive(Args)]
pub(crate) struct PkiArguments {
    /// Where the CAs are, or where to make them: root.pem, intermediate.pem, and tls.pem for the service.
    dir: PathBuf,
    /// Issue a certificate for this public key (PEM), as `hsm-fixtures softhsm` writes it.
    #[arg(long, requires = "name")]
    public_key: Option<PathBuf>,
    /// The certificate's common name; it goes to NAME.pem with its intermediates.
    #[arg(long, requires = "public_key")]
    name: Option<String>,
    /// Which CA issues it.
    #[arg(long, value_enum, default_value = "intermediate")]
    issuer: Issuer,
}

#[derive(Clone)]
struct NamedKey {
    name: String,
    kind: KeyKind,
}

impl FromStr for NamedKey {
    type Err = String;

    fn from_str(text: &str) -> Result<NamedKey, String> {
        let (name, kind) = text.split_once('=').ok_or("not NAME=KIND")?;
        Ok(NamedKey {
            name: name.to_owned(),
            kind: KeyKind::from_str(kind, false)?,
        })
    }
}

#[derive(Clone)]
struct TpmKeyName {
    key: NamedKey,
    handle: Option<u32>,
}

impl FromStr for TpmKeyName {
    type Err = String;

    fn from_str(text: &str) -> Result<TpmKeyName, String> {
        let Some((key, handle)) = text.split_once('@') else {
            return Ok(TpmKeyName {
                key: text.parse()?,
                handle: None,
            });
        };
        let number = handle.strip_prefix("0x").unwrap_or(handle);
        let number = u32::from_str_radix(number, 16)
            .ok()
            .filter(|number| (0x8100_0000..0x8200_0000).contains(number));
        Ok(TpmKeyName {
            key: key.parse()?,
            handle: Some(number.ok_or("a persistent handle is 0x81000000 to 0x81ffffff")?),
        })
    }
}

/// `hsm-fixtures softhsm`.
pub(crate) fn softhsm(arguments: &SoftHsmArguments) -> Result<()> {
    let dir = absolute(&arguments.dir)?;
    let store = SoftHsm::create(&dir)?;
    let token = store.add_token(&arguments.token, &arguments.pin)?;
    for NamedKey { name, kind } in &arguments.keys {
        let spki = token.generate(&KeySpec::new(name, *kind))?;
        let path = write_public_key(&dir, name, &spki)?;
        println!(
            "pkcs11:token={};object={name}  {}",
            token.label(),
            path.display()
        );
    }
    println!("pkcs11-module = \"{}\"", SoftHsm::module()?.display());
    for (name, value) in store.env() {
        println!("export {name}={}", crate::usage::shell_word(&value));
    }
    Ok(())
}

/// `hsm-fixtures tpm`.
pub(crate) fn tpm(interrupt: &Interrupt, arguments: &TpmArguments) -> Result<()> {
    let dir = &arguments.dir;
    if let Some(parent) = dir.parent() {
        absolute(parent)?;
    }
    let swtpm = Swtpm::start(&std::path::absolute(dir)?)?;
    for TpmKeyName { key, handle } in &arguments.keys {
        let form = match handle {
            Some(handle) => TpmKeyForm::Persistent(*handle),
            None if arguments.openssl => TpmKeyForm::OpenSslFile,
            None => TpmKeyForm::File,
        };
        let spec = TpmKeySpec {
            form,
            auth: arguments.auth.clone(),
            ..TpmKeySpec::new(key.kind)
        };
        let made = swtpm.add_key(&key.name, &spec)?;
        let path = write_public_key(swtpm.dir(), &key.name, &made.spki)?;
        println!("{}  {}", made.key, path.display());
    }
    println!("tpm = {{ tcti = \"{}\" }}", swtpm.tcti());
    for (name, value) in swtpm.env() {
        println!("export {name}={}", crate::usage::shell_word(&value));
    }
    eprintln!("{}\nCtrl-C ends it.", swtpm.log_path().display());
    interrupt.wait_while(|| swtpm.check())
}

/// `hsm-fixtures pki`.
pub(crate) fn pki(arguments: &PkiArguments) -> Result<()> {
    let dir = absolute(&arguments.dir)?;
    let pki = if dir.join("root.pem").exists() {
        Pki::open(&dir)?
    } else {
        create_pki(&dir)?
    };
    if let (Some(public_key), Some(name)) = (&arguments.public_key, &arguments.name) {
        let pem = fs::read(public_key)
            .with_context(|| format!("cannot read {}", public_key.display()))?;
        let key = PKey::public_key_from_pem(&pem)
            .with_context(|| format!("{} is no PEM public key", public_key.display()))?;
        let spec = LeafSpec {
            issuer: arguments.issuer,
            ..LeafSpec::new(name)
        };
        let path = dir.join(format!("{name}.pem"));
        pki.leaf(&key.public_key_to_der()?, &spec)?.write(&path)?;
        println!("{}", path.display());
    }
    Ok(())
}

fn create_pki(dir: &Path) -> Result<Pki> {
    let pki = Pki::create(dir)?;
    let tls = pki.tls_identity()?;
    write(&dir.join("tls.pem"), tls.certificate_pem.as_bytes())?;
    tls.write_key(&dir.join("tls.key"))?;
    for name in ["root.pem", "intermediate.pem", "tls.pem", "tls.key"] {
        println!("{}", dir.join(name).display());
    }
    Ok(pki)
}

/// Writes `NAME.pub.pem`.
fn write_public_key(dir: &Path, name: &str, spki: &[u8]) -> Result<PathBuf> {
    let path = dir.join(format!("{name}.pub.pem"));
    let key = PKey::public_key_from_der(spki)?;
    write(&path, &key.public_key_to_pem()?)?;
    Ok(path)
}

/// Makes `dir`; softhsm.conf needs an absolute path.
fn absolute(dir: &Path) -> Result<PathBuf> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    fs::canonicalize(dir).with_context(|| format!("cannot find {}", dir.display()))
}

fn write(path: &Path, content: &[u8]) -> Result<()> {
    fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}
