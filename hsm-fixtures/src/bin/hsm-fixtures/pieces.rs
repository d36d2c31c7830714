//! The fixtures one by one: `softhsm`, `pki`, `service`.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use hsm_fixtures::{Issuer, KeyKind, KeySpec, LeafSpec, Pki, Service, ServiceConfig, SoftHsm};
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

/// `hsm-fixtures softhsm`.
pub(crate) fn softhsm(arguments: &SoftHsmArguments) -> Result<()> {
    let dir = absolute(&arguments.dir)?;
    let store = SoftHsm::create(&dir)?;
    let token = store.add_token(&arguments.token, &arguments.pin)?;
    for NamedKey { name, kind } in &arguments.keys {
        let spki = token.generate(&KeySpec::new(name, *kind))?;
        let path = dir.join(format!("{name}.pub.pem"));
        write(
            &path,
            &PKey::public_key_from_der(&spki)?.public_key_to_pem()?,
        )?;
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

/// `hsm-fixtures service`.
pub(crate) fn service(interrupt: &Interrupt, config: &Path) -> Result<()> {
    let config = ServiceConfig {
        verbose: true,
        ..ServiceConfig::from_toml_file(config)?
    };
    let service = Service::start(config)?;
    println!("{}", service.url());
    interrupt.wait_while(|| Ok(()))
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

/// Makes `dir`; softhsm.conf needs an absolute path.
fn absolute(dir: &Path) -> Result<PathBuf> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    fs::canonicalize(dir).with_context(|| format!("cannot find {}", dir.display()))
}

fn write(path: &Path, content: &[u8]) -> Result<()> {
    fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}
