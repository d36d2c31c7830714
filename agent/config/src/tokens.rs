//! The tokens that the identities' keys are on, each once.

use serde::Deserialize;
use token::{PinSource, Pkcs11Token, Tcti};

use crate::value::Text;

/// One token, which one token program serves.
#[derive(Debug)]
pub struct TokenConfig {
    /// Which one.
    pub kind: TokenKind,
    /// Its identities, as indices into [`Config::identities`](super::Config::identities).
    pub identities: Vec<usize>,
}

/// Which token.
#[derive(Debug, Clone)]
pub enum TokenKind {
    /// Behind a PKCS#11 module.
    Pkcs11(Pkcs11Token),
    /// A TPM.
    Tpm(Tcti),
}

impl TokenKind {
    /// Where the token's own PIN comes from.
    pub fn pin(&self) -> Option<&PinSource> {
        match self {
            TokenKind::Pkcs11(token) => token.pin.as_ref(),
            TokenKind::Tpm(_) => None,
        }
    }
}

/// Every module that p11-kit is configured with, as one; found by the dynamic linker.
pub const DEFAULT_MODULE: &str = "p11-kit-proxy.so";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TpmTable {
    pub(crate) tcti: Text<Tcti>,
}

#[derive(Deserialize)]
#[serde(try_from = "i64")]
pub(crate) struct Sessions(pub(crate) usize);

impl Default for Sessions {
    fn default() -> Sessions {
        Sessions(4)
    }
}

impl TryFrom<i64> for Sessions {
    type Error = String;

    fn try_from(number: i64) -> Result<Sessions, String> {
        match usize::try_from(number) {
            Ok(number @ 1..=64) => Ok(Sessions(number)),
            _ => Err("sessions is a number from 1 to 64".to_owned()),
        }
    }
}

impl TokenKind {
    pub(crate) fn is_same(&self, other: &TokenKind) -> bool {
        match (self, other) {
            (TokenKind::Pkcs11(one), TokenKind::Pkcs11(other)) => one.is_named_as(other),
            (TokenKind::Tpm(one), TokenKind::Tpm(other)) => one == other,
            _ => false,
        }
    }

    /// Whether one token could be meant by both, under two names.
    pub(crate) fn may_be_named_otherwise_by(&self, other: &TokenKind) -> bool {
        match (self, other) {
            (TokenKind::Pkcs11(one), TokenKind::Pkcs11(other)) => {
                one.overlaps(other) && !one.is_named_as(other)
            }
            _ => false,
        }
    }

    /// Takes in what another identity says of the same token.
    pub(crate) fn share(&mut self, other: &TokenKind) -> Result<(), &'static str> {
        let (TokenKind::Pkcs11(own), TokenKind::Pkcs11(other)) = (self, other) else {
            return Ok(());
        };
        match (&own.pin, &other.pin) {
            (Some(one), Some(other)) if one != other => {
                return Err(
                    "another identity gives the same token another PIN; a token has one user PIN",
                );
            }
            (None, Some(pin)) => own.pin = Some(pin.clone()),
            _ => {}
        }
        own.sessions = own.sessions.max(other.sessions);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KeyConfig;
    use crate::certificate::LeafSource;
    use crate::tests::{WEB, assert_refused, load, pkcs11};

    #[test]
    fn identities_of_one_token_share_it() {
        let text = format!(
            "{WEB}sessions = 2\n{}pin = {{ file = \"/etc/pin\" }}\nsessions = 8\n",
            WEB.replace("web", "batch")
        );
        let config = load(&text).unwrap();
        let [token] = &config.tokens[..] else {
            panic!()
        };
        assert_eq!(token.identities, [0, 1]);
        assert_eq!(pkcs11(token).sessions, 8);
        assert_eq!(pkcs11(token).pin, Some(PinSource::File("/etc/pin".into())));
    }

    #[test]
    fn keys_of_a_tpm_share_its_program() {
        let config = load(
            r#"
            tpm = { tcti = "device:/dev/tpm0" }
            [[identity]]
            name = "web"
            key = "/etc/roleseal/web.tss"
            pin = { credential = "web" }
            parent-pin = { file = "/etc/parent" }
            owner-pin = { file = "/etc/owner" }
            [[identity]]
            name = "batch"
            key = "handle:0x81000101"
            certificate = "/etc/batch.pem"
            [[identity]]
            name = "lab"
            key = "/etc/roleseal/lab.tss"
            certificate = "/etc/lab.pem"
            tpm = { tcti = "swtpm:port=4000" }
            "#,
        )
        .unwrap();
        let [web, batch, lab] = &config.identities[..] else {
            panic!()
        };
        let KeyConfig::Tpm(key) = &web.key else {
            panic!()
        };
        assert_eq!(key.pin, Some(PinSource::Credential("web".into())));
        assert_eq!(key.parent_pin, Some(PinSource::File("/etc/parent".into())));
        assert_eq!(key.owner_pin, Some(PinSource::File("/etc/owner".into())));
        assert_eq!(config.pins().count(), 3);
        let in_key_file = LeafSource::File("/etc/roleseal/web.tss".into());
        assert_eq!(web.certificate.leaf, in_key_file);
        assert_eq!(batch.key.to_string(), "handle:0x81000101");
        assert_eq!(lab.key.to_string(), "/etc/roleseal/lab.tss");
        let tokens: Vec<_> = config
            .tokens
            .iter()
            .map(|token| match &token.kind {
                TokenKind::Tpm(tcti) => (tcti.to_string(), &token.identities[..]),
                other => panic!("{other:?}"),
            })
            .collect();
        let [first, second] = &tokens[..] else {
            panic!()
        };
        assert_eq!(*first, ("device:/dev/tpm0".to_owned(), &[0, 1][..]));
        assert_eq!(second.0, "swtpm:host=localhost,port=4000");
    }

    #[test]
    fn the_kernels_resource_manager_is_the_default() {
        let config = load("[[identity]]\nname = \"web\"\nkey = \"/etc/web.tss\"\n").unwrap();
        assert!(matches!(&config.tokens[0].kind, TokenKind::Tpm(tcti) if *tcti == Tcti::default()));
    }

    #[test]
    fn one_token_under_two_names_is_refused() {
        let other = WEB.replace("=web", "=b").replace("\"web\"", "\"b\"");
        for token in [
            "token=lab;serial=7;",
            "serial=7;",
            "",
            "slot-id=1;token=lab;",
        ] {
            let text = format!("{WEB}{}", other.replace("token=lab;", token));
            assert_refused(&text, "same token");
        }
        let text = format!("{WEB}{}", other.replace("token=lab;", "token=other;"));
        assert_eq!(load(&text).unwrap().tokens.len(), 2);
    }

    #[test]
    fn links_to_one_module_are_one_module() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        std::fs::write(path("module.so"), "").unwrap();
        std::os::unix::fs::symlink("module.so", path("link.so")).unwrap();
        std::fs::hard_link(path("module.so"), path("hard.so")).unwrap();
        std::fs::copy(path("module.so"), path("copy.so")).unwrap();
        let identity = |number: usize, token: &str, module: &str, pin: &str| {
            format!(
                "[[identity]]\nname = \"i{number}\"\nkey = \"pkcs11:{token};object=web?module-path={}\"\n\
                 pin = {{ file = \"{pin}\" }}\n",
                path(module)
            )
        };
        let first = identity(0, "token=lab", "module.so", "/pin");
        for (module, tokens) in [("link.so", 1), ("hard.so", 1), ("copy.so", 2)] {
            let text = format!("{first}{}", identity(1, "token=lab", module, "/pin"));
            assert_eq!(load(&text).unwrap().tokens.len(), tokens, "{module}");
        }
        let other_name = identity(1, "serial=1", "link.so", "/pin");
        assert_refused(&format!("{first}{other_name}"), "same token");
        let other_pin = identity(1, "token=lab", "link.so", "/other");
        assert_refused(&format!("{first}{other_pin}"), "another PIN");
    }

    #[test]
    fn a_token_has_one_pin_and_some_sessions() {
        let two_pins = format!(
            "{WEB}pin = {{ file = \"/a\" }}\n{}pin = {{ file = \"/b\" }}\n",
            WEB.replace("web", "b")
        );
        for (text, expected) in [
            (two_pins, "another PIN"),
            (format!("{WEB}sessions = 0\n"), "sessions"),
            (format!("{WEB}sessions = 65\n"), "sessions"),
        ] {
            assert_refused(&text, expected);
        }
    }
}
