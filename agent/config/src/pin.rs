//! Where an identity's PINs and auth values come from.

use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, Error};
use token::PinSource;

use crate::value::AbsolutePath;

/// `{ file = "/path" }` or `{ credential = "NAME" }`.
pub(crate) struct PinTable(pub(crate) PinSource);

impl<'de> Deserialize<'de> for PinTable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<PinTable, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Members {
            file: Option<AbsolutePath>,
            credential: Option<String>,
        }
        // Through a value whose own errors are dropped: they repeat what was written, and somebody
        // will write the PIN itself here.
        let usage =
            "a PIN must be one of { file = \"/absolute/path\" } and { credential = \"NAME\" }";
        let value = toml::Value::deserialize(deserializer)?;
        if !value.is_table() {
            return Err(D::Error::custom(usage));
        }
        let file = value.get("file").and_then(toml::Value::as_str);
        if file.is_some_and(|path| !Path::new(path).is_absolute()) {
            return Err(D::Error::custom("pin.file is not an absolute path"));
        }
        match value.try_into() {
            Ok(Members {
                file: Some(AbsolutePath(path)),
                credential: None,
            }) => Ok(PinTable(PinSource::File(path))),
            Ok(Members {
                file: None,
                credential: Some(name),
            }) => match name.as_str() {
                "" | "." | ".." => Err(D::Error::custom("the credential has no name")),
                _ if name.contains('/') => {
                    Err(D::Error::custom("a credential is named, not a path"))
                }
                _ => Ok(PinTable(PinSource::Credential(name))),
            },
            _ => Err(D::Error::custom(usage)),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::tests::{WEB, assert_refused, load};

    #[test]
    fn faults_of_a_pin_are_named() {
        for (pin, expected) in [
            ("{ file = \"lab.pin\" }", "not an absolute path"),
            ("{ file = \"/a\", credential = \"b\" }", "one of"),
            ("{}", "one of"),
            ("{ credential = \"a/b\" }", "credential"),
        ] {
            assert_refused(&format!("{WEB}pin = {pin}\n"), expected);
        }
        let twice = WEB.replace("=web", "=web?pin-source=/b");
        assert_refused(
            &format!("{twice}pin = {{ file = \"/a\" }}\n"),
            "the key's URI and in pin",
        );
    }

    #[test]
    fn no_message_shows_a_pin() {
        for text in [
            format!("{WEB}pin = \"271828\"\n"),
            format!("{WEB}pin = 271828\n"),
            format!("{WEB}pin = {{ value = \"271828\" }}\n"),
            format!("{WEB}pin = {{ file = \"271828\" }}\n"),
            WEB.replace("=web\"", "=web?pin-value=271828&x\""),
            WEB.replace("=web\"", "=web?pin-value=271828\nx\""),
            WEB.replace("=web\"", "=web?pin-value=%zz271828\""),
        ] {
            let message = load(&text).unwrap_err();
            assert!(!message.contains("271828"), "{message}");
        }
    }
}
