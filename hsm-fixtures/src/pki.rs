//! A small PKI in local files: a root, an intermediate, and leaf certificates for keys that live elsewhere.

mod authority;
mod leaf_spec;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::{SignedDuration, Timestamp};
use openssl::pkey::PKey;
use openssl::x509::X509;

use crate::private_file::write_private;
use authority::{Authority, generate_key};
pub use leaf_spec::{Digest, Issuer, LeafSpec, Purpose};

const ROOT: &str = "roleseal fixtures: root CA";

/// A root CA and an intermediate CA below it.
///
/// The directory holds `root.pem`, `root.key`, `intermediate.pem` and `intermediate.key`; `root.pem` is at the same
/// time the trust anchor's bundle and what `--ca-bundle` of a client takes.
pub struct Pki {
    dir: PathBuf,
    root: Authority,
    intermediate: Authority,
}

impl Pki {
    /// Makes both CAs, with fresh EC P-256 keys, in `dir`, which is made where it does not exist.
    ///
    /// # Errors
    ///
    /// Where `dir` cannot be written.
    pub fn create(dir: &Path) -> Result<Pki> {
        fs::create_dir_all(dir)
            .with_context(|| format!("cannot make the directory {}", dir.display()))?;
        let root = Authority::root(ROOT)?;
        let intermediate = Authority::below(&root, "roleseal fixtures: intermediate CA")?;
        root.write(dir, "root")?;
        intermediate.write(dir, "intermediate")?;
        Ok(Pki {
            dir: dir.to_owned(),
            root,
            intermediate,
        })
    }

    /// Reads what [`Pki::create`] left in `dir`.
    ///
    /// # Errors
    ///
    /// Where a file is missing or damaged.
    pub fn open(dir: &Path) -> Result<Pki> {
        let root = Authority::read(dir, "root")?;
        let intermediate = Authority::read(dir, "intermediate")?;
        Ok(Pki {
            dir: dir.to_owned(),
            root,
            intermediate,
        })
    }

    /// The file `root.pem`.
    #[must_use]
    pub fn root_path(&self) -> PathBuf {
        self.dir.join("root.pem")
    }

    /// The file `intermediate.pem`.
    #[must_use]
    pub fn intermediate_path(&self) -> PathBuf {
        self.dir.join("intermediate.pem")
    }

    /// The root certificate, PEM.
    ///
    /// # Errors
    ///
    /// Only where OpenSSL cannot encode it.
    pub fn root_pem(&self) -> Result<String> {
        pem(&self.root.certificate)
    }

    /// The intermediate certificate, PEM.
    ///
    /// # Errors
    ///
    /// Only where OpenSSL cannot encode it.
    pub fn intermediate_pem(&self) -> Result<String> {
        pem(&self.intermediate.certificate)
    }

    /// Issues a certificate for the public key in `spki_der` (DER SubjectPublicKeyInfo).
    ///
    /// # Errors
    ///
    /// Where `spki_der` is no public key, or a name in `spec` does not fit a certificate.
    pub fn leaf(&self, spki_der: &[u8], spec: &LeafSpec) -> Result<Leaf> {
        let key = PKey::public_key_from_der(spki_der).context("no DER SubjectPublicKeyInfo")?;
        let (issuer, chain_pem) = match spec.issuer {
            Issuer::Root => (&self.root, String::new()),
            Issuer::Intermediate => (&self.intermediate, self.intermediate_pem()?),
        };
        let certificate = issuer
            .issue(&key, spec)
            .with_context(|| format!("cannot issue for {}", spec.common_name))?;
        Ok(Leaf {
            pem: pem(&certificate)?,
            der: certificate.to_der()?,
            serial_decimal: certificate
                .serial_number()
                .to_bn()?
                .to_dec_str()?
                .to_string(),
            chain_pem,
        })
    }

    /// A revocation list of one of the CAs, PEM, with these serials in decimal. It is `age` old, and valid for a day.
    ///
    /// # Errors
    ///
    /// Where a serial is no number.
    pub fn crl(&self, issuer: Issuer, serials: &[&str], age: Duration) -> Result<String> {
        let issuer = match issuer {
            Issuer::Root => &self.root,
            Issuer::Intermediate => &self.intermediate,
        };
        let issued = Timestamp::now() - SignedDuration::try_from(age)?;
        let crl = issuer.revoke(serials, issued)?;
        Ok(String::from_utf8(crl.to_pem()?)?)
    }

    /// A server certificate for `localhost`, `127.0.0.1` and `::1`, issued by the root.
    ///
    /// # Errors
    ///
    /// Only where OpenSSL fails.
    pub fn tls_identity(&self) -> Result<TlsIdentity> {
        TlsIdentity::issue(&self.root)
    }
}

/// An issued certificate.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// The certificate alone, PEM.
    pub pem: String,
    /// The certificate alone, DER.
    pub der: Vec<u8>,
    /// The serial number in decimal, as the credential of SigV4-X509 has it.
    pub serial_decimal: String,
    /// The certificates between it and the root, PEM: none or one.
    pub chain_pem: String,
}

impl Leaf {
    /// Leaf, then intermediates, as an agent's `certificate = ` takes them.
    #[must_use]
    pub fn with_chain_pem(&self) -> String {
        format!("{}{}", self.pem, self.chain_pem)
    }

    /// Writes [`Leaf::with_chain_pem`] to `path`.
    ///
    /// # Errors
    ///
    /// Where the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        fs::write(path, self.with_chain_pem())
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

/// A server's certificate and key.
#[derive(Clone)]
pub struct TlsIdentity {
    /// The certificate, PEM.
    pub certificate_pem: String,
    /// Its private key, PKCS#8 PEM.
    pub key_pem: String,
}

impl TlsIdentity {
    /// The same as [`Pki::tls_identity`], and the certificate, PEM, of the CA that was made for it. Nothing is written,
    /// and the CA's key is kept nowhere.
    ///
    /// # Errors
    ///
    /// Only where OpenSSL fails.
    pub fn with_own_ca() -> Result<(TlsIdentity, String)> {
        let root = Authority::root(ROOT)?;
        Ok((TlsIdentity::issue(&root)?, pem(&root.certificate)?))
    }

    fn issue(root: &Authority) -> Result<TlsIdentity> {
        let key = generate_key()?;
        let public_key = PKey::public_key_from_der(&key.public_key_to_der()?)?;
        let spec = LeafSpec {
            extended_key_usage: Some(Purpose::ServerAuth),
            dns_names: vec!["localhost".to_owned()],
            ip_addresses: vec!["127.0.0.1".to_owned(), "::1".to_owned()],
            ..LeafSpec::new("localhost")
        };
        Ok(TlsIdentity {
            certificate_pem: pem(&root.issue(&public_key, &spec)?)?,
            key_pem: String::from_utf8(key.private_key_to_pem_pkcs8()?)?,
        })
    }

    /// Writes the key to `path`, for its owner alone.
    ///
    /// # Errors
    ///
    /// Where the file exists or cannot be written.
    pub fn write_key(&self, path: &Path) -> Result<()> {
        write_private(path, self.key_pem.as_bytes())
    }
}

fn pem(certificate: &X509) -> Result<String> {
    Ok(String::from_utf8(certificate.to_pem()?)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::command;

    fn spki() -> Vec<u8> {
        generate_key().unwrap().public_key_to_der().unwrap()
    }

    fn openssl_text(dir: &Path, leaf: &Leaf) -> String {
        let path = dir.join("leaf.pem");
        fs::write(&path, &leaf.pem).unwrap();
        let text = command::output(
            command::clean("openssl")
                .args(["x509", "-noout", "-text", "-in"])
                .arg(&path),
        );
        String::from_utf8(text.unwrap()).unwrap()
    }

    #[test]
    fn a_leaf_is_what_openssl_verifies_as_a_client() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::create(dir.path()).unwrap();
        let leaf = pki
            .leaf(
                &spki(),
                &LeafSpec {
                    serial: Some(257),
                    ..LeafSpec::new("web")
                },
            )
            .unwrap();
        assert_eq!(leaf.serial_decimal, "257");
        let path = dir.path().join("web.pem");
        leaf.write(&path).unwrap();
        command::output(
            command::clean("openssl")
                .args(["verify", "-x509_strict", "-purpose", "sslclient", "-CAfile"])
                .arg(pki.root_path())
                .arg("-untrusted")
                .arg(pki.intermediate_path())
                .arg(&path),
        )
        .unwrap();
    }

    #[test]
    fn a_spec_spoils_what_it_says() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::create(dir.path()).unwrap();
        let text = |spec| openssl_text(dir.path(), &pki.leaf(&spki(), &spec).unwrap());
        let good = || LeafSpec::new("web");
        assert!(
            text(LeafSpec {
                basic_constraints: Some(true),
                ..good()
            })
            .contains("CA:TRUE")
        );
        assert!(
            !text(LeafSpec {
                basic_constraints: None,
                ..good()
            })
            .contains("Basic Constraints")
        );
        assert!(
            !text(LeafSpec {
                digital_signature: false,
                ..good()
            })
            .contains("Digital Signature")
        );
        assert!(
            !text(LeafSpec {
                extended_key_usage: None,
                ..good()
            })
            .contains("Extended Key Usage")
        );
        assert!(
            text(LeafSpec {
                digest: Digest::Sha1,
                ..good()
            })
            .contains("ecdsa-with-SHA1")
        );
        assert!(
            text(LeafSpec {
                version: 1,
                ..good()
            })
            .contains("Version: 1 (0x0)")
        );
        assert!(
            text(LeafSpec {
                issuer: Issuer::Root,
                ..good()
            })
            .contains(ROOT)
        );
        assert!(
            text(LeafSpec {
                dns_names: vec!["a.test".into()],
                ..good()
            })
            .contains("DNS:a.test")
        );
    }

    #[test]
    fn it_can_be_opened_again_and_its_keys_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let made = Pki::create(dir.path()).unwrap();
        let opened = Pki::open(dir.path()).unwrap();
        assert_eq!(made.root_pem().unwrap(), opened.root_pem().unwrap());
        opened.leaf(&spki(), &LeafSpec::new("web")).unwrap();
        let mode = fs::metadata(dir.path().join("root.key"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(Pki::open(&dir.path().join("elsewhere")).is_err());
    }
}
