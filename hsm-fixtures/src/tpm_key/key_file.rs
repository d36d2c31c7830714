//! `TSS2 PRIVATE KEY` files (draft-bottomley-tpm2-keys), as far as tpm2-tools 5.4 (Debian 12) leaves them to us: it
//! writes no policies.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use der::asn1::{Any, OctetString};
use der::pem::{self, LineEnding};
use der::{Decode, Encode, Tag, TagNumber, Tagged};
use openssl::sha::sha256;

const LABEL: &str = "TSS2 PRIVATE KEY";

const TPM_CC_POLICY_PCR: u32 = 0x17f;
const TPM_ALG_SHA256: u16 = 0x0b;
/// Of a PCR selection, which has one bit for each of 24 PCRs.
const SELECTION_BYTES: u8 = 3;

/// TPM2_PolicyPCR for one PCR of the SHA-256 bank.
pub(super) struct PcrPolicy {
    /// Which one, up to 23.
    pub(super) pcr: u8,
    /// What is in it.
    pub(super) value: Vec<u8>,
    /// A file with the policy's digest, which the key is made with.
    pub(super) digest: PathBuf,
}

/// Puts a policy into a file that has none.
pub(super) fn add_policy(file: &Path, policy: &PcrPolicy) -> Result<()> {
    let command = vec![
        explicit(0, &TPM_CC_POLICY_PCR)?,
        explicit(1, &OctetString::new(parameters(policy))?)?,
    ];
    let policies = explicit(1, &vec![command])?;
    let mut fields = fields(file)?;
    let parent = fields
        .iter()
        .position(|field| field.tag() == Tag::Integer)
        .context("the key file names no parent")?;
    fields.insert(parent, policies);
    let text = pem::encode_string(LABEL, LineEnding::LF, &fields.to_der()?)?;
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// The two blobs at the end of a key file, as tpm2-tools take them: TPM2B_PUBLIC and TPM2B_PRIVATE.
pub(super) fn blobs(file: &Path) -> Result<(Vec<u8>, Vec<u8>)> {
    match &fields(file)?[..] {
        [.., public, private] => Ok((public.value().to_vec(), private.value().to_vec())),
        _ => bail!("{} has no blobs", file.display()),
    }
}

/// The fields of a key file, in their order.
fn fields(file: &Path) -> Result<Vec<Any>> {
    let text = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let (label, der) = pem::decode_vec(&text)?;
    ensure!(label == LABEL, "{} is a {label}", file.display());
    Ok(Vec::<Any>::from_der(&der)?)
}

/// The command's parameters as on the wire: the digest of all selected PCRs, then their selection.
fn parameters(policy: &PcrPolicy) -> Vec<u8> {
    let digest = sha256(&policy.value);
    let bits = 1u32 << policy.pcr;
    let [first, second, third, _] = bits.to_le_bytes();
    [
        &[0, 32][..],
        &digest,
        &1u32.to_be_bytes(),
        &TPM_ALG_SHA256.to_be_bytes(),
        &[SELECTION_BYTES, first, second, third],
    ]
    .concat()
}

fn explicit(number: u32, inner: &impl Encode) -> der::Result<Any> {
    let tag = Tag::ContextSpecific {
        constructed: true,
        number: TagNumber(number),
    };
    Any::new(tag, inner.to_der()?)
}
