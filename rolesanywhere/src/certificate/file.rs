//! Certificates in files: PEM or DER.

use std::path::Path;

use super::{Certificate, CertificateError};

/// The largest file of certificates that is read, in bytes: leaf and chain take about 12 KiB, and a bundle of all
/// public CAs, which somebody may hand over, some 200 KiB.
pub const FILE_LIMIT: u64 = 256 * 1024;

/// What the bytes of a file, or of a pipe, hold: the certificates of a PEM text, or one in DER.
pub fn parse(bytes: &[u8]) -> Result<Vec<Certificate>, CertificateError> {
    if is_der(bytes) {
        let certificate = Certificate::from_der(bytes.to_vec());
        return match (certificate, other_der(bytes)) {
            (Err(_), Some(other)) => Err(CertificateError::new(format!(
                "not an X.509 certificate, but {other}"
            ))),
            (certificate, _) => Ok(vec![certificate?]),
        };
    }
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Err(CertificateError::new("it is UTF-16: save it as UTF-8"));
    }
    let text = String::from_utf8_lossy(bytes);
    let ders = parse_pem(&text)?;
    let numbered = ders.into_iter().enumerate().map(|(at, der)| {
        Certificate::from_der(der)
            .map_err(|fault| CertificateError::new(format!("certificate {}: {fault}", at + 1)))
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
        return Err(CertificateError::new(match text.trim().is_empty() {
            true => "it is empty".to_owned(),
            false => format!(
                "there is no \"-----BEGIN CERTIFICATE-----\" in it{}",
                other_pem(text)
            ),
        }));
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
        let fault = |what| {
            CertificateError::new(format!("{} {}{what}", label.to_lowercase(), ders.len() + 1))
        };
        let (body, after) = after
            .split_once(&end)
            .ok_or_else(|| fault(" is cut off".to_owned()))?;
        let (_, der) = der::pem::decode_vec(format!("{begin}\n{}{end}\n", lines(body)).as_bytes())
            .map_err(|error| fault(format!(": {error}")))?;
        ders.push(der);
        rest = after;
    }
    Ok(ders)
}

/// Whether there is a private key in a PEM text that opens without a password or a TPM.
pub fn holds_clear_key(bytes: &[u8]) -> bool {
    const BEGIN: &str = "-----BEGIN ";
    let text = String::from_utf8_lossy(bytes);
    text.split(BEGIN).skip(1).any(|block| {
        let Some((label, body)) = block.split_once("-----") else {
            return false;
        };
        match label {
            "ENCRYPTED PRIVATE KEY" | "TSS2 PRIVATE KEY" => false,
            "OPENSSH PRIVATE KEY" => lines(body).starts_with(OPENSSH_WITHOUT_CIPHER),
            label if label.ends_with("PRIVATE KEY") => !body.contains("ENCRYPTED"), // RFC 1421, Proc-Type
            _ => false,
        }
    })
}

/// Base64 of `openssh-key-v1`, a zero, and the cipher's name: `none` (OpenSSH, PROTOCOL.key).
const OPENSSH_WITHOUT_CIPHER: &str = "b3BlbnNzaC1rZXktdjEAAAAABG5vbm";

/// The lines of RFC 7468: a certificate may be indented in a YAML file, or have lost its line breaks in a variable.
fn lines(body: &str) -> String {
    const WIDTH: usize = 64;
    let body: Vec<char> = body.split_whitespace().flat_map(str::chars).collect();
    let lines = body.chunks(WIDTH);
    lines.flat_map(|line| line.iter().chain(&['\n'])).collect()
}

/// What is there instead of certificates, and what to do.
fn other_pem(text: &str) -> String {
    let label = text.split_once("-----BEGIN ");
    let Some((label, _)) = label.and_then(|(_, label)| label.split_once("-----")) else {
        return String::new();
    };
    let other = match label {
        "PKCS7" | "CMS" => PKCS7,
        "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST" => {
            "a request for one: give the certificate that the CA made of it"
        }
        "TRUSTED CERTIFICATE" | "X509 CERTIFICATE" => {
            "OpenSSL's own form: openssl x509 -in FILE writes the usual one"
        }
        key if key.ends_with("PRIVATE KEY") => PRIVATE_KEY,
        _ => return String::new(),
    };
    format!(", but {other}")
}

const PKCS7: &str = "PKCS#7: openssl pkcs7 -print_certs -in FILE writes its certificates (with -inform DER where it is no \
                     text)";
const PRIVATE_KEY: &str = "a private key: give the certificate";

/// The same of DER, by what comes first in the outer SEQUENCE.
fn other_der(bytes: &[u8]) -> Option<&'static str> {
    let length = usize::from(*bytes.get(1)?);
    let long = length.saturating_sub(0x80);
    match bytes.get(2 + long..)? {
        [0x06, ..] => Some(PKCS7), // an OBJECT IDENTIFIER
        [0x02, 1, 3, ..] => {
            Some("PKCS#12: openssl pkcs12 -nokeys -in FILE writes its certificates")
        }
        [0x02, 1, 0 | 1, 0x02 | 0x04 | 0x30, ..] => Some(PRIVATE_KEY), // RFC 8017, 5915 and 5208
        _ => None,
    }
}

/// The bytes of a file of certificates.
pub fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    files::read(path, FILE_LIMIT)
        .map_err(|fault| CertificateError::new(format!("cannot read it: {fault}")))
}

#[cfg(test)]
mod tests {
    use openssl::pkcs7::{Pkcs7, Pkcs7Flags};
    use openssl::pkcs12::Pkcs12;
    use openssl::stack::Stack;
    use openssl::x509::X509;

    use super::super::testing::{Issued, ec_p256};
    use super::*;

    #[test]
    fn private_keys_in_clear_are_seen() {
        let key = ec_p256();
        let text = |pem: Vec<u8>| String::from_utf8(pem).unwrap();
        let certificate = X509::from_der(&Issued::leaf(&key).der()).unwrap();
        let certificate = text(certificate.to_pem().unwrap());
        let cipher = openssl::symm::Cipher::aes_128_cbc();
        let [pkcs8, sec1, encrypted, old] = [
            key.private_key_to_pem_pkcs8(),
            key.ec_key().unwrap().private_key_to_pem(),
            key.private_key_to_pem_pkcs8_passphrase(cipher, b"1234"),
            key.ec_key()
                .unwrap()
                .private_key_to_pem_passphrase(cipher, b"1234"),
        ]
        .map(|pem| text(pem.unwrap()));
        let openssh = |cipher: &str| {
            format!("-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA{cipher}AAAA\n")
        };
        for (clear, keys) in [
            (true, [&pkcs8, &sec1, &openssh("BG5vbmU")]),
            (false, [&encrypted, &old, &openssh("CmFlczI1Ni1jdHI")]),
        ] {
            for pem in keys {
                let both = [format!("{certificate}{pem}"), format!("{pem}{certificate}")];
                for file in both {
                    assert_eq!(holds_clear_key(file.as_bytes()), clear, "{file}");
                }
            }
        }
        assert!(!holds_clear_key(certificate.as_bytes()));
        let tss = certificate.replace("CERTIFICATE", "TSS2 PRIVATE KEY");
        assert!(!holds_clear_key(tss.as_bytes()));
    }

    #[test]
    fn files_hold_pem_among_other_text_or_der() {
        let key = ec_p256();
        let der = Issued::leaf(&key).der();
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
        let indented = pem.replace('\n', "\n    ");
        assert_eq!(ders(indented.as_bytes()), [&*der]);
        assert_eq!(ders(pem.replace('\n', "").as_bytes()), [&*der]);
        let relabelled = |label: &str| pem.replace("CERTIFICATE", label).into_bytes();
        let x509 = X509::from_der(&der).unwrap();
        let none = Stack::new().unwrap();
        let pkcs7 = Pkcs7::sign(&x509, &key, &none, b"", Pkcs7Flags::BINARY).unwrap();
        let pkcs7 = pkcs7.to_der().unwrap();
        let mut pkcs12 = Pkcs12::builder();
        let pkcs12 = pkcs12.pkey(&key).cert(&x509).build2("").unwrap();
        let pkcs12 = pkcs12.to_der().unwrap();
        for (bytes, fault) in [
            (Vec::new(), "it is empty"),
            (b" \n".into(), "it is empty"),
            (b"\xff\xfe-\0".into(), "UTF-16"),
            (
                b"MIIB".into(),
                "there is no \"-----BEGIN CERTIFICATE-----\" in it",
            ),
            (
                relabelled("PKCS7"),
                "in it, but PKCS#7: openssl pkcs7 -print_certs",
            ),
            (relabelled("CERTIFICATE REQUEST"), "a request for one"),
            (relabelled("TRUSTED CERTIFICATE"), "openssl x509"),
            (relabelled("EC PRIVATE KEY"), "a private key"),
            (pkcs7, "not an X.509 certificate, but PKCS#7"),
            (pkcs12, "not an X.509 certificate, but PKCS#12"),
            (key.private_key_to_der().unwrap(), "but a private key"),
            (key.private_key_to_pkcs8().unwrap(), "but a private key"),
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
            (
                vec![b'x'; FILE_LIMIT as usize + 1],
                "it has more than 262144 bytes",
            ),
        ] {
            let message = read(&bytes).unwrap_err().to_string();
            assert!(message.contains(fault), "{message}");
        }
        for (path, fault) in [
            (directory.path(), "it is a directory"),
            (Path::new("/dev/zero"), "a device"),
            (Path::new("/nonexistent.pem"), "No such file"),
        ] {
            let message = super::read(path).unwrap_err().to_string();
            assert!(message.contains(fault), "{message}");
        }
    }
}
