//! `C_SignInit` and `C_Sign` on one key, in a session for each thread.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use clap::Args;
use cryptoki_sys::{
    CK_OBJECT_HANDLE, CK_SLOT_ID, CKA_CLASS, CKA_LABEL, CKM_ECDSA, CKM_SHA256_RSA_PKCS,
    CKO_PRIVATE_KEY, CKU_USER,
};
use roleseal_pkcs11::Failure;
use roleseal_pkcs11::raw::{Library, Module, Session};
use sha2::{Digest, Sha256};
use token::Pin;

/// Which key.
#[derive(Args)]
pub(crate) struct Arguments {
    module: PathBuf,
    token: String,
    pin: String,
    key: String,
    /// It is an RSA key
    #[arg(long)]
    rsa: bool,
}

/// As many sessions as are measured at once.
const SESSIONS: usize = 2;

/// As long as a string to sign.
const TEXT: &[u8] = &[b'a'; 150];

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let module = Library::load(&arguments.module).map_err(|error| anyhow!(error))?;
    let module = Arc::new(module.initialize().map_err(failed)?);
    let slot = slot(&module, &arguments.token)?;
    let open = |_| module.open_session(slot).map_err(failed);
    let sessions: Vec<Session> = (0..SESSIONS).map(open).collect::<Result<_>>()?;
    let first = sessions.first().context("no session")?;
    first
        .login(CKU_USER, &Pin::from(arguments.pin.clone()))
        .map_err(failed)?;
    let key = private_key(first, &arguments.key)?;
    let (mechanism, input) = match arguments.rsa {
        true => (CKM_SHA256_RSA_PKCS, TEXT.to_vec()),
        false => (CKM_ECDSA, Sha256::digest(TEXT).to_vec()),
    };
    let signer = |session: Session| {
        let input = input.clone();
        move || {
            session.sign_init(mechanism, key).map_err(failed)?;
            session.sign(&input).map(drop).map_err(failed)
        }
    };
    super::serve(sessions.into_iter().map(signer).collect())
}

fn slot(module: &Module, label: &str) -> Result<CK_SLOT_ID> {
    for slot in module.slots().map_err(failed)? {
        let info = module.token_info(slot).map_err(failed)?;
        if String::from_utf8_lossy(&info.label).trim_end() == label {
            return Ok(slot);
        }
    }
    Err(anyhow!("no token {label}"))
}

fn private_key(session: &Session, label: &str) -> Result<CK_OBJECT_HANDLE> {
    let template = [
        (CKA_CLASS, &CKO_PRIVATE_KEY.to_ne_bytes()[..]),
        (CKA_LABEL, label.as_bytes()),
    ];
    let keys = session.find(&template, 1).map_err(failed)?;
    keys.first()
        .copied()
        .with_context(|| format!("no key {label}"))
}

fn failed(failure: Failure) -> anyhow::Error {
    anyhow!("{failure}")
}
