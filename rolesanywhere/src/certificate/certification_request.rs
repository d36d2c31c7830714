//! PKCS#10 certificate requests (RFC 2986).

use der::asn1::Any;
use der::pem::LineEnding;
use der::{Decode, Encode};
use x509_cert::request::CertReq;

use super::CertificateError;
use super::file::{is_der, pem_blocks};
use super::public_key::PublicKey;
use super::scheme::Scheme;
use super::signature::{scheme, signed_part};

/// A request for a certificate of a key that AWS takes, signed by that key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificationRequest {
    der: Vec<u8>,
    public_key: Vec<u8>,
    subject: String,
}

/// Whether its key has been seen to sign it, and why not.
pub type Proof = Result<(), CertificateError>;

const LABEL: &str = "CERTIFICATE REQUEST";
/// What Microsoft and old OpenSSL write.
const OLD_LABEL: &str = "NEW CERTIFICATE REQUEST";

impl CertificationRequest {
    /// Reads one and verifies its signature.
    pub fn from_der(der: &[u8]) -> Result<CertificationRequest, CertificateError> {
        proven(CertificationRequest::read(der)?)
    }

    fn read(der: &[u8]) -> Result<(CertificationRequest, Proof), CertificateError> {
        let malformed = |fault: der::Error| {
            CertificateError::new(format!("not a PKCS#10 certificate request: {fault}"))
        };
        let request = CertReq::from_der(der).map_err(malformed)?;
        let public_key = request.info.public_key.to_der().map_err(malformed)?;
        let proof = verify(&request, der, &PublicKey::from_der(&public_key)?)?;
        let request = CertificationRequest {
            der: der.to_vec(),
            public_key,
            subject: request.info.subject.to_string(),
        };
        Ok((request, proof))
    }

    /// The one request of a PEM text. Text around it is left out, as OpenSSL writes it.
    pub fn from_pem(text: &str) -> Result<CertificationRequest, CertificateError> {
        proven(CertificationRequest::from_pem_for_ca(text)?)
    }

    /// The same for a CA, which verifies the signature itself, and perhaps one that cannot be verified here.
    /// One that is wrong is an error here, too.
    pub fn from_pem_for_ca(text: &str) -> Result<(CertificationRequest, Proof), CertificateError> {
        let mut ders = pem_blocks(text, LABEL)?;
        ders.extend(pem_blocks(text, OLD_LABEL)?);
        match ders.as_slice() {
            [der] => CertificationRequest::read(der),
            [] => Err(CertificateError::new(format!(
                "there is no \"-----BEGIN {LABEL}-----\" in it"
            ))),
            // A CA might take another one than what was looked at.
            _ => Err(CertificateError::new(
                "there are several certificate requests in it: keep one",
            )),
        }
    }

    /// What the bytes of a file hold: PEM or DER.
    pub fn parse(bytes: &[u8]) -> Result<CertificationRequest, CertificateError> {
        match is_der(bytes) {
            true => CertificationRequest::from_der(bytes),
            false => CertificationRequest::from_pem(&String::from_utf8_lossy(bytes)),
        }
    }

    /// As PEM.
    pub fn to_pem(&self) -> Result<String, CertificateError> {
        der::pem::encode_string(LABEL, LineEnding::LF, &self.der)
            .map_err(|fault| CertificateError::new(fault.to_string()))
    }

    /// Its bytes.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// DER of its `SubjectPublicKeyInfo`.
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    /// Its subject, RFC 4514.
    pub fn subject(&self) -> &str {
        &self.subject
    }
}

fn proven(
    (request, proof): (CertificationRequest, Proof),
) -> Result<CertificationRequest, CertificateError> {
    proof.map(|()| request)
}

fn verify(request: &CertReq, der: &[u8], key: &PublicKey) -> Result<Proof, CertificateError> {
    let unknown = || {
        CertificateError::new(
            "it is signed in a way that cannot be verified here: sign it with SHA-256",
        )
    };
    let scheme = match scheme(&request.algorithm) {
        Ok(scheme) => scheme,
        Err(hash) => {
            return Ok(Err(CertificateError::new(format!(
                "it is signed with {hash}, which is too weak: sign it with SHA-256"
            ))));
        }
    };
    let parameters = request.algorithm.parameters.as_ref();
    if !matches!(scheme, Scheme::RsaPss(_)) && parameters.is_some_and(|some| *some != Any::null()) {
        return Ok(Err(unknown()));
    }
    let text = signed_part(der).unwrap_or_default();
    let signature = request.signature.as_bytes().unwrap_or_default();
    match key.verifies_as(scheme, text, signature) {
        Some(true) => Ok(Ok(())),
        Some(false) => Err(CertificateError::new("its signature is not its key's")),
        None => Ok(Err(unknown())),
    }
}

#[cfg(test)]
mod tests {
    use openssl::hash::MessageDigest;
    use openssl::nid::Nid;
    use openssl::x509::{X509NameBuilder, X509ReqBuilder};

    use super::super::testing::{Key, ec, ec_p256, rsa};
    use super::*;

    fn signed(key: &Key, signer: &Key, digest: MessageDigest) -> Vec<u8> {
        let mut name = X509NameBuilder::new().unwrap();
        name.append_entry_by_text("CN", "web").unwrap();
        let mut builder = X509ReqBuilder::new().unwrap();
        builder.set_subject_name(&name.build()).unwrap();
        builder.set_pubkey(key).unwrap();
        builder.sign(signer, digest).unwrap();
        builder.build().to_der().unwrap()
    }

    fn keys() -> [Key; 4] {
        [ec_p256(), ec(Nid::SECP384R1), ec(Nid::SECP521R1), rsa(2048)]
    }

    fn fault(der: &[u8]) -> String {
        CertificationRequest::from_der(der).unwrap_err().to_string()
    }

    #[test]
    fn those_of_openssl_are_read_whichever_good_hash_they_are_signed_with() {
        for key in keys() {
            for digest in [MessageDigest::sha256(), MessageDigest::sha384()] {
                let der = signed(&key, &key, digest);
                let request = CertificationRequest::from_der(&der).unwrap();
                assert_eq!(request.public_key(), key.public_key_to_der().unwrap());
                assert_eq!((request.subject(), request.der()), ("CN=web", &*der));
            }
            let weak = fault(&signed(&key, &key, MessageDigest::sha1()));
            assert!(weak.contains("SHA-1"), "{weak}");
        }
        let key = ec_p256();
        let unknown = fault(&signed(&key, &key, MessageDigest::sha512()));
        assert!(unknown.contains("cannot be verified"), "{unknown}");
        let short = fault(&signed(&rsa(1024), &key, MessageDigest::sha256()));
        assert!(short.contains("1024 bits"), "{short}");
    }

    #[test]
    fn a_ca_is_given_what_cannot_be_verified_here_and_nothing_that_is_wrong() {
        let for_ca = |signer: &Key, key: &Key, digest| {
            let der = signed(key, signer, digest);
            let pem = der::pem::encode_string(LABEL, LineEnding::LF, &der).unwrap();
            CertificationRequest::from_pem_for_ca(&pem)
        };
        let (p256, sha256) = (ec_p256(), MessageDigest::sha256());
        for key in &keys() {
            let proof = |digest| {
                let (request, proof) = for_ca(key, key, digest).unwrap();
                assert_eq!(request.public_key(), key.public_key_to_der().unwrap());
                proof.map_err(|fault| fault.to_string())
            };
            assert_eq!(proof(sha256), Ok(()));
            let weak = proof(MessageDigest::sha1()).unwrap_err();
            assert!(weak.contains("SHA-1"), "{weak}");
            let wrong = for_ca(&p256, key, sha256).unwrap_err().to_string();
            assert!(wrong.contains("not its key's"), "{wrong}");
        }
        let (_, proof) = for_ca(&p256, &p256, MessageDigest::sha512()).unwrap();
        let unknown = proof.unwrap_err().to_string();
        assert!(unknown.contains("cannot be verified"), "{unknown}");
        assert!(for_ca(&rsa(2048), &p256, MessageDigest::sha512()).is_err());
    }

    #[test]
    fn another_keys_signature_is_none() {
        for (key, other) in keys().iter().zip(&keys()) {
            for signer in [other, &ec_p256(), &rsa(2048)] {
                let text = fault(&signed(key, signer, MessageDigest::sha256()));
                assert!(text.contains("not its key's"), "{text}");
            }
        }
    }

    #[test]
    fn no_byte_can_be_changed() {
        for key in keys() {
            let good = signed(&key, &key, MessageDigest::sha256());
            for at in 0..good.len() {
                let mut bad = good.clone();
                bad[at] ^= 1 << (at % 8);
                assert!(CertificationRequest::from_der(&bad).is_err(), "byte {at}");
            }
            assert!(CertificationRequest::from_der(&good[..good.len() - 1]).is_err());
            assert!(CertificationRequest::from_der(&[&good[..], &[0]].concat()).is_err());
        }
    }

    #[test]
    fn files_hold_one_in_pem_among_other_text_or_in_der() {
        let key = ec_p256();
        let der = signed(&key, &key, MessageDigest::sha256());
        let expected = CertificationRequest::from_der(&der).unwrap();
        let pem = expected.to_pem().unwrap();
        for text in [
            pem.clone(),
            pem.replace('\n', "\r\n"),
            pem.replace(LABEL, OLD_LABEL),
            format!("Certificate Request:\n    Subject: CN = wéb\n{pem}\nend"),
        ] {
            assert_eq!(
                CertificationRequest::from_pem(&text).as_ref(),
                Ok(&expected)
            );
            assert_eq!(
                CertificationRequest::parse(text.as_bytes()).as_ref(),
                Ok(&expected)
            );
        }
        assert_eq!(CertificationRequest::parse(&der).as_ref(), Ok(&expected));
        for (text, fault) in [
            (String::new(), "there is no"),
            (pem.replace(" REQUEST", ""), "there is no"),
            (pem.replace("-----END", "----"), "request 1 is cut off"),
            (pem.replace("MIH", "!!!"), "request 1"),
            (pem.replacen("MIH", "MIG", 1), "not a PKCS#10"),
            (format!("{pem}{pem}"), "several"),
            (format!("{pem}{}", pem.replace(LABEL, OLD_LABEL)), "several"),
        ] {
            let message = CertificationRequest::from_pem(&text)
                .unwrap_err()
                .to_string();
            assert!(message.contains(fault), "{fault}: {message}");
        }
    }
}
