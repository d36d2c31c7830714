//! Where an identity's certificate comes from, and whether that has changed.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rolesanywhere::certificate;
use token::link::{CertificateOnToken, FoundCertificate};

use super::{Certificate, CertificateError};

/// Where leaf and intermediates come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateSource {
    /// The leaf, and what is behind it.
    pub leaf: LeafSource,
    /// A file with more intermediates.
    pub chain: Option<PathBuf>,
}

/// Where the leaf comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeafSource {
    /// A PEM file, the leaf first.
    File(PathBuf),
    /// The token.
    Token(CertificateOnToken),
}

/// What tells a file that was changed or replaced: behind its symbolic links, whichever of them was
/// swapped. `None` for one that is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp(Vec<Option<FileStamp>>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct FileStamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl CertificateSource {
    /// The certificate, given the one on the token. Intermediates are those of the chain's file; without one, those
    /// on the token.
    pub fn load(&self, on_token: Option<FoundCertificate>) -> Result<Certificate, String> {
        let read = |path: &PathBuf| {
            read_file(path).map_err(|error| format!("{}: {error}", path.display()))
        };
        let (mut ders, place) = match &self.leaf {
            LeafSource::File(path) => (read(path)?, path.display().to_string()),
            LeafSource::Token(_) => (
                on_token.map_or_else(Vec::new, |found| with_issuers(found, self.chain.is_none())),
                "the certificate on the token".to_owned(),
            ),
        };
        if let Some(path) = &self.chain {
            ders.extend(read(path)?);
        }
        Certificate::new(ders).map_err(|error| format!("{place}: {error}"))
    }

    /// The files that it is read from.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let leaf = match &self.leaf {
            LeafSource::File(path) => Some(path),
            LeafSource::Token(_) => None,
        };
        leaf.into_iter().chain(&self.chain).map(PathBuf::as_path)
    }

    /// The SubjectPublicKeyInfo of the leaf as its file has it now, whatever else is to be said of that; `None` where the
    /// leaf is on the token, or cannot be read.
    pub fn public_key_in_file(&self) -> Option<Vec<u8>> {
        let LeafSource::File(path) = &self.leaf else {
            return None;
        };
        let bytes = certificate::read(path).ok()?;
        let leaf = match certificate::parse_pem(&String::from_utf8_lossy(&bytes)) {
            Ok(ders) => ders.into_iter().next()?,
            Err(_) => bytes,
        };
        let leaf = certificate::Certificate::from_der(leaf).ok()?;
        leaf.spki().ok()
    }

    /// The certificate as its files have it now; `None` where the leaf is on the token.
    pub fn load_files(&self) -> Option<Result<Certificate, String>> {
        matches!(self.leaf, LeafSource::File(_)).then(|| self.load(None))
    }
}

/// The leaf, and those of its issuers that are on the token: what is not related, or cannot be read, is left out.
fn with_issuers(found: FoundCertificate, wanted: bool) -> Vec<Vec<u8>> {
    let FoundCertificate { der, issuers } = found;
    let mut ders = vec![der.clone()];
    let leaf = certificate::Certificate::from_der(der);
    if let (Ok(leaf), true) = (leaf, wanted) {
        let read = |der| certificate::Certificate::from_der(der).ok();
        let issuers = issuers.into_iter().filter_map(read).collect();
        let path = certificate::issuers(&leaf, issuers, Timestamp::now());
        ders.extend(path.iter().map(|one| one.der().to_vec()));
    }
    ders
}

impl Stamp {
    /// Of the files as they are now.
    pub fn of<'a>(files: impl Iterator<Item = &'a Path>) -> Stamp {
        Stamp(files.map(FileStamp::of).collect())
    }
}

impl FileStamp {
    fn of(path: &Path) -> Option<FileStamp> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(FileStamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// Whether a file has a private key in it that opens without a password or a TPM.
pub fn holds_clear_key(path: &Path) -> bool {
    certificate::read(path).is_ok_and(|bytes| certificate::holds_clear_key(&bytes))
}

/// The certificates of a file, as DER.
pub fn read_file(path: &Path) -> Result<Vec<Vec<u8>>, CertificateError> {
    let certificates = certificate::parse(&certificate::read(path)?)?;
    Ok(certificates.iter().map(|one| one.der().to_vec()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    /// Each way in which certificates are replaced: certbot's, cert-manager's, `mv`, and an editor's.
    #[test]
    fn intermediates_on_the_token_follow_the_leaf_without_a_chain_file() {
        use super::super::test_support::{ca_der, ec, leaf_der};
        use openssl::nid::Nid;
        let key = ec(Nid::X9_62_PRIME256V1);
        let leaf = leaf_der(&key);
        let found = || FoundCertificate {
            der: leaf.clone(),
            issuers: vec![b"nonsense".to_vec(), leaf.clone()],
        };
        assert_eq!(with_issuers(found(), true), std::slice::from_ref(&leaf));
        let foreign = FoundCertificate {
            issuers: vec![ca_der(&key)],
            ..found()
        };
        assert_eq!(with_issuers(foreign, false).len(), 1);
    }

    #[test]
    fn every_replacement_shows() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for version in ["one", "two"] {
            fs::create_dir(path(version)).unwrap();
            fs::write(path(version).join("leaf.pem"), version).unwrap();
        }
        symlink("one", path("data")).unwrap();
        symlink("data/leaf.pem", path("leaf.pem")).unwrap();
        let leaf = path("leaf.pem");
        let stamp = || Stamp::of([leaf.as_path()].into_iter());
        let mut last = stamp();
        assert_eq!(stamp(), last);
        let swap = |target: &str, name: &str| {
            symlink(target, path("new")).unwrap();
            fs::rename(path("new"), path(name)).unwrap();
        };
        let changes: [&dyn Fn(); 5] = [
            &|| swap("two", "data"),
            &|| swap("one/leaf.pem", "leaf.pem"),
            &|| fs::write(path("one/leaf.pem"), "more").unwrap(),
            &|| {
                fs::write(path("new"), "three").unwrap();
                fs::rename(path("new"), path("leaf.pem")).unwrap();
            },
            &|| fs::remove_file(path("leaf.pem")).unwrap(),
        ];
        for (number, change) in changes.into_iter().enumerate() {
            change();
            assert_ne!(stamp(), last, "{number}");
            last = stamp();
        }
    }
}
