//! The `[[identity]]` that the arguments of `enroll` describe.

use std::path::{Path, PathBuf};

use token::PinSource;
use token::link::{OpenTpmKey, TpmKeySource};
use toml_edit::{Array, ArrayOfTables, InlineTable, Item, Table, Value, value};

use super::EnrollArguments;
use crate::failure::Failure;
use crate::key_choice::absolute;
use crate::token_key::KeyPlace;

/// The identity. Without a source of its PIN, a comment says how to name one.
pub(super) fn identity(
    arguments: &EnrollArguments,
    place: &KeyPlace,
    certificate: &Path,
) -> Result<Table, Failure> {
    let mut identity = Table::new();
    identity.insert("name", value(arguments.name.to_string()));
    insert_key(&mut identity, place, &arguments.key.default_module())?;
    identity.insert("certificate", value(text_of(certificate)?));
    comment_on_pins(&mut identity, place);
    if let (Some(command), true) = (
        &arguments.issue,
        arguments.renew || arguments.renew_before.is_some(),
    ) {
        let mut renew = InlineTable::from_iter([("command", command)]);
        if let Some(before) = &arguments.renew_before {
            renew.insert("before", before.into());
        }
        identity.insert("renew", value(renew));
    }
    if !arguments.endpoint.is_empty() {
        identity.insert("endpoints", value(list(&arguments.endpoint)));
    }
    if !(arguments.allow_user.is_empty() && arguments.allow_group.is_empty()) {
        let mut allow = Table::new();
        allow.decor_mut().set_prefix("");
        allow.insert("users", value(list(&arguments.allow_user)));
        allow.insert("groups", value(list(&arguments.allow_group)));
        let allow = ArrayOfTables::from_iter([allow]);
        identity.insert("allow", Item::ArrayOfTables(allow));
    }
    Ok(identity)
}

/// The module is named where it is another one than `default`.
fn insert_key(identity: &mut Table, place: &KeyPlace, default: &Path) -> Result<(), Failure> {
    match place {
        KeyPlace::Pkcs11 { module, uri, .. } => {
            let mut uri = uri.clone();
            if module != default {
                uri.module_path = Some(absolute_module(module)?);
            }
            identity.insert("key", value(uri.to_string()));
        }
        KeyPlace::Tpm { tcti, key } => {
            let source = match &key.source {
                TpmKeySource::File(file) => text_of(file)?,
                handle => handle.to_string(),
            };
            identity.insert("key", value(source));
            let tpm = InlineTable::from_iter([("tcti", tcti.to_string())]);
            identity.insert("tpm", value(tpm));
        }
    }
    for (name, pin) in pins(place) {
        if let Some(pin) = pin_table(pin)? {
            identity.insert(name, value(pin));
        }
    }
    Ok(())
}

fn absolute_module(module: &Path) -> Result<PathBuf, Failure> {
    match module.is_absolute() {
        true => Ok(module.to_owned()),
        false => Err(Failure::usage(format!(
            "--module {}: name the module by its absolute path, as the configuration takes it",
            module.display()
        ))),
    }
}

/// By the names of the configuration.
fn pins(place: &KeyPlace) -> impl Iterator<Item = (&'static str, &PinSource)> {
    let (parent, owner) = match place {
        KeyPlace::Pkcs11 { .. } => (None, None),
        KeyPlace::Tpm { key, .. } => {
            let OpenTpmKey {
                parent_pin,
                owner_pin,
                ..
            } = key;
            (parent_pin.as_ref(), owner_pin.as_ref())
        }
    };
    let pins = [
        ("parent-pin", parent),
        ("owner-pin", owner),
        ("pin", place.pin()),
    ];
    pins.into_iter()
        .filter_map(|(name, pin)| Some((name, pin?)))
}

/// `None` for a PIN that somebody types, or that must not stand there.
fn pin_table(pin: &PinSource) -> Result<Option<InlineTable>, Failure> {
    Ok(match pin {
        PinSource::File(file) => Some(InlineTable::from_iter([(
            "file",
            text_of(&absolute(file)?)?,
        )])),
        PinSource::Credential(name) => Some(InlineTable::from_iter([("credential", name)])),
        PinSource::Terminal(_) | PinSource::AskPassword(_) | PinSource::Value(_) => None,
    })
}

fn comment_on_pins(identity: &mut Table, place: &KeyPlace) {
    let missing = |(name, _): &(&'static str, _)| !identity.contains_key(name);
    let comments: String = pins(place)
        .filter(missing)
        .map(|(name, _)| format!("# {name} = {{ file = \"/etc/roleseal-pins/NAME\" }}\n"))
        .collect();
    if let Some(mut key) = identity.key_mut("certificate") {
        key.leaf_decor_mut().set_prefix(comments);
    }
}

fn text_of(path: &Path) -> Result<String, Failure> {
    let text = path.to_str().ok_or_else(|| {
        Failure::usage(format!(
            "cannot name {path:?} in the configuration: it is not UTF-8"
        ))
    })?;
    Ok(text.to_owned())
}

/// Numbers are users' and groups' numbers.
fn list(values: &[String]) -> Array {
    let value = |value: &String| match value.parse::<u32>() {
        Ok(number) => Value::from(i64::from(number)),
        Err(_) => Value::from(value),
    };
    values.iter().map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use crate::enroll::document;

    fn with_pin(pin: PinSource) -> String {
        let place = KeyPlace::Pkcs11 {
            module: "/m.so".into(),
            uri: "pkcs11:token=lab;object=web".parse().unwrap(),
            pin: Some(pin),
            user: None,
        };
        let mut identity = Table::new();
        insert_key(&mut identity, &place, Path::new("/other.so")).unwrap();
        identity.insert("certificate", value("/v/web.pem"));
        comment_on_pins(&mut identity, &place);
        document::render(&identity)
    }

    #[test]
    fn a_pin_without_a_source_is_a_comment() {
        let key = "[[identity]]\nkey = \"pkcs11:token=lab;object=web?module-path=/m.so\"\n";
        let question = token::Question {
            text: "PIN".to_owned(),
            twice: false,
        };
        for (pin, expected) in [
            (
                PinSource::File("/a b\"".into()),
                "pin = { file = '/a b\"' }\n",
            ),
            (
                PinSource::Credential("lab".to_owned()),
                "pin = { credential = \"lab\" }\n",
            ),
            (
                PinSource::Terminal(question),
                "# pin = { file = \"/etc/roleseal-pins/NAME\" }\n",
            ),
        ] {
            let expected = format!("{key}{expected}certificate = \"/v/web.pem\"\n");
            assert_eq!(with_pin(pin), expected);
        }
    }

    #[test]
    fn paths_are_text() {
        let path = Path::new(OsStr::from_bytes(b"/v/\xff.pem"));
        assert!(matches!(text_of(path), Err(Failure::Usage(_))));
    }
}
