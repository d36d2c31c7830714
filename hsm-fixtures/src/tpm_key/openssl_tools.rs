//! Keys by OpenSSL with the provider of the package tpm2-openssl.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use openssl::pkey::PKey;

use super::{TpmKey, TpmKeyParent, TpmKeySpec, tpm2_tools};
use crate::command;
use crate::softhsm::KeyKind;
use crate::swtpm::Swtpm;

pub(super) fn generate(swtpm: &Swtpm, name: &str, spec: &TpmKeySpec) -> Result<TpmKey> {
    ensure!(
        spec.pcr.is_none() && spec.scheme.is_none(),
        "tpm2-openssl makes no keys with a policy or a fixed scheme"
    );
    let file = swtpm.dir().join(format!("{name}.tss"));
    let mut generate = openssl(swtpm, "genpkey");
    let (algorithm, size) = algorithm(spec.kind);
    generate.args(["-algorithm", algorithm, "-pkeyopt", size]);
    if let Some(auth) = &spec.auth {
        generate.args(["-pkeyopt", &format!("user-auth:{auth}")]);
    }
    if let TpmKeyParent::Persistent(_) = spec.parent {
        let parent = tpm2_tools::parent(swtpm, swtpm.dir(), spec.parent)?;
        generate.args(["-pkeyopt", &format!("parent:{parent}")]);
    }
    run(generate.arg("-out").arg(&file))?;
    Ok(TpmKey {
        key: file.display().to_string(),
        spki: spki(swtpm, &file, spec)?,
    })
}

fn spki(swtpm: &Swtpm, file: &Path, spec: &TpmKeySpec) -> Result<Vec<u8>> {
    let mut read = openssl(swtpm, "pkey");
    read.args(["-pubout", "-in"]).arg(file);
    if let Some(auth) = &spec.auth {
        read.args(["-passin", &format!("pass:{auth}")]);
    }
    let key = PKey::public_key_from_pem(&run(&mut read)?)
        .context("openssl pkey has written no public key")?;
    Ok(key.public_key_to_der()?)
}

fn openssl(swtpm: &Swtpm, subcommand: &str) -> Command {
    let mut openssl = swtpm.tool("openssl");
    openssl.arg(subcommand);
    openssl.args(["-provider", "tpm2", "-provider", "default"]);
    openssl.args(["-propquery", "?provider=tpm2"]);
    openssl
}

fn run(openssl: &mut Command) -> Result<Vec<u8>> {
    command::output(openssl)
        .context("OpenSSL's provider tpm2 (on Debian or Ubuntu: apt-get install tpm2-openssl)")
}

fn algorithm(kind: KeyKind) -> (&'static str, &'static str) {
    match kind {
        KeyKind::Rsa2048 => ("RSA", "bits:2048"),
        KeyKind::Rsa3072 => ("RSA", "bits:3072"),
        KeyKind::Rsa4096 => ("RSA", "bits:4096"),
        KeyKind::EcP256 => ("EC", "group:P-256"),
        KeyKind::EcP384 => ("EC", "group:P-384"),
        KeyKind::EcP521 => ("EC", "group:P-521"),
    }
}
