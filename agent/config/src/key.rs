//! `key` and `certificate` of an identity: on a PKCS#11 token, of a TPM, or in a file.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use token::link::{CertificateOnToken, OpenTpmKey, TpmKeySource};
use token::{PinSource, Pkcs11Token, Pkcs11Uri, Tcti, TokenMatch, UriError};
use zeroize::Zeroizing;

use crate::certificate::LeafSource;
use crate::tokens::{Sessions, TokenKind};
use crate::value::AbsolutePath;

/// Which private key.
#[derive(Debug)]
pub enum KeyConfig {
    /// On a PKCS#11 token; without module and PIN, which are the token's.
    Pkcs11(Pkcs11Uri),
    /// Of a TPM, with its auth values.
    Tpm(OpenTpmKey),
}

impl KeyConfig {
    /// Where its own auth values come from; a PKCS#11 key has the token's PIN.
    pub fn pins(&self) -> impl Iterator<Item = &PinSource> {
        self.of_tpm().into_iter().flat_map(OpenTpmKey::pins)
    }

    /// The key's file, where it has one.
    pub fn file(&self) -> Option<&Path> {
        self.of_tpm()?.file()
    }

    /// The key, if it is a TPM's.
    pub fn of_tpm(&self) -> Option<&OpenTpmKey> {
        match self {
            KeyConfig::Pkcs11(_) => None,
            KeyConfig::Tpm(key) => Some(key),
        }
    }
}

/// As the configuration writes it, without PINs.
impl fmt::Display for KeyConfig {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            KeyConfig::Pkcs11(uri) => uri.fmt(f),
            KeyConfig::Tpm(key) => key.source.fmt(f),
        }
    }
}

/// What an identity says of its key, apart from which one it is.
pub(crate) struct KeySettings {
    pub(crate) pin: Option<PinSource>,
    pub(crate) parent_pin: Option<PinSource>,
    pub(crate) owner_pin: Option<PinSource>,
    pub(crate) tcti: Option<Tcti>,
    pub(crate) certificate: Option<CertificateText>,
    pub(crate) sessions: Option<Sessions>,
}

/// Key, leaf and token of an identity.
pub(crate) type Parts = (KeyConfig, LeafSource, TokenKind);

impl KeySettings {
    pub(crate) fn pkcs11_key(
        self,
        mut key: Pkcs11Uri,
        default_module: &Path,
        network: Option<bool>,
    ) -> Result<Parts, String> {
        if !matches!(key.object.class.as_deref(), None | Some("private")) {
            return Err("key must name a private key: leave type out, or type=private".to_owned());
        }
        if self.parent_pin.is_some() || self.owner_pin.is_some() || self.tcti.is_some() {
            return Err("parent-pin, owner-pin and tpm are for a key of a TPM".to_owned());
        }
        let module = key
            .module_path
            .take()
            .unwrap_or_else(|| default_module.to_owned());
        let pin = match (key.pin.take(), self.pin) {
            (Some(_), Some(_)) => {
                return Err("a PIN is given in the key's URI and in pin: keep one".to_owned());
            }
            (from_uri, from_table) => from_uri.or(from_table),
        };
        let certificate = match self.certificate {
            None => LeafSource::Token(CertificateOnToken::OfTheKey),
            Some(CertificateText::File(path)) => LeafSource::File(path),
            Some(CertificateText::OnToken(uri)) => on_the_same_token(*uri, &key.token)?,
        };
        let token = TokenKind::Pkcs11(Pkcs11Token {
            module,
            network,
            token: key.token.clone(),
            pin,
            sessions: self.sessions.unwrap_or_default().0,
        });
        Ok((KeyConfig::Pkcs11(key), certificate, token))
    }

    pub(crate) fn tpm_key(
        self,
        source: TpmKeySource,
        default_tcti: &Tcti,
    ) -> Result<Parts, String> {
        if self.sessions.is_some() {
            return Err(
                "sessions are a PKCS#11 token's: a TPM does one thing at a time".to_owned(),
            );
        }
        let at_handle = matches!(source, TpmKeySource::Handle(_));
        if at_handle && (self.parent_pin.is_some() || self.owner_pin.is_some()) {
            return Err(
                "a key at a handle has no parent to load it under: leave parent-pin and owner-pin out"
                    .to_owned(),
            );
        }
        let certificate = match (self.certificate, &source) {
            (Some(CertificateText::File(path)), _) => path,
            (Some(CertificateText::OnToken(_)), _) => {
                return Err("certificate of a TPM's key must be a file".to_owned());
            }
            // It may be behind the key in the same file.
            (None, TpmKeySource::File(path)) => path.clone(),
            (None, TpmKeySource::Handle(_)) => {
                return Err(
                    "certificate must be given for a key at a handle: certificate = \"/path\""
                        .to_owned(),
                );
            }
        };
        let key = KeyConfig::Tpm(OpenTpmKey {
            source,
            pin: self.pin,
            parent_pin: self.parent_pin,
            owner_pin: self.owner_pin,
        });
        let tcti = self.tcti.unwrap_or_else(|| default_tcti.clone());
        Ok((key, LeafSource::File(certificate), TokenKind::Tpm(tcti)))
    }
}

/// A certificate is read in the key's own session, so it has to be on the key's token.
fn on_the_same_token(uri: Pkcs11Uri, token: &TokenMatch) -> Result<LeafSource, String> {
    let elsewhere = uri.token != TokenMatch::default() && uri.token != *token;
    if elsewhere || uri.module_path.is_some() || uri.pin.is_some() {
        return Err(
            "certificate must be on the same token as the key: write only its object or id, \
             as in pkcs11:object=NAME"
                .to_owned(),
        );
    }
    if !matches!(uri.object.class.as_deref(), None | Some("cert")) {
        return Err("certificate must name a certificate: leave type out".to_owned());
    }
    Ok(LeafSource::Token(CertificateOnToken::Named(Box::new(uri))))
}

/// A PKCS#11 URI, or a key of a TPM: its handle or its file.
#[derive(Deserialize)]
#[serde(try_from = "String")]
pub(crate) enum KeyText {
    Pkcs11(Box<Pkcs11Uri>),
    Tpm(TpmKeySource),
}

impl TryFrom<String> for KeyText {
    type Error = String;

    fn try_from(text: String) -> Result<KeyText, String> {
        let text = Zeroizing::new(text); // a pin-value may be in it
        if let Some(uri) = pkcs11_uri(&text)? {
            return Ok(KeyText::Pkcs11(uri));
        }
        if let Some(handle) = text.strip_prefix("handle:") {
            return persistent_handle(handle)
                .map(|handle| KeyText::Tpm(TpmKeySource::Handle(handle)));
        }
        let path = Path::new(text.as_str());
        if path.is_absolute() {
            return Ok(KeyText::Tpm(TpmKeySource::File(path.to_owned())));
        }
        // Not the text itself: there may be a PIN in it.
        Err(
            "key is none of a PKCS#11 URI (pkcs11:…), a TPM's handle (handle:0x81000101) and the \
             absolute path of a TSS2 PRIVATE KEY file"
                .to_owned(),
        )
    }
}

/// The URI, if the text is meant to be one.
fn pkcs11_uri(text: &str) -> Result<Option<Box<Pkcs11Uri>>, String> {
    match text.parse() {
        Ok(uri) => Ok(Some(Box::new(uri))),
        Err(UriError::Scheme) => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

fn persistent_handle(text: &str) -> Result<u32, String> {
    let prefixed = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let digits = prefixed.unwrap_or(text); // 8 digits that begin with 81 are hexadecimal
    let hex = digits.len() == 8 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    match u32::from_str_radix(digits, 16) {
        Ok(handle @ 0x8100_0000..=0x81ff_ffff) if hex => Ok(handle),
        _ => Err(format!(
            "{text:?} is not a persistent handle: write one from 0x81000000 to 0x81FFFFFF, as \
             `tpm2_getcap handles-persistent` shows them"
        )),
    }
}

/// An absolute path or a PKCS#11 URI.
#[derive(Deserialize)]
#[serde(try_from = "String")]
pub(crate) enum CertificateText {
    File(PathBuf),
    OnToken(Box<Pkcs11Uri>),
}

impl TryFrom<String> for CertificateText {
    type Error = String;

    fn try_from(text: String) -> Result<CertificateText, String> {
        if let Some(uri) = pkcs11_uri(&text)? {
            return Ok(CertificateText::OnToken(uri));
        }
        AbsolutePath::try_from(PathBuf::from(text)).map(|path| CertificateText::File(path.0))
    }
}

#[cfg(test)]
mod tests {
    use crate::tests::{WEB, assert_refused};

    #[test]
    fn faults_of_tpm_keys_are_named() {
        let file = WEB.replace("pkcs11:token=lab;object=web", "/etc/web.tss");
        let handle = WEB.replace("pkcs11:token=lab;object=web", "handle:0x81000101");
        let pin = "{ file = \"/a\" }";
        for (text, expected) in [
            (handle.clone(), "certificate must be given"),
            (handle.replace("0x81000101", "0x80000001"), "FILE:3: "),
            (handle.replace("0x81000101", "0x8100010"), "FILE:3: "),
            (
                handle.replace("0x81000101", "81000101"),
                "certificate must be given",
            ),
            (handle.replace("0x81000101", "2164261121"), "FILE:3: "),
            (handle.replace("0x81000101", "0x+1000101"), "FILE:3: "),
            (
                file.replace("/etc/web.tss", "web.tss"),
                "FILE:3: key is none of",
            ),
            (
                format!("{file}sessions = 2\n"),
                "sessions are a PKCS#11 token's",
            ),
            (
                format!("{file}certificate = \"pkcs11:object=web\"\n"),
                "a file",
            ),
            (
                format!("{handle}certificate = \"/c\"\nparent-pin = {pin}\n"),
                "has no parent",
            ),
            (format!("{WEB}parent-pin = {pin}\n"), "for a key of a TPM"),
            (format!("{WEB}owner-pin = {pin}\n"), "for a key of a TPM"),
            (
                format!("{WEB}tpm = {{ tcti = \"device:/dev/tpm0\" }}\n"),
                "for a key of a TPM",
            ),
            (
                format!("tpm = {{ tcti = \"swtpm:path=/run/tpm\" }}\n{file}"),
                "FILE:1: TCTI \"swtpm:path=/run/tpm\"",
            ),
            (format!("tpm = {{ device = \"x\" }}\n{file}"), "FILE:1: "),
            (format!("{file}pin = {{}}\n"), "one of"),
        ] {
            assert_refused(&text, expected);
        }
    }

    #[test]
    fn faults_of_pkcs11_keys_are_named() {
        for (text, expected) in [
            (WEB.replace("pkcs11:", "pkcs12:"), "FILE:3: key is none of"),
            (
                WEB.replace("object", "objekt"),
                "FILE:3: attribute \"objekt\"",
            ),
            (WEB.replace("object=web", "type=cert"), "identity \"web\""),
            (
                format!("{WEB}certificate = \"web.pem\"\n"),
                "FILE:4: \"web.pem\" is not an absolute path",
            ),
            (
                format!("{WEB}certificate = \"pkcs11:token=other\"\n"),
                "same token",
            ),
        ] {
            assert_refused(&text, expected);
        }
    }
}
