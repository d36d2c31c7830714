//! Certificates in files: PEM or DER.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::{Certificate, CertificateError, error};

/// The largest file of certificates that is read, in bytes: leaf and chain take about 12 KiB, and a bundle of all
/// public CAs, which somebody may hand over, some 200 KiB.
pub const FILE_LIMIT: u64 = 256 * 1024;

/// What the bytes of a file, or of a pipe, hold: the certificates of a PEM text, or one in DER.
pub fn parse(bytes: &[u8]) -> Result<Vec<Certificate>, CertificateError> {
    if is_der(bytes) {
        return Ok(vec![Certificate::from_der(bytes.to_vec())?]);
    }
    let text = String::from_utf8_lossy(bytes);
    let ders = parse_pem(&text)?;
    let numbered = ders.into_iter().enumerate().map(|(at, der)| {
        Certificate::from_der(der)
            .map_err(|fault| error(format!("certificate {}: {fault}", at + 1)))
    });
    numbered.collect()
}

/// Whether that is DER, and no text.
pub(super) fn is_der(bytes: &[u8]) -> bool {
    const SEQUENCE: u8 = 0x30; // as text, the digit zero
    bytes.first() == Some(&SEQUENCE) && std::str::from_utf8(bytes).is_err()
}

/// The certificates of a PEM text, as DER. Text around them is left out, as OpenSSL writes it.
pub fn parse_pem(text: &str) -> Result<Vec<Vec<u8>>, CertificateError> {
    let ders = pem_blocks(text, "CERTIFICATE")?;
    if ders.is_empty() {
        return Err(error("there is no \"-----BEGIN CERTIFICATE-----\" in it"));
    }
    Ok(ders)
}

/// What has this label in a PEM text (RFC 7468), as DER.
pub(super) fn pem_blocks(text: &str, label: &str) -> Result<Vec<Vec<u8>>, CertificateError> {
    let begin = format!("-----BEGIN {label}-----");
    let end = format!("-----END {label}-----");
    let mut rest = text;
    let mut ders = Vec::new();
    while let Some((_, after)) = rest.split_once(&begin) {
        let fault = |what| error(format!("{} {}{what}", label.to_lowercase(), ders.len() + 1));
        let (body, after) = after
            .split_once(&end)
            .ok_or_else(|| fault(" is cut off".to_owned()))?;
        let (_, der) = der::pem::decode_vec(format!("{begin}{body}{end}\n").as_bytes())
            .map_err(|error| fault(format!(": {error}")))?;
        ders.push(der);
        rest = after;
    }
    Ok(ders)
}

/// The bytes of a file of certificates.
pub fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    let unreadable = |fault: String| error(format!("cannot read it: {fault}"));
    let not_a_file = || unreadable(format!("not a file of at most {FILE_LIMIT} bytes"));
    let metadata = std::fs::metadata(path).map_err(|fault| unreadable(fault.to_string()))?;
    if !metadata.is_file() {
        return Err(not_a_file()); // to open a pipe would wait for its other end
    }
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_LIMIT + 1).read_to_end(&mut bytes))
        .map_err(|fault| unreadable(fault.to_string()))?;
    match bytes.len() as u64 > FILE_LIMIT {
        true => Err(not_a_file()),
        false => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use openssl::x509::X509;

    use super::super::testing::{Issued, ec_p256};
    use super::*;

    #[test]
    fn files_hold_pem_among_other_text_or_der() {
        let der = Issued::leaf(&ec_p256()).der();
        let pem = String::from_utf8(X509::from_der(&der).unwrap().to_pem().unwrap()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("web.pem");
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            read(&path).and_then(|bytes| parse(&bytes))
        };
        let ders = |bytes: &[u8]| -> Vec<Vec<u8>> {
            let certificates = read(bytes).unwrap().into_iter();
            certificates.map(|one| one.der().to_vec()).collect()
        };
        let twice = format!("subject=CN = wéb\n{pem}\nissuer\n{pem}");
        assert_eq!(ders(twice.as_bytes()), [&*der, &*der]);
        assert_eq!(ders(pem.replace('\n', "\r\n").as_bytes()), [&*der]);
        assert_eq!(ders(format!("0 {pem}").as_bytes()), [&*der]);
        assert_eq!(ders(&der), [&*der]);
        for (bytes, fault) in [
            (Vec::new(), "there is no"),
            (
                pem.replace("-----END", "").into(),
                "certificate 1 is cut off",
            ),
            (
                format!("{pem}{}", pem.replace("MII", "!!!")).into(),
                "certificate 2",
            ),
            (der[..der.len() - 1].to_vec(), "not an X.509 certificate"),
            ([&der[..], b"x"].concat(), "not an X.509 certificate"),
            (vec![b'x'; FILE_LIMIT as usize + 1], "not a file of at most"),
        ] {
            let message = read(&bytes).unwrap_err().to_string();
            assert!(message.contains(fault), "{message}");
        }
        assert!(super::read(directory.path()).is_err());
        assert!(super::read(Path::new("/nonexistent.pem")).is_err());
    }
}
