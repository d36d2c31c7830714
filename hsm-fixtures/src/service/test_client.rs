//! A client of the tests: signs CreateSession with a software key.
//!
//! It writes the canonical request by hand for requests that are canonical already, so that nothing of the
//! judge's own canonicalisation is used to test it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::sha::sha256;
use openssl::sign::Signer;
use openssl::x509::X509;

use super::received::Received;
use crate::pki::Leaf;

pub(crate) fn rsa(bits: u32) -> PKey<Private> {
    PKey::from_rsa(Rsa::generate(bits).unwrap()).unwrap()
}

pub(crate) fn ec(curve: Nid) -> PKey<Private> {
    PKey::from_ec_key(EcKey::generate(&EcGroup::from_curve_name(curve).unwrap()).unwrap()).unwrap()
}

pub(crate) fn p256() -> PKey<Private> {
    ec(Nid::X9_62_PRIME256V1)
}

pub(crate) fn spki(key: &PKey<Private>) -> Vec<u8> {
    key.public_key_to_der().unwrap()
}

pub(crate) fn base64(der: &[u8]) -> String {
    STANDARD.encode(der)
}

/// Base64 DER of each certificate in a PEM text.
pub(crate) fn base64_of_pem(pem: &str) -> Vec<String> {
    X509::stack_from_pem(pem.as_bytes())
        .unwrap()
        .iter()
        .map(|x509| base64(&x509.to_der().unwrap()))
        .collect()
}

pub(crate) fn amz_date(time: Timestamp) -> String {
    time.strftime("%Y%m%dT%H%M%SZ").to_string()
}

/// A request before it is signed; tests spoil one field.
#[derive(Clone)]
pub(crate) struct Draft {
    pub(crate) method: String,
    pub(crate) path: String,
    /// In canonical form.
    pub(crate) query: String,
    pub(crate) body: String,
    pub(crate) algorithm: String,
    pub(crate) serial: String,
    pub(crate) scope: String,
    /// Sorted by name.
    pub(crate) headers: Vec<(String, String)>,
    /// Names that the signature leaves out.
    pub(crate) unsigned: Vec<String>,
}

impl Draft {
    /// A good request of `leaf` for the session that `query` names, sent to `host`.
    pub(crate) fn new(
        key: &PKey<Private>,
        leaf: &Leaf,
        host: &str,
        query: &str,
        now: Timestamp,
    ) -> Draft {
        let date = amz_date(now);
        let mut draft = Draft {
            method: "POST".to_owned(),
            path: "/sessions".to_owned(),
            query: query.to_owned(),
            body: r#"{"durationSeconds":900}"#.to_owned(),
            algorithm: if key.rsa().is_ok() {
                "AWS4-X509-RSA-SHA256"
            } else {
                "AWS4-X509-ECDSA-SHA256"
            }
            .to_owned(),
            serial: leaf.serial_decimal.clone(),
            scope: format!("{}/eu-central-1/rolesanywhere/aws4_request", &date[..8]),
            headers: Vec::new(),
            unsigned: Vec::new(),
        };
        draft.set("content-type", "application/json");
        draft.set("host", host);
        draft.set("x-amz-date", &date);
        draft.set("x-amz-x509", &base64(&leaf.der));
        if !leaf.chain_pem.is_empty() {
            draft.set(
                "x-amz-x509-chain",
                &base64_of_pem(&leaf.chain_pem).join(","),
            );
        }
        draft
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.remove(name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self.headers.sort();
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.headers.retain(|(header, _)| header != name);
    }

    pub(crate) fn sign(&self, key: &PKey<Private>) -> Received {
        self.sign_with(key, MessageDigest::sha256())
    }

    pub(crate) fn sign_with(&self, key: &PKey<Private>, digest: MessageDigest) -> Received {
        let signature = Signer::new(digest, key)
            .unwrap()
            .sign_oneshot_to_vec(self.string_to_sign().as_bytes())
            .unwrap();
        let authorization = format!(
            "{} Credential={}/{}, SignedHeaders={}, Signature={}",
            self.algorithm,
            self.serial,
            self.scope,
            self.signed_headers(),
            hex::encode(signature)
        );
        let mut headers = self.headers.clone();
        headers.push(("authorization".to_owned(), authorization));
        Received {
            method: self.method.clone(),
            path: self.path.clone(),
            query: self.query.clone(),
            headers,
            body: self.body.clone().into_bytes(),
        }
    }

    fn string_to_sign(&self) -> String {
        let headers: String = self
            .signed()
            .map(|(name, value)| format!("{name}:{value}\n"))
            .collect();
        let canonical = format!(
            "{}\n{}\n{}\n{headers}\n{}\n{}",
            self.method,
            self.path,
            self.query,
            self.signed_headers(),
            hex::encode(sha256(self.body.as_bytes()))
        );
        let date = self
            .headers
            .iter()
            .find(|(name, _)| name == "x-amz-date")
            .map_or("", |(_, value)| value);
        format!(
            "{}\n{date}\n{}\n{}",
            self.algorithm,
            self.scope,
            hex::encode(sha256(canonical.as_bytes()))
        )
    }

    fn signed_headers(&self) -> String {
        self.signed()
            .map(|(name, _)| name.as_str())
            .collect::<Vec<_>>()
            .join(";")
    }

    fn signed(&self) -> impl Iterator<Item = &(String, String)> {
        self.headers
            .iter()
            .filter(|(name, _)| !self.unsigned.contains(name))
    }
}
