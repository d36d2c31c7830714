//! Keys by tpm2-tools.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use openssl::pkey::PKey;

use super::key_file::{self, PcrPolicy};
use super::{TpmKey, TpmKeyForm, TpmKeyParent, TpmKeySpec};
use crate::command;
use crate::softhsm::KeyKind;
use crate::swtpm::Swtpm;

/// The attributes of the draft's storage primary; those that tpm2_createprimary chooses itself lack noda and give
/// another key.
const PRIMARY_ATTRIBUTES: &str =
    "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt";

pub(super) fn generate(swtpm: &Swtpm, name: &str, spec: &TpmKeySpec) -> Result<TpmKey> {
    let work = tempfile::tempdir_in(swtpm.dir()).context("cannot make a temporary directory")?;
    let parent = parent(swtpm, work.path(), spec.parent)?;
    let key = Created {
        swtpm,
        parent,
        public: work.path().join("key.pub"),
        private: work.path().join("key.priv"),
        context: work.path().join("key.ctx"),
    };
    let policy = spec
        .pcr
        .map(|pcr| policy(swtpm, work.path(), pcr))
        .transpose()?;
    key.create(spec, policy.as_ref())?;
    key.load()?;
    let spki = key.spki(work.path())?;
    let key = match spec.form {
        TpmKeyForm::Persistent(handle) => {
            ensure!(policy.is_none(), "only a key file can hold a policy");
            persist(swtpm, &key.context, handle)?;
            format!("handle:{handle:#x}")
        }
        _ => {
            let file = swtpm.dir().join(format!("{name}.tss"));
            key.write(&file, policy.as_ref())?;
            file.display().to_string()
        }
    };
    Ok(TpmKey { key, spki })
}

/// What `-C` of tpm2-tools takes: the handle of a parent, or the file of its saved context.
pub(super) fn parent(swtpm: &Swtpm, work: &Path, parent: TpmKeyParent) -> Result<String> {
    let primary = work.join("primary.ctx");
    if let TpmKeyParent::Persistent(handle) = parent {
        let text = format!("{handle:#x}");
        if !swtpm.capability("handles-persistent")?.contains(&text) {
            create_primary(swtpm, &primary)?;
            persist(swtpm, &primary, handle)?;
        }
        return Ok(text);
    }
    create_primary(swtpm, &primary)?;
    Ok(primary.display().to_string())
}

fn create_primary(swtpm: &Swtpm, context: &Path) -> Result<()> {
    let mut create = swtpm.tool("tpm2_createprimary");
    create.args(["-Q", "-C", "o", "-G", "ecc256", "-a", PRIMARY_ATTRIBUTES]);
    run(swtpm, create.arg("-c").arg(context))
}

fn persist(swtpm: &Swtpm, context: &Path, handle: u32) -> Result<()> {
    let mut evict = swtpm.tool("tpm2_evictcontrol");
    evict.args(["-Q", "-C", "o", "-c"]).arg(context);
    run(swtpm, evict.arg(format!("{handle:#x}")))
}

/// The policy that this PCR has the value that it has now.
fn policy(swtpm: &Swtpm, work: &Path, pcr: u8) -> Result<PcrPolicy> {
    let (value, digest) = (work.join("pcr"), work.join("policy"));
    let list = format!("sha256:{pcr}");
    let mut read = swtpm.tool("tpm2_pcrread");
    run(swtpm, read.args(["-Q", &list, "-o"]).arg(&value))?;
    let mut create = swtpm.tool("tpm2_createpolicy");
    create.args(["-Q", "--policy-pcr", "-l", &list, "-L"]);
    run(swtpm, create.arg(&digest))?;
    Ok(PcrPolicy {
        pcr,
        value: fs::read(value)?,
        digest,
    })
}

/// Runs one tool and removes what it has left in the TPM, which has room for three objects.
fn run(swtpm: &Swtpm, tool: &mut Command) -> Result<()> {
    command::output(tool)?;
    let mut flush = swtpm.tool("tpm2_flushcontext");
    command::output(flush.arg("--transient-object"))?;
    Ok(())
}

/// A key as tpm2_create makes it: two blobs for its parent.
struct Created<'a> {
    swtpm: &'a Swtpm,
    parent: String,
    public: PathBuf,
    private: PathBuf,
    context: PathBuf,
}

impl Created<'_> {
    fn create(&self, spec: &TpmKeySpec, policy: Option<&PcrPolicy>) -> Result<()> {
        let mut create = self.swtpm.tool("tpm2_create");
        create.args(["-Q", "-C", &self.parent, "-G", &algorithm(spec)]);
        create.arg("-u").arg(&self.public);
        create.arg("-r").arg(&self.private);
        if let Some(policy) = policy {
            // With userwithauth, the empty auth value would do instead of the policy.
            create.args(["-a", &spec.attributes.replace("|userwithauth", "")]);
            create.arg("-L").arg(&policy.digest);
        } else {
            create.args(["-a", &spec.attributes]);
        }
        if let Some(auth) = &spec.auth {
            create.args(["-p", auth]);
        }
        run(self.swtpm, &mut create)
    }

    fn load(&self) -> Result<()> {
        let mut load = self.swtpm.tool("tpm2_load");
        load.args(["-Q", "-C", &self.parent, "-u"])
            .arg(&self.public);
        load.arg("-r").arg(&self.private);
        run(self.swtpm, load.arg("-c").arg(&self.context))
    }

    fn spki(&self, work: &Path) -> Result<Vec<u8>> {
        let file = work.join("key.pem");
        let mut read = self.swtpm.tool("tpm2_readpublic");
        read.args(["-Q", "-f", "pem", "-c"]).arg(&self.context);
        run(self.swtpm, read.arg("-o").arg(&file))?;
        let key = PKey::public_key_from_pem(&fs::read(&file)?)
            .context("tpm2_readpublic has written no public key")?;
        Ok(key.public_key_to_der()?)
    }

    fn write(&self, file: &Path, policy: Option<&PcrPolicy>) -> Result<()> {
        let mut encode = self.swtpm.tool("tpm2_encodeobject");
        encode.args(["-C", &self.parent, "-u"]).arg(&self.public);
        encode.arg("-r").arg(&self.private);
        run(self.swtpm, encode.arg("-o").arg(file))?;
        if let Some(policy) = policy {
            key_file::add_policy(file, policy)?;
        }
        Ok(())
    }
}

fn algorithm(spec: &TpmKeySpec) -> String {
    let key = match spec.kind {
        KeyKind::Rsa2048 => "rsa2048",
        KeyKind::Rsa3072 => "rsa3072",
        KeyKind::Rsa4096 => "rsa4096",
        KeyKind::EcP256 => "ecc256",
        KeyKind::EcP384 => "ecc384",
        KeyKind::EcP521 => "ecc521",
    };
    match &spec.scheme {
        Some(scheme) => format!("{key}:{scheme}"),
        None => key.to_owned(),
    }
}
