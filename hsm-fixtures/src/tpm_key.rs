//! Keys on a TPM, made as operators make them: by tpm2-tools and by tpm2-openssl.

mod key_file;
mod openssl_tools;
mod tpm2_tools;

use std::path::Path;

use anyhow::{Context, Result};

use crate::command;
use crate::softhsm::KeyKind;
use crate::swtpm::Swtpm;

/// A key to make. `TpmKeySpec { auth: Some("1234".into()), ..TpmKeySpec::new(KeyKind::EcP256) }` says the rest.
#[derive(Clone, Debug)]
pub struct TpmKeySpec {
    /// Algorithm and size; swtpm 0.7 (Debian 12) has no RSA-4096.
    pub kind: KeyKind,
    /// Where it is kept, and who makes it.
    pub form: TpmKeyForm,
    /// What it is stored under.
    pub parent: TpmKeyParent,
    /// Its auth value; empty without one. Keys are protected against dictionary attacks.
    pub auth: Option<String>,
    /// A PCR of the SHA-256 bank whose value is the key's policy: `TPM2_PolicyPCR`, in a file of tpm2-tools' making.
    pub pcr: Option<u8>,
    /// A scheme that the key is bound to, such as `ecdsa-sha384`; for keys made by tpm2-tools.
    pub scheme: Option<String>,
    /// Its attributes as tpm2_create takes them; for keys made by tpm2-tools.
    pub attributes: String,
}

/// Where a key is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TpmKeyForm {
    /// A `TSS2 PRIVATE KEY` file by tpm2-tools.
    File,
    /// A `TSS2 PRIVATE KEY` file by tpm2-openssl.
    OpenSslFile,
    /// In the TPM, at a persistent handle.
    Persistent(u32),
}

/// What a key is stored under: the ECC P-256 storage primary of the draft, in the owner's hierarchy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TpmKeyParent {
    /// Derived anew by whoever loads the key.
    OwnerPrimary,
    /// Kept in the TPM at this persistent handle.
    Persistent(u32),
}

/// A key on a TPM.
#[derive(Clone, Debug)]
pub struct TpmKey {
    /// What `key = ` of the agent's configuration says: a path, or `handle:0x81000101`.
    pub key: String,
    /// Its public key, DER SubjectPublicKeyInfo.
    pub spki: Vec<u8>,
}

impl TpmKeySpec {
    /// A key in a file by tpm2-tools, below the owner's primary, with an empty auth value: it signs, with any scheme,
    /// and cannot leave the TPM.
    #[must_use]
    pub fn new(kind: KeyKind) -> TpmKeySpec {
        TpmKeySpec {
            kind,
            form: TpmKeyForm::File,
            parent: TpmKeyParent::OwnerPrimary,
            auth: None,
            pcr: None,
            scheme: None,
            attributes: "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign".to_owned(),
        }
    }
}

impl Swtpm {
    /// Makes a key; its file, where it has one, is `NAME.tss` in this TPM's directory.
    ///
    /// Flushes every transient object and session of the TPM, whosesoever: without a resource manager there is room for
    /// three only.
    ///
    /// # Errors
    ///
    /// Where a tool is missing, or the TPM has no such keys.
    pub fn add_key(&self, name: &str, spec: &TpmKeySpec) -> Result<TpmKey> {
        let key = match spec.form {
            TpmKeyForm::OpenSslFile => openssl_tools::generate(self, name, spec),
            TpmKeyForm::File | TpmKeyForm::Persistent(_) => tpm2_tools::generate(self, name, spec),
        };
        self.flush()?;
        key
    }

    /// What tpm2-tools say of the key of `key = `, such as `fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign`.
    ///
    /// # Errors
    ///
    /// Where a tool is missing, or there is no such key.
    pub fn key_attributes(&self, key: &str) -> Result<String> {
        let text = match key.strip_prefix("handle:") {
            Some(handle) => command::output(self.tool("tpm2_readpublic").args(["-c", handle]))?,
            None => {
                // Not the file as a whole: tpm2_print 5.4 reads none that holds a policy.
                let (public, _) = key_file::blobs(Path::new(key))?;
                let blob = tempfile::NamedTempFile::new()?;
                std::fs::write(blob.path(), public)?;
                let mut print = self.tool("tpm2_print");
                print.args(["--type", "TPM2B_PUBLIC"]);
                command::output(print.arg(blob.path()))?
            }
        };
        let text = String::from_utf8_lossy(&text);
        let mut lines = text.lines().skip_while(|line| *line != "attributes:");
        lines
            .nth(1)
            .and_then(|line| line.trim().strip_prefix("value: "))
            .map(str::to_owned)
            .with_context(|| format!("no attributes of {key} in:\n{text}"))
    }
}

#[cfg(test)]
mod tests {
    use openssl::hash::MessageDigest;
    use openssl::pkey::PKey;
    use openssl::sign::Verifier;

    use super::*;

    const TEXT: &[u8] = b"AWS4-X509";

    fn swtpm() -> (tempfile::TempDir, Swtpm) {
        let dir = tempfile::tempdir().unwrap();
        let swtpm = Swtpm::start(&dir.path().join("tpm")).unwrap();
        (dir, swtpm)
    }

    /// Signs by tpm2_sign, which takes a persistent handle or a context that tpm2_load has saved.
    fn sign(swtpm: &Swtpm, name: &str, key: &TpmKey, spec: &TpmKeySpec) -> Vec<u8> {
        let path = |ending: &str| swtpm.dir().join(format!("{name}.{ending}"));
        let context = match key.key.strip_prefix("handle:") {
            Some(handle) => handle.to_owned(),
            None => {
                let loaded = path("ctx");
                let (public, private) = key_file::blobs(&path("tss")).unwrap();
                std::fs::write(path("pub"), public).unwrap();
                std::fs::write(path("priv"), private).unwrap();
                let parent = tpm2_tools::parent(swtpm, swtpm.dir(), spec.parent).unwrap();
                let mut load = swtpm.tool("tpm2_load");
                load.args(["-Q", "-C", &parent, "-u"]).arg(path("pub"));
                load.arg("-r").arg(path("priv")).arg("-c").arg(&loaded);
                command::output(&mut load).unwrap();
                swtpm.flush().unwrap();
                loaded.display().to_string()
            }
        };
        let (text, signature) = (path("text"), path("sig"));
        std::fs::write(&text, TEXT).unwrap();
        let mut sign = swtpm.tool("tpm2_sign");
        sign.args(["-Q", "-g", "sha256", "-f", "plain", "-c", &context, "-o"]);
        sign.arg(&signature).arg(&text);
        if let Some(auth) = &spec.auth {
            sign.args(["-p", auth]);
        }
        if let Some(pcr) = spec.pcr {
            sign.args(["-p", &format!("pcr:sha256:{pcr}")]);
        }
        command::output(&mut sign).unwrap();
        swtpm.flush().unwrap();
        std::fs::read(signature).unwrap()
    }

    fn assert_signs(swtpm: &Swtpm, name: &str, spec: &TpmKeySpec) {
        let key = swtpm.add_key(name, spec).unwrap();
        for kind in ["handles-transient", "handles-loaded-session"] {
            assert_eq!(swtpm.capability(kind).unwrap(), "", "{spec:?}");
        }
        let public = PKey::public_key_from_der(&key.spki).unwrap();
        let mut verifier = Verifier::new(MessageDigest::sha256(), &public).unwrap();
        let attributes = swtpm.key_attributes(&key.key).unwrap();
        assert!(attributes.starts_with("fixedtpm|fixedparent|sensitivedataorigin"));
        let signature = sign(swtpm, name, &key, spec);
        assert!(
            verifier.verify_oneshot(&signature, TEXT).unwrap(),
            "{spec:?}"
        );
    }

    const KINDS: [KeyKind; 5] = [
        KeyKind::Rsa2048,
        KeyKind::Rsa3072,
        KeyKind::EcP256,
        KeyKind::EcP384,
        KeyKind::EcP521,
    ];

    #[test]
    fn every_kind_of_file_by_tpm2_tools_signs() {
        let (_dir, swtpm) = swtpm();
        for (number, kind) in KINDS.into_iter().enumerate() {
            let spec = TpmKeySpec {
                auth: (number % 2 == 0).then(|| "1234".to_owned()),
                ..TpmKeySpec::new(kind)
            };
            assert_signs(&swtpm, &format!("key-{number}"), &spec);
        }
    }

    #[test]
    fn every_kind_of_file_by_tpm2_openssl_signs() {
        let (_dir, swtpm) = swtpm();
        for (number, kind) in KINDS.into_iter().enumerate() {
            let spec = TpmKeySpec {
                form: TpmKeyForm::OpenSslFile,
                auth: (number % 2 == 1).then(|| "1234".to_owned()),
                ..TpmKeySpec::new(kind)
            };
            assert_signs(&swtpm, &format!("key-{number}"), &spec);
        }
    }

    #[test]
    fn persistent_keys_and_parents_are_where_they_shall_be() {
        let (_dir, swtpm) = swtpm();
        let ec = TpmKeySpec::new(KeyKind::EcP256);
        let with_auth = TpmKeySpec {
            auth: Some("1234".to_owned()),
            ..ec.clone()
        };
        for (name, form, parent, base) in [
            (
                "handle",
                TpmKeyForm::Persistent(0x8100_0101),
                TpmKeyParent::OwnerPrimary,
                &ec,
            ),
            (
                "handle-auth",
                TpmKeyForm::Persistent(0x8100_0102),
                TpmKeyParent::Persistent(0x8100_0001),
                &with_auth,
            ),
            (
                "file",
                TpmKeyForm::File,
                TpmKeyParent::Persistent(0x8100_0001),
                &with_auth,
            ),
            (
                "openssl",
                TpmKeyForm::OpenSslFile,
                TpmKeyParent::Persistent(0x8100_0001),
                &with_auth,
            ),
        ] {
            let spec = TpmKeySpec {
                form,
                parent,
                ..base.clone()
            };
            assert_signs(&swtpm, name, &spec);
        }
        let persistent = swtpm.capability("handles-persistent").unwrap();
        assert_eq!(persistent, "- 0x81000001\n- 0x81000101\n- 0x81000102\n");
    }

    #[test]
    fn schemes_and_policies_bind_a_key() {
        let (_dir, swtpm) = swtpm();
        let fixed = TpmKeySpec {
            scheme: Some("ecdsa-sha256".to_owned()),
            ..TpmKeySpec::new(KeyKind::EcP384)
        };
        assert_signs(&swtpm, "fixed", &fixed);
        let rsa = TpmKeySpec {
            scheme: Some("rsassa-sha256".to_owned()),
            ..TpmKeySpec::new(KeyKind::Rsa2048)
        };
        assert_signs(&swtpm, "rsa", &rsa);
        let sealed = TpmKeySpec {
            pcr: Some(16),
            ..TpmKeySpec::new(KeyKind::EcP256)
        };
        assert_signs(&swtpm, "sealed", &sealed);
    }

    #[test]
    fn a_key_that_swtpm_has_not_is_an_error_and_leaves_nothing() {
        let (_dir, swtpm) = swtpm();
        let spec = TpmKeySpec {
            scheme: Some("rsassa-sha1024".to_owned()),
            ..TpmKeySpec::new(KeyKind::Rsa2048)
        };
        let error = swtpm.add_key("odd", &spec).unwrap_err().to_string();
        assert!(error.starts_with("tpm2_create"), "{error}");
        assert_eq!(swtpm.capability("handles-transient").unwrap(), "");
    }
}
