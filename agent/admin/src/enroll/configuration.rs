//! The identity in the agent's configuration: its text, and its place behind everything that is there.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use token::PinSource;
use token::link::{OpenTpmKey, TpmKeySource};

use super::EnrollArguments;
use crate::failure::Failure;
use crate::key_choice::absolute;
use crate::report::toml_string;
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
    Present,
    /// Nothing: it would lack the PIN.
    LacksPin,
}

/// Of a new configuration: there is no secret in it.
pub(super) const MODE: u32 = 0o644;

/// The `[[identity]]`.
pub(super) fn block(
    arguments: &EnrollArguments,
    place: &KeyPlace,
    certificate: &Path,
) -> Result<String, Failure> {
    let mut lines = vec![
        "[[identity]]".to_owned(),
        format!("name = {}", toml_string(&arguments.name.to_string())),
    ];
    lines.extend(key_lines(place, &arguments.key.default_module())?);
    lines.push(format!("certificate = {}", path(certificate)?));
    if let (Some(command), true) = (
        &arguments.issue,
        arguments.renew || arguments.renew_before.is_some(),
    ) {
        let before = arguments.renew_before.as_ref();
        let before = before.map(|before| format!(", before = {}", toml_string(before)));
        lines.push(format!(
            "renew = {{ command = {}{} }}",
            toml_string(command),
            before.unwrap_or_default()
        ));
    }
    if !arguments.endpoint.is_empty() {
        lines.push(list("endpoints", &arguments.endpoint));
    }
    if !(arguments.allow_user.is_empty() && arguments.allow_group.is_empty()) {
        lines.push("[[identity.allow]]".to_owned());
        lines.push(list("users", &arguments.allow_user));
        lines.push(list("groups", &arguments.allow_group));
    }
    Ok(lines.join("\n") + "\n")
}

/// The PKCS#11 module that the configuration names for all identities; `None` where it names none, or is not there.
pub(super) fn default_module(config: &Path) -> Option<PathBuf> {
    let text = fs::read_to_string(config).ok()?;
    let table: toml::Table = toml::from_str(&text).ok()?; // a fault in it is told later
    Some(PathBuf::from(table.get("pkcs11-module")?.as_str()?))
}

/// The module is named where it is another one than `default`.
fn key_lines(place: &KeyPlace, default: &Path) -> Result<Vec<String>, Failure> {
    let mut lines = Vec::new();
    match place {
        KeyPlace::Pkcs11 { module, uri, .. } => {
            let mut uri = uri.clone();
            if module != default {
                if !module.is_absolute() {
                    return Err(Failure::usage(format!(
                        "--module {}: name the module by its absolute path, as the configuration takes it",
                        module.display()
                    )));
                }
                uri.module_path = Some(module.clone());
            }
            lines.push(format!("key = {}", toml_string(&uri.to_string())));
        }
        KeyPlace::Tpm { tcti, key } => {
            lines.push(match &key.source {
                TpmKeySource::File(file) => format!("key = {}", path(file)?),
                handle => format!("key = {}", toml_string(&handle.to_string())),
            });
            lines.push(format!(
                "tpm = {{ tcti = {} }}",
                toml_string(&tcti.to_string())
            ));
            let OpenTpmKey {
                parent_pin,
                owner_pin,
                ..
            } = key;
            lines.extend(pin_line("parent-pin", parent_pin.as_ref())?);
            lines.extend(pin_line("owner-pin", owner_pin.as_ref())?);
        }
    }
    lines.extend(pin_line("pin", place.pin())?);
    Ok(lines)
}

fn pin_line(name: &str, pin: Option<&PinSource>) -> Result<Option<String>, Failure> {
    Ok(match pin {
        None => None,
        Some(PinSource::File(file)) => {
            Some(format!("{name} = {{ file = {} }}", path(&absolute(file)?)?))
        }
        Some(PinSource::Credential(credential)) => Some(format!(
            "{name} = {{ credential = {} }}",
            toml_string(credential)
        )),
        Some(PinSource::Terminal(_) | PinSource::AskPassword(_) | PinSource::Value(_)) => Some(
            format!("# {name} = {{ file = \"/etc/roleseal-pins/NAME\" }}"),
        ),
    })
}

fn path(path: &Path) -> Result<String, Failure> {
    let text = path.to_str().ok_or_else(|| {
        Failure::usage(format!(
            "{path:?} is no text (UTF-8), and so cannot be named in the configuration"
        ))
    })?;
    Ok(toml_string(text))
}

/// Whether the file can be put there at the end of it all.
fn check_writable(config: &Path) -> Result<(), Failure> {
    let target = target(config);
    let directory = target.parent().unwrap_or(Path::new("/"));
    let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    rustix::fs::access(directory, access).map_err(|error| {
        Failure::failed(format!(
            "the configuration {} cannot be written: {}: {error}: make this directory, run this as who may \
             write there, or name another --config",
            config.display(),
            directory.display()
        ))
    })
}

/// Numbers are users' and groups' numbers.
fn list(name: &str, values: &[String]) -> String {
    let value = |value: &String| match value.parse::<u32>() {
        Ok(number) => number.to_string(),
        Err(_) => toml_string(value),
    };
    let values: Vec<String> = values.iter().map(value).collect();
    format!("{name} = [{}]", values.join(", "))
}

/// What to do with the configuration, and the socket that it names. With the identity it must be without fault.
pub(super) fn plan(
    config: &Path,
    name: &str,
    place: &KeyPlace,
    certificate: &Path,
    block: &str,
) -> Result<(Edit, PathBuf), Failure> {
    let old = read(config)?;
    let parse = |text: &str| Config::parse(config, text, &SystemUsers);
    if let Ok(parsed) = parse(&old)
        && let Some(identity) = parsed.identities.iter().find(|one| one.name == name)
    {
        let leaf = LeafSource::File(certificate.to_owned());
        return match identity.key.to_string() == place.to_string()
            && identity.certificate.leaf == leaf
        {
            true => Ok((Edit::Present, parsed.socket)),
            false => Err(Failure::failed(format!(
                "{} has an identity {name:?} with another key or certificate: take another name, or remove \
                 that one",
                config.display()
            ))),
        };
    }
    let text = behind(&old, block);
    let parsed = parse(&text).map_err(|error| {
        Failure::failed(format!(
            "with the new identity, the configuration has a fault: {error}"
        ))
    })?;
    let asks = |pin: &PinSource| matches!(pin, PinSource::Terminal(_) | PinSource::AskPassword(_));
    match place.pin().is_some_and(asks) {
        true => Ok((Edit::LacksPin, parsed.socket)),
        false => {
            check_writable(config)?;
            Ok((Edit::Add(text), parsed.socket))
        }
    }
}

fn behind(old: &str, block: &str) -> String {
    match old {
        "" => block.to_owned(),
        old if old.ends_with('\n') => format!("{old}\n{block}"),
        old => format!("{old}\n\n{block}"),
    }
}

fn read(config: &Path) -> Result<String, Failure> {
    match fs::read_to_string(config) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        result => result
            .map_err(|error| Failure::failed(format!("cannot read {}: {error}", config.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: &str = "[[identity]]\nname = \"web\"\nkey = \"pkcs11:token=lab;object=web?module-path=/m.so\"\ncertificate = \"/v/web.pem\"\n";

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
        let lines = key_lines(&place, Path::new("/m.so")).unwrap().join("\n");
        assert!(lines.contains("\n# pin = { file = "), "{lines}");
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("agent.toml");
        let (edit, _) = plan(&config, "web", &place, Path::new("/v/web.pem"), BLOCK).unwrap();
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
            BLOCK,
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
        assert_eq!(planned(BLOCK), Ok(Edit::Present));
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
            BLOCK,
        );
        let error = error.unwrap_err().to_string();
        assert!(error.contains("absent: No such file"), "{error}");
        let name = std::os::unix::ffi::OsStrExt::from_bytes(b"/v/\xff.pem");
        let name: &std::ffi::OsStr = name;
        assert!(matches!(path(Path::new(name)), Err(Failure::Usage(_))));
        assert_eq!(
            path(Path::new("/v/a b\"\n.pem")).unwrap(),
            "\"/v/a b\\\"\\n.pem\""
        );
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for (old, expected) in [
            (
                BLOCK.replace("object=web", "object=other"),
                "another key or certificate",
            ),
            (BLOCK.replace("/v/", "/w/"), "another key or certificate"),
            ("identity = []\n".to_owned(), "has a fault"),
            ("[[identity]".to_owned(), "agent.toml:1"),
        ] {
            let error = planned(&old).unwrap_err();
            assert!(error.contains(expected), "{old}: {error}");
        }
    }
}
