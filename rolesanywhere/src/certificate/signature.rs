//! The signature on a certificate, or on a request for one: which scheme, and whether a CA made it.

use der::asn1::{AnyRef, ContextSpecific, ObjectIdentifier};
use der::{Decode, Reader, SliceReader, TagNumber};
use x509_cert::spki::AlgorithmIdentifierOwned;

use super::Certificate;
use super::public_key::PublicKey;
use super::scheme::{Hash, Scheme};

/// Object identifier, name, and the scheme; `Err` has the hash that is too weak.
const ALGORITHMS: [(&str, &str, Result<Scheme, &str>); 14] = [
    ("1.2.840.113549.1.1.2", "md2WithRSAEncryption", Err("MD2")),
    ("1.2.840.113549.1.1.4", "md5WithRSAEncryption", Err("MD5")),
    (
        "1.2.840.113549.1.1.5",
        "sha1WithRSAEncryption",
        Err("SHA-1"),
    ),
    (
        "1.2.840.113549.1.1.14",
        "sha224WithRSAEncryption",
        Err("SHA-224"),
    ),
    ("1.2.840.10040.4.3", "dsaWithSHA1", Err("SHA-1")),
    ("1.2.840.10045.4.1", "ecdsa-with-SHA1", Err("SHA-1")),
    ("1.2.840.10045.4.3.1", "ecdsa-with-SHA224", Err("SHA-224")),
    (
        "1.2.840.113549.1.1.11",
        "sha256WithRSAEncryption",
        Ok(Scheme::RsaPkcs1(Hash::Sha256)),
    ),
    (
        "1.2.840.113549.1.1.12",
        "sha384WithRSAEncryption",
        Ok(Scheme::RsaPkcs1(Hash::Sha384)),
    ),
    (
        "1.2.840.113549.1.1.13",
        "sha512WithRSAEncryption",
        Ok(Scheme::RsaPkcs1(Hash::Sha512)),
    ),
    (
        "1.2.840.10045.4.3.2",
        "ecdsa-with-SHA256",
        Ok(Scheme::Ecdsa(Hash::Sha256)),
    ),
    (
        "1.2.840.10045.4.3.3",
        "ecdsa-with-SHA384",
        Ok(Scheme::Ecdsa(Hash::Sha384)),
    ),
    (
        "1.2.840.10045.4.3.4",
        "ecdsa-with-SHA512",
        Ok(Scheme::Ecdsa(Hash::Sha512)),
    ),
    ("1.3.101.112", "Ed25519", Ok(Scheme::Unknown)),
];

const RSASSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");

/// The algorithm's name; its object identifier where it has none here.
pub(super) fn name(certificate: &Certificate) -> String {
    let oid = certificate.parsed.signature_algorithm().oid;
    if oid == RSASSA_PSS {
        return "RSASSA-PSS".to_owned();
    }
    let oid = oid.to_string();
    let known = ALGORITHMS.iter().find(|(known, ..)| *known == oid);
    known.map_or(oid, |(_, name, _)| (*name).to_owned())
}

/// Which scheme that is; the error names the hash that is too weak.
pub(super) fn scheme(algorithm: &AlgorithmIdentifierOwned) -> Result<Scheme, &'static str> {
    if algorithm.oid == RSASSA_PSS {
        let parameters = algorithm.parameters.as_ref();
        return pss(parameters.map(AnyRef::from));
    }
    let oid = algorithm.oid.to_string();
    let known = ALGORITHMS.iter().find(|(known, ..)| *known == oid);
    known.map_or(Ok(Scheme::Unknown), |(.., scheme)| *scheme)
}

/// `RSASSA-PSS-params ::= SEQUENCE { hashAlgorithm [0] HashAlgorithm DEFAULT sha1, … }`
fn pss(parameters: Option<AnyRef<'_>>) -> Result<Scheme, &'static str> {
    let hash = || -> der::Result<ObjectIdentifier> {
        let parameters = parameters.ok_or(der::ErrorKind::Failed)?;
        let mut reader = SliceReader::new(parameters.value())?;
        let number = TagNumber(0);
        let hash = ContextSpecific::<AnyRef<'_>>::decode_explicit(&mut reader, number)?;
        let hash = hash.ok_or(der::ErrorKind::Failed)?.value;
        ObjectIdentifier::decode(&mut SliceReader::new(hash.value())?)
    };
    match hash().map(|oid| oid.to_string()).as_deref() {
        Ok("2.16.840.1.101.3.4.2.1") => Ok(Scheme::RsaPss(Hash::Sha256)),
        Ok("2.16.840.1.101.3.4.2.2") => Ok(Scheme::RsaPss(Hash::Sha384)),
        Ok("2.16.840.1.101.3.4.2.3") => Ok(Scheme::RsaPss(Hash::Sha512)),
        Ok("2.16.840.1.101.3.4.2.4") => Err("SHA-224"),
        Ok("1.3.14.3.2.26") | Err(_) => Err("SHA-1"),
        Ok(_) => Ok(Scheme::Unknown),
    }
}

/// Whether `issuer` signed it; `None` where that cannot be told here, for its key or its scheme.
pub(super) fn is_signed_by(certificate: &Certificate, issuer: &Certificate) -> Option<bool> {
    let key = PublicKey::of_ca(issuer).ok()?;
    let scheme = scheme(certificate.parsed.signature_algorithm()).ok()?;
    // What was signed names its scheme, too (RFC 5280, 4.1.1.2).
    if certificate.tbs().signature() != certificate.parsed.signature_algorithm() {
        return Some(false);
    }
    let text = signed_part(&certificate.der)?;
    let signature = certificate.parsed.signature().as_bytes()?;
    key.verifies_as(scheme, text, signature)
}

/// The bytes that are signed, as they came: the first element of `SEQUENCE { tbsCertificate, … }`, or of a request.
pub(super) fn signed_part(der: &[u8]) -> Option<&[u8]> {
    let mut reader = SliceReader::new(der).ok()?;
    let certificate = AnyRef::decode(&mut reader).ok()?;
    SliceReader::new(certificate.value()).ok()?.tlv_bytes().ok()
}

#[cfg(test)]
mod tests {
    use openssl::hash::MessageDigest;
    use openssl::nid::Nid;

    use super::super::testing::{Issued, ec, ec_p256, rsa};
    use super::*;

    #[test]
    fn every_scheme_of_a_certificate_is_checked() {
        let (rsa_key, p256, p384, p521) =
            (rsa(2048), ec_p256(), ec(Nid::SECP384R1), ec(Nid::SECP521R1));
        let key = ec_p256();
        let (sha256, sha384, sha512) = (
            MessageDigest::sha256(),
            MessageDigest::sha384(),
            MessageDigest::sha512(),
        );
        for (issuer, digest, known) in [
            (&rsa_key, sha256, true),
            (&rsa_key, sha384, true),
            (&rsa_key, sha512, true),
            (&p256, sha256, true),
            (&p256, sha384, true),
            (&p256, sha512, false),
            (&p384, sha256, true),
            (&p384, sha384, true),
            (&p384, sha512, false),
            (&p521, sha256, true),
            (&p521, sha384, true),
            (&p521, sha512, true),
        ] {
            let leaf = Issued {
                digest,
                ..Issued::leaf(&key).by(issuer, "ca")
            }
            .read();
            let ca = Issued::ca(issuer, "ca", issuer, "ca").read();
            assert_eq!(is_signed_by(&leaf, &ca), known.then_some(true));
            let other = Issued::ca(&key, "ca", &key, "ca").read();
            assert_ne!(is_signed_by(&leaf, &other), Some(true));
        }
    }
}
