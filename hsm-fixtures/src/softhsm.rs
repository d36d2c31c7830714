//! A SoftHSM token store of one's own: tokens, and keys generated on them.

mod listing;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use openssl::nid::Nid;

use crate::command;
use listing::{access_of, ec_point_of, ec_spki};

/// The PIN of the security officer of every token; no program under test uses it.
const SO_PIN: &str = "12345678";

/// The variable through which pkcs11-tool takes the user's PIN (`--pin env:NAME`).
const PIN_VARIABLE: &str = "HSM_FIXTURES_PIN";

/// A token store in a directory of its own, found through its own `softhsm.conf`.
///
/// Nothing here touches this process's environment: `SOFTHSM2_CONF` is set for each child alone, so that many
/// stores can be in use at the same time in one test process.
#[derive(Clone, Debug)]
pub struct SoftHsm {
    config: PathBuf,
}

impl SoftHsm {
    /// Makes an empty store: `DIR/tokens` and `DIR/softhsm.conf`.
    ///
    /// # Errors
    ///
    /// Where `dir` cannot be written or holds a store already.
    pub fn create(dir: &Path) -> Result<SoftHsm> {
        let tokens = dir.join("tokens");
        fs::create_dir(&tokens)
            .with_context(|| format!("cannot make the token store {}", tokens.display()))?;
        let config = dir.join("softhsm.conf");
        let text =
            include_str!("../../softhsm.conf").replace("@TOKENS@", &tokens.display().to_string());
        fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
        Ok(SoftHsm { config })
    }

    /// Initialises one more token, with `label` and the user's `pin` (4 to 255 characters).
    ///
    /// # Errors
    ///
    /// Where softhsm2-util is missing or refuses.
    pub fn add_token(&self, label: &str, pin: &str) -> Result<Token> {
        // softhsm2-util takes PINs from argv or a terminal only; those of fixtures are throw-away.
        command::output(self.tool("softhsm2-util").args([
            "--init-token",
            "--free",
            "--label",
            label,
            "--pin",
            pin,
            "--so-pin",
            SO_PIN,
        ]))?;
        Ok(Token {
            store: self.clone(),
            label: label.to_owned(),
            pin: pin.to_owned(),
        })
    }

    /// Initialises a token anew under another label, which removes its keys and its PIN.
    ///
    /// # Errors
    ///
    /// Where softhsm2-util refuses.
    pub fn reset_token(&self, label: &str, new_label: &str, pin: &str) -> Result<()> {
        let mut tool = self.tool("softhsm2-util");
        tool.args(["--init-token", "--token", label, "--label", new_label]);
        command::output(tool.args(["--pin", pin, "--so-pin", SO_PIN]))?;
        Ok(())
    }

    /// The store's configuration file, for `SOFTHSM2_CONF`.
    #[must_use]
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// The environment variables that a program needs in order to use this store.
    #[must_use]
    pub fn env(&self) -> Vec<(String, String)> {
        vec![(
            "SOFTHSM2_CONF".to_owned(),
            self.config.display().to_string(),
        )]
    }

    /// Where this machine has SoftHSM's PKCS#11 module.
    ///
    /// # Errors
    ///
    /// Where it has none; the message names the package.
    pub fn module() -> Result<PathBuf> {
        find("libsofthsm2.so", "softhsm2", &["softhsm", "pkcs11"])
    }

    /// Where this machine has OpenSC's pkcs11-spy, the module that logs each call and passes it on.
    ///
    /// # Errors
    ///
    /// Where it has none; the message names the package.
    pub fn spy_module() -> Result<PathBuf> {
        find("pkcs11-spy.so", "opensc-pkcs11", &["pkcs11", "opensc", ""])
    }

    /// Where this machine has p11-kit's proxy, a module with the tokens of all others, SoftHSM among them.
    ///
    /// # Errors
    ///
    /// Where it has none; the message names the package.
    pub fn p11_kit_proxy() -> Result<PathBuf> {
        find("p11-kit-proxy.so", "p11-kit-modules", &[""])
    }

    fn tool(&self, program: &str) -> Command {
        let mut command = command::clean(program);
        command.envs(self.env());
        command
    }
}

/// One token of a [`SoftHsm`] store.
#[derive(Clone, Debug)]
pub struct Token {
    store: SoftHsm,
    label: String,
    pin: String,
}

impl Token {
    /// The token's label, as `token=` of a PKCS#11 URI names it.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The user's PIN.
    #[must_use]
    pub fn pin(&self) -> &str {
        &self.pin
    }

    /// Generates a key pair on the token and returns its public key as DER SubjectPublicKeyInfo.
    ///
    /// # Errors
    ///
    /// Where pkcs11-tool is missing or refuses.
    pub fn generate(&self, key: &KeySpec) -> Result<Vec<u8>> {
        let id = hex::encode(&key.id);
        let mut generate = self.pkcs11_tool()?;
        generate.args(["--keypairgen", "--key-type", key.kind.pkcs11_tool_name()]);
        generate.args([
            "--label",
            &key.label,
            "--id",
            &id,
            "--usage-sign",
            "--sensitive",
        ]);
        if key.always_authenticate {
            generate.arg("--always-auth");
        }
        if key.extractable {
            generate.arg("--extractable");
        }
        command::output(&mut generate)?;
        let public = self.public_key(key.kind, &id)?;
        if !key.keep_public {
            self.delete_public_key(&id)?;
        }
        Ok(public)
    }

    /// Imports an unencrypted PKCS#8 key, as an operator does who brings one along.
    ///
    /// # Errors
    ///
    /// Where softhsm2-util is missing or refuses.
    pub fn import_key(&self, label: &str, id: &[u8], pkcs8_pem: &[u8]) -> Result<()> {
        let file =
            tempfile::NamedTempFile::new().context("cannot make a temporary file for the key")?;
        fs::write(file.path(), pkcs8_pem).context("cannot write the key to a temporary file")?;
        command::output(
            self.store
                .tool("softhsm2-util")
                .arg("--import")
                .arg(file.path())
                .args(["--token", &self.label, "--pin", &self.pin])
                .args(["--label", label, "--id", &hex::encode(id)]),
        )?;
        Ok(())
    }

    /// Stores a DER certificate; a `private` one is seen only after login.
    ///
    /// # Errors
    ///
    /// Where pkcs11-tool is missing or refuses.
    pub fn write_certificate(
        &self,
        label: &str,
        id: &[u8],
        der: &[u8],
        private: bool,
    ) -> Result<()> {
        let file = tempfile::NamedTempFile::new()
            .context("cannot make a temporary file for the certificate")?;
        fs::write(file.path(), der).context("cannot write the certificate to a temporary file")?;
        let mut write = self.pkcs11_tool()?;
        write.args(["--type", "cert", "--label", label, "--id", &hex::encode(id)]);
        write.arg("--write-object").arg(file.path());
        if private {
            write.arg("--private");
        }
        command::output(&mut write)?;
        Ok(())
    }

    /// What pkcs11-tool says of access to the private key `label`, such as
    /// `sensitive, always sensitive, never extractable, local`.
    ///
    /// # Errors
    ///
    /// Where pkcs11-tool is missing, or the token has no such key.
    pub fn private_key_access(&self, label: &str) -> Result<String> {
        let listing =
            command::output(
                self.pkcs11_tool()?
                    .args(["--list-objects", "--type", "privkey"]),
            )?;
        access_of(&String::from_utf8_lossy(&listing), label)
            .with_context(|| format!("token {} has no private key {label}", self.label))
    }

    fn public_key(&self, kind: KeyKind, id: &str) -> Result<Vec<u8>> {
        // pkcs11-tool 0.23 (Debian 12) cannot make a P-384 key of what it read: "cannot create EVP_PKEY". What it
        // lists is right for every curve.
        match kind.curve() {
            None => command::output(self.pkcs11_tool()?.args([
                "--read-object",
                "--type",
                "pubkey",
                "--id",
                id,
            ])),
            Some(curve) => {
                let listing = command::output(self.pkcs11_tool()?.args([
                    "--list-objects",
                    "--type",
                    "pubkey",
                ]))?;
                let point =
                    ec_point_of(&String::from_utf8_lossy(&listing), id).with_context(|| {
                        format!("token {} has no public key with the id {id}", self.label)
                    })?;
                ec_spki(curve, &hex::decode(&point)?)
            }
        }
    }

    fn delete_public_key(&self, id: &str) -> Result<()> {
        command::output(self.pkcs11_tool()?.args([
            "--delete-object",
            "--type",
            "pubkey",
            "--id",
            id,
        ]))?;
        Ok(())
    }

    fn pkcs11_tool(&self) -> Result<Command> {
        let mut command = self.store.tool("pkcs11-tool");
        command.arg("--module").arg(SoftHsm::module()?);
        command.args([
            "--token-label",
            &self.label,
            "--login",
            "--pin",
            &format!("env:{PIN_VARIABLE}"),
        ]);
        command.env(PIN_VARIABLE, &self.pin);
        Ok(command)
    }
}

/// A key to generate. `KeySpec { always_authenticate: true, ..KeySpec::new("web", KeyKind::EcP256) }` says the rest.
#[derive(Clone, Debug)]
pub struct KeySpec {
    /// CKA_LABEL, of both halves of the pair.
    pub label: String,
    /// CKA_ID, of both halves of the pair.
    pub id: Vec<u8>,
    /// Algorithm and size.
    pub kind: KeyKind,
    /// CKA_ALWAYS_AUTHENTICATE: a context-specific login before each signature.
    pub always_authenticate: bool,
    /// CKA_EXTRACTABLE: a key that may leave the token, which a signer should warn of.
    pub extractable: bool,
    /// Leave the public-key object on the token; many real tokens have none.
    pub keep_public: bool,
}

impl KeySpec {
    /// A sensitive key that is never extractable and needs one login, with the label's bytes as its CKA_ID.
    #[must_use]
    pub fn new(label: &str, kind: KeyKind) -> KeySpec {
        KeySpec {
            label: label.to_owned(),
            id: label.as_bytes().to_vec(),
            kind,
            always_authenticate: false,
            extractable: false,
            keep_public: true,
        }
    }
}

/// The kinds of keys that IAM Roles Anywhere takes and SoftHSM has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[expect(missing_docs, reason = "each name says it")]
pub enum KeyKind {
    #[value(name = "rsa-2048")]
    Rsa2048,
    #[value(name = "rsa-3072")]
    Rsa3072,
    #[value(name = "rsa-4096")]
    Rsa4096,
    #[value(name = "ec-p256")]
    EcP256,
    #[value(name = "ec-p384")]
    EcP384,
    #[value(name = "ec-p521")]
    EcP521,
}

impl KeyKind {
    /// Every kind, for tests that go through all of them.
    pub const ALL: [KeyKind; 6] = [
        KeyKind::Rsa2048,
        KeyKind::Rsa3072,
        KeyKind::Rsa4096,
        KeyKind::EcP256,
        KeyKind::EcP384,
        KeyKind::EcP521,
    ];

    fn pkcs11_tool_name(self) -> &'static str {
        match self {
            KeyKind::Rsa2048 => "rsa:2048",
            KeyKind::Rsa3072 => "rsa:3072",
            KeyKind::Rsa4096 => "rsa:4096",
            KeyKind::EcP256 => "EC:secp256r1",
            KeyKind::EcP384 => "EC:secp384r1",
            KeyKind::EcP521 => "EC:secp521r1",
        }
    }

    fn curve(self) -> Option<Nid> {
        match self {
            KeyKind::Rsa2048 | KeyKind::Rsa3072 | KeyKind::Rsa4096 => None,
            KeyKind::EcP256 => Some(Nid::X9_62_PRIME256V1),
            KeyKind::EcP384 => Some(Nid::SECP384R1),
            KeyKind::EcP521 => Some(Nid::SECP521R1),
        }
    }
}

fn find(module: &str, package: &str, folders: &[&str]) -> Result<PathBuf> {
    let architecture = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    let roots = [
        architecture.as_str(),
        "/usr/lib",
        "/usr/lib64",
        "/usr/local/lib",
    ];
    for root in roots {
        for folder in folders {
            let path = Path::new(root).join(folder).join(module);
            if path.is_file() {
                return Ok(path);
            }
        }
    }
    bail!("no {module} on this machine (on Debian or Ubuntu: apt-get install {package})")
}

#[cfg(test)]
mod tests;
