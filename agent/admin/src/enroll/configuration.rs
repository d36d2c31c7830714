//! The identity in the agent's configuration: whether it is there, and whether it can be added.

use std::fmt;
use std::path::{Path, PathBuf};

use files::trust::{self, Untrusted};
use token::PinSource;
use toml_edit::Table;

use super::document::{self, EditError};
use crate::failure::Failure;
use crate::input::read_text;
use crate::owner::agents_user;
use crate::token_key::KeyPlace;
use config::Config;
use config::certificate::LeafSource;
use config::renewal::target;
use config::user_database::SystemUsers;

/// What happens to the configuration.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Edit {
    /// The whole text, with the identity behind what is there.
    Add(String),
    /// It has the identity.
    RenewalInput,
    /// Nothing: it would lack the PIN.
    LacksPin,
}

/// Of a new configuration: there is no secret in it.
pub(super) const MODE: u32 = 0o644;

/// The PKCS#11 module that the configuration names for all identities; `None` where it names none, or is not there.
pub(super) fn default_module(config: &Path) -> Option<PathBuf> {
    document::default_module(&read(config).ok()?)
}

/// Whether the file can be put there at the end of it all.
fn check_writable(config: &Path) -> Result<(), Failure> {
    let target = target(config);
    let directory = target.parent().unwrap_or(Path::new("/"));
    let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    rustix::fs::access(directory, access).map_err(|error| {
        Failure::failed(format!(
            "cannot write configuration {}: {}: {error}",
            config.display(),
            directory.display()
        ))
        .hint(
            "make this directory, run this as a user who may write there, or name another --config",
        )
    })
}

/// What to do with the configuration, and the socket that it names. With the identity it must be without fault.
pub(super) fn plan(
    config: &Path,
    name: &str,
    place: &KeyPlace,
    certificate: &Path,
    identity: &Table,
) -> Result<(Edit, PathBuf), Failure> {
    let old = read(config)?;
    let parse = |text: &str| Config::parse(config, text, &SystemUsers);
    if let Ok(parsed) = parse(&old)
        && let Some(present) = parsed.identities.iter().find(|one| one.name == name)
    {
        let leaf = LeafSource::File(certificate.to_owned());
        return match present.key.to_string() == place.to_string()
            && present.certificate.leaf == leaf
        {
            true => Ok((Edit::RenewalInput, parsed.socket)),
            false => Err(Failure::failed(format!(
                "cannot add identity {name} to {}: it exists, with another key or certificate",
                config.display()
            ))
            .hint("take another name, or remove that identity")),
        };
    }
    let fault = |at: &Path, error: &dyn fmt::Display| {
        Failure::failed(format!(
            "cannot add identity {name} to {}: {error}",
            at.display()
        ))
    };
    let text =
        document::add(&old, identity.clone()).map_err(|error| match (&error, parse(&old)) {
            (EditError::Syntax { .. }, Err(error)) => fault(config, &error), // with file and line
            _ => fault(config, &error),
        })?;
    let parsed = parse(&text).map_err(|error| fault(config, &error))?;
    let asks = |pin: &PinSource| matches!(pin, PinSource::Terminal(_) | PinSource::AskPassword(_));
    match place.pin().is_some_and(asks) {
        true => Ok((Edit::LacksPin, parsed.socket)),
        false => {
            check_writable(config)?;
            Ok((Edit::Add(text), parsed.socket))
        }
    }
}

/// It may name a module: nobody else may be able to write it.
fn read(config: &Path) -> Result<String, Failure> {
    if let Ok(false) = config.try_exists() {
        return Ok(String::new());
    }
    match trust::open_of(config, agents_user()) {
        Ok(_) | Err(Untrusted::Io { .. }) => read_text(config),
        Err(untrusted) => {
            let failure = Failure::failed(format!("cannot use {}: {untrusted}", config.display()));
            Err(failure.hint(untrusted.remedy().unwrap_or_default()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const BLOCK: &str = "[[identity]]\nname = \"web\"\nkey = \"pkcs11:token=lab;object=web?module-path=/m.so\"\ncertificate = \"/v/web.pem\"\n";

    fn web() -> Table {
        let document: toml_edit::DocumentMut = BLOCK.parse().unwrap();
        let identities = document["identity"].as_array_of_tables();
        identities.unwrap().get(0).unwrap().clone()
    }

    fn place(object: &str) -> KeyPlace {
        KeyPlace::Pkcs11 {
            module: "/m.so".into(),
            uri: format!("pkcs11:token=lab;object={object}").parse().unwrap(),
            pin: None,
            user: None,
        }
    }

    /// The agent has nobody to ask.
    #[test]
    fn without_a_source_of_the_pin_nothing_is_written() {
        let KeyPlace::Pkcs11 { module, uri, .. } = place("web") else {
            panic!()
        };
        let pin = Some(PinSource::Terminal(token::Question {
            text: "PIN".to_owned(),
            twice: false,
        }));
        let user = None;
        let place = KeyPlace::Pkcs11 {
            module,
            uri,
            pin,
            user,
        };
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("agent.toml");
        let (edit, _) = plan(&config, "web", &place, Path::new("/v/web.pem"), &web()).unwrap();
        assert_eq!(edit, Edit::LacksPin);
    }

    fn planned(old: &str) -> Result<Edit, String> {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("agent.toml");
        if !old.is_empty() {
            fs::write(&config, old).unwrap();
        }
        plan(
            &config,
            "web",
            &place("web"),
            Path::new("/v/web.pem"),
            &web(),
        )
        .map(|(edit, _)| edit)
        .map_err(|failure| failure.to_string())
    }

    #[test]
    fn what_is_there_stays_as_it_is() {
        let other = BLOCK.replace("web", "batch");
        for (old, expected) in [
            (String::new(), BLOCK.to_owned()),
            ("# mine\n".to_owned(), format!("# mine\n\n{BLOCK}")),
            (
                format!("{other}  # end"),
                format!("{other}  # end\n\n{BLOCK}"),
            ),
            (
                format!("{other}[hardening]\n"),
                format!("{other}[hardening]\n\n{BLOCK}"),
            ),
        ] {
            assert_eq!(planned(&old), Ok(Edit::Add(expected)));
        }
        assert_eq!(planned(BLOCK), Ok(Edit::RenewalInput));
    }

    #[test]
    fn what_could_not_be_written_is_refused_before() {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("absent/agent.toml");
        let error = plan(
            &config,
            "web",
            &place("web"),
            Path::new("/v/web.pem"),
            &web(),
        );
        let error = error.unwrap_err().to_string();
        assert!(error.contains("absent: No such file"), "{error}");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for (old, expected) in [
            (
                BLOCK.replace("object=web", "object=other"),
                "another key or certificate",
            ),
            (BLOCK.replace("/v/", "/w/"), "another key or certificate"),
            ("identity = {}\n".to_owned(), "cannot add"),
            ("[[identity]".to_owned(), "agent.toml:1"),
            ("unknown = 1\n".to_owned(), "agent.toml"),
            (
                BLOCK.replace("web", "batch").replace("/v/", ""),
                "agent.toml",
            ),
        ] {
            let error = planned(&old).unwrap_err();
            assert!(error.contains(expected), "{old}: {error}");
        }
    }
}
