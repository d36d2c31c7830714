//! A key that signs: two PKCS#11 calls, `C_SignInit` and `C_Sign`.

use std::sync::Arc;

use cryptoki_sys::*;
use sha2::{Digest, Sha256};
use token::{Algorithm, Key, Pkcs11Uri, Signature, StringToSign, TokenError};

use crate::checked_request::CheckedRequest;
use crate::der;
use crate::error::Failure;
use crate::login::ContextLogin;
use crate::mechanism_name::named;
use crate::properties::{KeyType, Properties};
use crate::raw::Session;

/// A private key, in one worker's session.
pub(crate) struct Pkcs11Key {
    /// Shared with the worker's other keys; a session does one thing at a time, and so does a worker.
    pub(crate) session: Arc<Session>,
    /// Good in every session of this process.
    pub(crate) handle: CK_OBJECT_HANDLE,
    /// Its URI, for people.
    pub(crate) name: Arc<str>,
    pub(crate) mechanism: Mechanism,
    /// Where each signature needs the PIN.
    pub(crate) context_login: Option<Arc<ContextLogin>>,
    /// Where it does not, but those of another key on the token do.
    pub(crate) others_login: Option<Arc<ContextLogin>>,
}

impl Key for Pkcs11Key {
    fn sign(&mut self, text: &StringToSign) -> Result<Signature, TokenError> {
        let name = &self.name;
        if text.algorithm != self.mechanism.algorithm() {
            return Err(TokenError::Broken(format!(
                "{name} signs {}, but was asked for {}: the certificate is another key's",
                self.mechanism.algorithm(),
                text.algorithm
            )));
        }
        self.sign_message(text.to_string().as_bytes())
    }
}

impl Pkcs11Key {
    /// For an operator's command.
    pub(crate) fn sign_request(&self, request: &CheckedRequest) -> Result<Signature, TokenError> {
        self.sign_message(request.info())
    }

    /// Not for others to call: what they hand over says by its type that it may be signed.
    fn sign_message(&self, message: &[u8]) -> Result<Signature, TokenError> {
        let name = &self.name;
        let login = self.context_login.as_deref();
        let mut alone = login.map(ContextLogin::alone).transpose()?;
        let others = self.others_login.as_deref();
        let _beside = others.map(ContextLogin::beside_others);
        let failed =
            |failure: Failure| failure.while_doing(format_args!("cannot sign with {name}"));
        self.session
            .sign_init(self.mechanism.number(), self.handle)
            .map_err(failed)?;
        if let Some(alone) = &mut alone {
            alone.log_in(&self.session, name)?;
        }
        let input = self.mechanism.input(message);
        let output = self.session.sign(&input).map_err(failed)?;
        let length = output.len();
        self.mechanism
            .signature(output)
            .map(Signature)
            .ok_or_else(|| {
                TokenError::Broken(format!(
                    "{name}: C_Sign made {length} bytes that are no signature of a key that we know"
                ))
            })
    }
}

/// How a key signs with SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mechanism {
    /// `CKM_SHA256_RSA_PKCS`: the token hashes.
    Sha256RsaPkcs,
    /// `CKM_RSA_PKCS`: the token pads what we hashed.
    RsaPkcs,
    /// `CKM_ECDSA` on what we hashed: few tokens have `CKM_ECDSA_SHA256`, all have this.
    Ecdsa,
    /// `CKM_ECDSA_SHA256`: the token hashes.
    EcdsaSha256,
}

impl Mechanism {
    /// For a key, on a token that signs with these mechanisms. An error where the key allows none that Roles
    /// Anywhere takes. `name` is the key's, for people.
    pub(crate) fn choose(
        key: &Properties,
        name: &Pkcs11Uri,
        token_has: impl Fn(CK_MECHANISM_TYPE) -> bool,
    ) -> Result<Mechanism, TokenError> {
        let candidates = match key.key_type {
            KeyType::Rsa if token_has(CKM_SHA256_RSA_PKCS) => {
                &[Mechanism::Sha256RsaPkcs, Mechanism::RsaPkcs][..]
            }
            KeyType::Rsa => &[Mechanism::RsaPkcs, Mechanism::Sha256RsaPkcs],
            KeyType::Ec => &[Mechanism::Ecdsa, Mechanism::EcdsaSha256],
        };
        let allowed = &key.allowed_mechanisms;
        let fits = |one: &&Mechanism| allowed.is_empty() || allowed.contains(&one.number());
        candidates.iter().find(fits).copied().ok_or_else(|| {
            let needed: Vec<String> = candidates.iter().map(|one| named(one.number())).collect();
            let allowed: Vec<String> = allowed.iter().copied().map(named).collect();
            TokenError::Unusable(format!(
                "{name} allows {} alone (CKA_ALLOWED_MECHANISMS), and Roles Anywhere needs a signature by {}: make \
                 a key that allows it",
                allowed.join(", "),
                needed.join(" or ")
            ))
        })
    }

    fn number(self) -> CK_MECHANISM_TYPE {
        match self {
            Mechanism::Sha256RsaPkcs => CKM_SHA256_RSA_PKCS,
            Mechanism::RsaPkcs => CKM_RSA_PKCS,
            Mechanism::Ecdsa => CKM_ECDSA,
            Mechanism::EcdsaSha256 => CKM_ECDSA_SHA256,
        }
    }

    pub(crate) fn algorithm(self) -> Algorithm {
        match self {
            Mechanism::Sha256RsaPkcs | Mechanism::RsaPkcs => Algorithm::RsaSha256,
            Mechanism::Ecdsa | Mechanism::EcdsaSha256 => Algorithm::EcdsaSha256,
        }
    }

    /// What `C_Sign` gets.
    fn input(self, message: &[u8]) -> Vec<u8> {
        match self {
            Mechanism::Sha256RsaPkcs | Mechanism::EcdsaSha256 => message.to_vec(),
            Mechanism::RsaPkcs => [SHA256_DIGEST_INFO, &Sha256::digest(message)].concat(),
            Mechanism::Ecdsa => Sha256::digest(message).to_vec(),
        }
    }

    /// What `C_Sign` made, as AWS wants it. The agent verifies it: here only its form matters.
    fn signature(self, output: Vec<u8>) -> Option<Vec<u8>> {
        match self {
            Mechanism::Ecdsa | Mechanism::EcdsaSha256 => der::ecdsa_signature(&output),
            Mechanism::Sha256RsaPkcs | Mechanism::RsaPkcs => {
                token::is_rsa_length(output.len() * 8).then_some(output)
            }
        }
    }
}

/// The DER of a SHA-256 `DigestInfo` up to the digest (RFC 8017, section 9.2, note 1).
const SHA256_DIGEST_INFO: &[u8] = &[
    0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05,
    0x00, 0x04, 0x20,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(
        key_type: KeyType,
        token_has: bool,
        allowed: &[CK_MECHANISM_TYPE],
    ) -> Result<Mechanism, TokenError> {
        let properties = Properties {
            key_type,
            id: None,
            always_authenticate: false,
            allowed_mechanisms: allowed.to_vec(),
            warnings: vec![],
        };
        let name = "pkcs11:object=web".parse().unwrap();
        Mechanism::choose(&properties, &name, |_| token_has)
    }

    #[test]
    fn rsa_hashes_where_the_token_cannot() {
        let chosen = |key, has| chosen(key, has, &[]);
        assert_eq!(chosen(KeyType::Rsa, true), Ok(Mechanism::Sha256RsaPkcs));
        assert_eq!(chosen(KeyType::Rsa, false), Ok(Mechanism::RsaPkcs));
        assert_eq!(chosen(KeyType::Ec, false), Ok(Mechanism::Ecdsa));
    }

    #[test]
    fn a_key_signs_by_what_it_allows() {
        for (key, token_has, allowed, expected) in [
            (KeyType::Rsa, true, CKM_RSA_PKCS, Mechanism::RsaPkcs),
            (
                KeyType::Rsa,
                false,
                CKM_SHA256_RSA_PKCS,
                Mechanism::Sha256RsaPkcs,
            ),
            (KeyType::Ec, true, CKM_ECDSA_SHA256, Mechanism::EcdsaSha256),
            (KeyType::Ec, true, CKM_ECDSA, Mechanism::Ecdsa),
        ] {
            let allowed = [CKM_SHA512_RSA_PKCS, allowed];
            assert_eq!(chosen(key, token_has, &allowed), Ok(expected));
        }
        for (key, allowed, name) in [
            (
                KeyType::Rsa,
                CKM_SHA256_RSA_PKCS_PSS,
                "CKM_SHA256_RSA_PKCS_PSS alone",
            ),
            (KeyType::Rsa, CKM_VENDOR_DEFINED + 1, "0x80000001 alone"),
            (KeyType::Ec, CKM_ECDSA_SHA384, "CKM_ECDSA_SHA384 alone"),
            (KeyType::Ec, CKM_RSA_PKCS, "CKM_RSA_PKCS alone"),
        ] {
            let error = chosen(key, true, &[allowed]).unwrap_err();
            assert!(matches!(error, TokenError::Unusable(_)), "{error:?}");
            assert!(error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn inputs_are_text_digest_info_and_digest() {
        // SHA-256("abc"), FIPS 180-4
        let digest =
            hex::decode("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        let digest = digest.unwrap();
        assert_eq!(Mechanism::Sha256RsaPkcs.input(b"abc"), b"abc");
        assert_eq!(Mechanism::Ecdsa.input(b"abc"), digest);
        let info = Mechanism::RsaPkcs.input(b"abc");
        assert_eq!(info.len(), 2 + usize::from(info[1]));
        assert!(info.ends_with(&digest));
    }

    #[test]
    fn rsa_signatures_have_the_lengths_of_moduli() {
        for length in [256, 320, 384, 512] {
            let output = vec![7; length];
            let signature = Mechanism::RsaPkcs.signature(output.clone());
            assert_eq!(signature, Some(output));
        }
        for length in [0, 64, 128, 255, 513] {
            assert_eq!(Mechanism::Sha256RsaPkcs.signature(vec![7; length]), None);
        }
    }
}
