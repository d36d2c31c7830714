//! The certificate request that each renewal sends again.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use der::{Decode, Encode};
use x509_cert::request::CertReq;

/// A PKCS#10 certificate request (RFC 2986).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateRequest {
    /// Its public key, as DER SubjectPublicKeyInfo.
    pub spki: Vec<u8>,
    /// Its subject, RFC 4514.
    pub subject: String,
}

/// The largest file that is read, in bytes: a request takes about 2 KiB, its text by OpenSSL as much again.
const SIZE_LIMIT: u64 = 64 * 1024;

/// RFC 7468, and what Microsoft and old OpenSSL write.
const LABELS: [&str; 2] = ["CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"];

impl CertificateRequest {
    /// Reads a PEM file.
    pub fn read(path: &Path) -> Result<CertificateRequest, String> {
        let explain =
            |error: String| format!("the certificate request {}: {error}", path.display());
        let text = read_text(path).map_err(|error| {
            let remedy = match error.kind() {
                ErrorKind::NotFound => {
                    ": make it with the key (roleseal-agent csr --out), or say where it is: \
                     renew = { csr = … }"
                }
                _ => "",
            };
            explain(format!("cannot read it: {error}{remedy}"))
        })?;
        CertificateRequest::parse(&text).map_err(explain)
    }

    /// Parses a PEM text.
    pub fn parse(text: &str) -> Result<CertificateRequest, String> {
        let block = LABELS
            .iter()
            .find_map(|label| block(text, label))
            .ok_or("there is no \"-----BEGIN CERTIFICATE REQUEST-----\" in it, or no end")?;
        let (_, der) = der::pem::decode_vec(block.as_bytes()).map_err(|error| error.to_string())?;
        let request = CertReq::from_der(&der)
            .map_err(|error| format!("not a PKCS#10 certificate request: {error}"))?;
        let spki = request.info.public_key.to_der();
        Ok(CertificateRequest {
            spki: spki.map_err(|error| format!("its public key: {error}"))?,
            subject: request.info.subject.to_string(),
        })
    }
}

fn block(text: &str, label: &str) -> Option<String> {
    let (begin, end) = (
        format!("-----BEGIN {label}-----"),
        format!("-----END {label}-----"),
    );
    let (_, after) = text.split_once(&begin)?;
    let (body, _) = after.split_once(&end)?;
    Some(format!("{begin}{body}{end}\n"))
}

fn read_text(path: &Path) -> std::io::Result<String> {
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("not a file"));
    }
    let mut text = String::new();
    file.take(SIZE_LIMIT + 1).read_to_string(&mut text)?;
    if text.len() as u64 > SIZE_LIMIT {
        let limit = format!("it has more than {SIZE_LIMIT} bytes");
        return Err(std::io::Error::other(limit));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use openssl::hash::MessageDigest;
    use openssl::nid::Nid;
    use openssl::x509::{X509NameBuilder, X509ReqBuilder};

    #[test]
    fn requests_of_openssl_are_read_and_nothing_else_is() {
        let key = crate::certificate::tests::ec(Nid::X9_62_PRIME256V1);
        let mut builder = X509ReqBuilder::new().unwrap();
        let mut name = X509NameBuilder::new().unwrap();
        name.append_entry_by_text("CN", "web").unwrap();
        builder.set_subject_name(&name.build()).unwrap();
        builder.set_pubkey(&key).unwrap();
        builder.sign(&key, MessageDigest::sha256()).unwrap();
        let pem = String::from_utf8(builder.build().to_pem().unwrap()).unwrap();
        let expected = CertificateRequest {
            spki: key.public_key_to_der().unwrap(),
            subject: "CN=web".to_owned(),
        };
        let old = pem.replace("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST");
        for text in [
            &pem,
            &old,
            &format!("Certificate Request:\n    Data:\n{pem}"),
        ] {
            assert_eq!(CertificateRequest::parse(text).as_ref(), Ok(&expected));
        }
        for text in [
            String::new(),
            pem.replace("-----END", "----"),
            pem.replace("MIH", "!!!"),
            pem.replace("REQUEST", ""),
            pem.replacen("MIH", "MIG", 1),
        ] {
            assert!(CertificateRequest::parse(&text).is_err(), "{text}");
        }
    }

    #[test]
    fn of_a_missing_one_it_is_said_how_to_make_it() {
        let error = CertificateRequest::read(Path::new("/nonexistent/web.csr")).unwrap_err();
        assert!(error.contains("roleseal-agent csr --out"), "{error}");
    }
}
