//! `agent.toml` as a file: who may write and read it, and the lines of its faults.

use std::fs::Metadata;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use files::trust::{self, Untrusted};
use token::PinSource;
use zeroize::Zeroizing;

use super::Config;
use crate::fault::{ConfigError, Fault};
use crate::user_database::UserDatabase;

/// The largest configuration that is read, in bytes: some thousand identities.
const SIZE_LIMIT: u64 = 4 * 1024 * 1024;

impl Config {
    /// Reads and validates `path`; the users and groups in it are asked of `users`.
    pub fn load(path: &Path, users: &dyn UserDatabase) -> Result<Config, ConfigError> {
        Config::load_of(path, users, None)
    }

    /// The same of a file that may belong to this user, too: for root's commands, which run nothing that it names.
    pub fn load_of(
        path: &Path,
        users: &dyn UserDatabase,
        owner: Option<u32>,
    ) -> Result<Config, ConfigError> {
        let fault = |message| ConfigError::new(path, message);
        let (text, metadata) = read(path, owner).map_err(fault)?;
        let mode = metadata.mode() & 0o7777;
        let config = Config::parse(path, &text, users)?;
        let pin_inside = |pin: &PinSource| matches!(pin, PinSource::Value(_));
        if mode & 0o077 != 0 && config.pins().any(pin_inside) {
            return Err(fault(format!(
                "it holds a pin-value and has mode {mode:04o}, so that others can read the PIN: run \
                 `chmod 600 {}`, or use pin = {{ file = … }}",
                path.display()
            )));
        }
        Ok(config)
    }

    /// Validates the text of `path`.
    pub fn parse(path: &Path, text: &str, users: &dyn UserDatabase) -> Result<Config, ConfigError> {
        let document: super::Document = toml::from_str(text).map_err(|error| ConfigError {
            line: error.span().map(|span| line_of(text, span.start)),
            // Not the error's Display: it repeats the line, which may hold a PIN.
            ..ConfigError::new(path, error.message().to_owned())
        })?;
        document.validate(users).map_err(|fault| match fault {
            Fault::Invalid(message) => ConfigError::new(path, message),
            Fault::Lookup(message) => ConfigError {
                lookup_failed: true,
                ..ConfigError::new(path, message)
            },
        })
    }
}

/// The file's text and metadata. The text is wiped, since a `pin-value` may be in it.
fn read(path: &Path, owner: Option<u32>) -> Result<(Zeroizing<String>, Metadata), String> {
    let explain = |error: io::Error| format!("cannot read the configuration: {error}");
    // The file says which code is run with the PIN.
    let file = trust::open_of(path, owner).map_err(|untrusted| match untrusted {
        Untrusted::Io { error, .. } if error.kind() == ErrorKind::NotFound => format!(
            "{}: `roleseal-admin enroll --name NAME …` makes a key and writes it (enroll --help has examples), or \
             name another by --config",
            explain(error)
        ),
        Untrusted::Io { error, .. } => explain(error),
        untrusted => untrusted.explain(),
    })?;
    let metadata = file.metadata().map_err(explain)?;
    // Never reallocated: what it outgrows would stay behind.
    let length = metadata.len().min(SIZE_LIMIT) + 1;
    let capacity = usize::try_from(length).unwrap_or_default();
    let mut bytes = Zeroizing::new(Vec::with_capacity(capacity));
    files::read_to(file, SIZE_LIMIT, &mut bytes).map_err(explain)?;
    match String::from_utf8(std::mem::take(&mut *bytes)) {
        Ok(text) => Ok((Zeroizing::new(text), metadata)),
        Err(error) => {
            drop(Zeroizing::new(error.into_bytes()));
            Err(explain(io::Error::other("it is not UTF-8 text")))
        }
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text
        .bytes()
        .take(offset)
        .filter(|byte| *byte == b'\n')
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{WEB, load, load_with_mode, pkcs11};
    use token::Pin;

    #[test]
    fn a_file_that_others_can_write_is_refused() {
        for mode in [0o602, 0o622, 0o666] {
            let message = load_with_mode(WEB, mode).unwrap_err();
            assert!(message.contains("chmod go-w"), "{message}");
        }
    }

    #[test]
    fn a_pin_in_the_file_wants_a_private_file() {
        let text = WEB.replace("=web\"", "=web?pin-value=1234\"");
        let config = load(&text).unwrap();
        assert_eq!(
            pkcs11(&config.tokens[0]).pin,
            Some(PinSource::Value(Pin::from("1234".to_owned())))
        );
        let message = load_with_mode(&text, 0o640).unwrap_err();
        assert!(
            message.contains("0640") && message.contains("chmod 600"),
            "{message}"
        );
        assert!(load_with_mode(WEB, 0o644).is_ok());
    }
}
