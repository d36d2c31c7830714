//! `TPM2_Sign` with one key that is kept loaded.

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context as _, Result, anyhow, ensure};
use clap::Args;
use roleseal_tpm::key_file::KeyFile;
use tss_esapi::constants::tss::{TPM2_RH_NULL, TPM2_ST_HASHCHECK};
use tss_esapi::handles::{KeyHandle, PersistentTpmHandle, TpmHandle};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{
    Digest, HashScheme, HashcheckTicket, Private, Public, PublicBuffer, SignatureScheme,
};
use tss_esapi::traits::UnMarshall;
use tss_esapi::tss2_esys::{TPM2B_DIGEST, TPMT_TK_HASHCHECK};
use tss_esapi::{Context, TctiNameConf};

/// Which key.
#[derive(Args)]
pub(crate) struct Arguments {
    tcti: String,
    /// A TSS2 PRIVATE KEY file, without an auth value, under a persistent key
    key: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut tpm = Context::new(TctiNameConf::from_str(&arguments.tcti)?)?;
    let file = std::fs::read_to_string(&arguments.key)?;
    let file = KeyFile::parse(file.as_bytes()).map_err(|error| anyhow!(error))?;
    let (key, scheme) = load(&mut tpm, &file)?;
    let digest = Digest::try_from(vec![7; 32])?;
    let ticket = HashcheckTicket::try_from(TPMT_TK_HASHCHECK {
        tag: TPM2_ST_HASHCHECK,
        hierarchy: TPM2_RH_NULL,
        digest: TPM2B_DIGEST::default(),
    })?;
    let mut sign = || {
        tpm.sign(key, digest.clone(), scheme, ticket.clone())?;
        Ok(())
    };
    let served = super::serve(vec![&mut sign]);
    tpm.clear_sessions();
    tpm.flush_context(key.into())?; // a TPM has room for three
    served
}

fn load(tpm: &mut Context, file: &KeyFile) -> Result<(KeyHandle, SignatureScheme)> {
    let public = Public::try_from(PublicBuffer::unmarshall(&file.public)?)?;
    let private = file.private.get(2..).context("no private area")?; // behind its length
    let hash_scheme = HashScheme::new(HashingAlgorithm::Sha256);
    let scheme = match &public {
        Public::Rsa { .. } => SignatureScheme::RsaSsa { hash_scheme },
        _ => SignatureScheme::EcDsa { hash_scheme },
    };
    ensure!(
        file.parent >> 24 == 0x81,
        "the key is not under a persistent key"
    );
    let parent = TpmHandle::Persistent(PersistentTpmHandle::new(file.parent)?);
    let parent = tpm.tr_from_tpm_public(parent)?;
    tpm.set_sessions((Some(AuthSession::Password), None, None));
    let key = tpm.load(parent.into(), Private::try_from(private.to_vec())?, public)?;
    Ok((key, scheme))
}
