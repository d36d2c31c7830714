//! SigV4-X509, pure: no clock, no socket, no key. The steps are AWS's ("Authentication: the signing
//! process", IAM Roles Anywhere user guide), a file each:
//!
//! 1. `canonical`: the canonical request;
//! 2. [`string_to_sign`]: its hash with date and scope, which the token signs;
//! 3. [`headers`]: the signature in the `Authorization` header.

mod canonical;

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};
use token::{AmzDate, Signature, StringToSign};

use crate::policy::Authorized;
use canonical::CanonicalRequest;
use config::certificate::Certificate;

/// The text whose signature makes the request `authorised`.
pub fn string_to_sign(
    authorised: &Authorized,
    certificate: &Certificate,
    date: AmzDate,
) -> StringToSign {
    let canonical = CanonicalRequest::new(authorised, certificate, date);
    StringToSign {
        algorithm: certificate.algorithm(),
        date,
        region: authorised.request().target().region().clone(),
        request_hash: Sha256::digest(canonical.to_string()).into(),
    }
}

/// The headers to add to the request, by name.
pub fn headers(
    authorised: &Authorized,
    certificate: &Certificate,
    text: &StringToSign,
    signature: &Signature,
) -> BTreeMap<String, String> {
    let canonical = CanonicalRequest::new(authorised, certificate, text.date);
    let authorization = format!(
        "{} Credential={}/{}, SignedHeaders={}, Signature={}",
        text.algorithm,
        certificate.serial,
        text.scope(),
        canonical.signed_headers(),
        hex::encode(&signature.0),
    );
    let mut headers = BTreeMap::from([
        ("X-Amz-Date".to_owned(), text.date.to_string()),
        ("X-Amz-X509".to_owned(), certificate.x509.clone()),
        ("Authorization".to_owned(), authorization),
    ]);
    if let Some(chain) = &certificate.x509_chain {
        headers.insert("X-Amz-X509-Chain".to_owned(), chain.clone());
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::create_session::tests::QUERY;
    use crate::policy::tests::authorised;
    use config::certificate::test_support::{NOON, certificate, ec};
    use jiff::Timestamp;
    use openssl::nid::Nid;

    const BODY: &str = r#"{"durationSeconds":900}"#;

    /// The same by another hand: each text written out, hashed by OpenSSL.
    #[test]
    fn the_texts_are_those_of_the_user_guide() {
        for intermediates in [0, 2] {
            let certificate = certificate(&ec(Nid::X9_62_PRIME256V1), intermediates);
            let (chain, names) = match &certificate.x509_chain {
                Some(chain) => (format!("x-amz-x509-chain:{chain}\n"), ";x-amz-x509-chain"),
                None => (String::new(), ""),
            };
            let canonical = format!(
                "POST\n/sessions\n{QUERY}\ncontent-type:application/json\n\
                 host:rolesanywhere.eu-central-1.amazonaws.com\nx-amz-date:20261123T120000Z\n\
                 x-amz-x509:{}\n{chain}\ncontent-type;host;x-amz-date;x-amz-x509{names}\n{}",
                certificate.x509,
                hex::encode(openssl::sha::sha256(BODY.as_bytes())),
            );
            let scope = "20261123/eu-central-1/rolesanywhere/aws4_request";
            let date = AmzDate::from(NOON.parse::<Timestamp>().unwrap());
            let text = string_to_sign(&authorised(BODY), &certificate, date);
            assert_eq!(
                text.to_string(),
                format!(
                    "AWS4-X509-ECDSA-SHA256\n20261123T120000Z\n{scope}\n{}",
                    hex::encode(openssl::sha::sha256(canonical.as_bytes()))
                )
            );
            let signature = Signature(vec![0xab, 0x01]);
            let headers = headers(&authorised(BODY), &certificate, &text, &signature);
            assert_eq!(
                headers["Authorization"],
                format!(
                    "AWS4-X509-ECDSA-SHA256 Credential=123456789012345678901234567890/{scope}, \
                     SignedHeaders=content-type;host;x-amz-date;x-amz-x509{names}, Signature=ab01"
                )
            );
            assert_eq!(headers["X-Amz-Date"], "20261123T120000Z");
            assert_eq!(headers["X-Amz-X509"], certificate.x509);
            assert_eq!(
                headers.get("X-Amz-X509-Chain"),
                certificate.x509_chain.as_ref()
            );
            assert_eq!(headers.len(), 3 + usize::from(intermediates > 0));
        }
    }
}
