//! One profile in the text of a credentials file. Whatever is not its credentials stays as it is, byte for
//! byte.

use std::fmt;
use std::str::FromStr;

use client::credentials::Credentials;
use jiff::Timestamp;
use secrecy::ExposeSecret;
use thiserror::Error;

use super::ini::{Entry, Ini, IniFault, Section};

/// The name of a profile, as the AWS CLI accepts it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProfileName(String);

/// Far longer than any that a person would type.
const NAME_LIMIT: usize = 128;

impl FromStr for ProfileName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<ProfileName, &'static str> {
        let plain = |c: char| c.is_alphanumeric() || " _-/.%@:+".contains(c);
        if text == "DEFAULT" {
            return Err("[DEFAULT] would apply to every profile of the AWS CLI: it is \"default\"");
        }
        if text.is_empty() || text.len() > NAME_LIMIT || text.trim() != text {
            return Err("a profile's name has 1 to 128 bytes, and no space around it");
        }
        match text.chars().all(plain) {
            true => Ok(ProfileName(text.to_owned())),
            false => Err("a profile's name has letters, digits, spaces and any of _-/.%@:+"),
        }
    }
}

impl ProfileName {
    /// Whether every AWS tool reads such a profile: the SDKs for Go and JavaScript take the word before a space for
    /// the kind of the section.
    pub(crate) fn is_read_by_all(&self) -> bool {
        !self.0.contains(' ')
    }
}

impl fmt::Display for ProfileName {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a profile is left as it is.
#[derive(Debug, Error)]
pub(crate) enum ProfileFault {
    #[error("{0}")]
    Malformed(#[from] IniFault),
    #[error(
        "[{profile}], line {line}, holds long-lived keys: they have no session token, and would be lost"
    )]
    LongLived { profile: ProfileName, line: usize },
    #[error("[{profile}], line {line}, holds keys that roleseal has not written")]
    Foreign { profile: ProfileName, line: usize },
    #[error("the credentials hold a character that such a file cannot")]
    Unwritable,
    #[error("[{0}] cannot be written without a change to something else in the file")]
    Entangled(ProfileName),
}

impl ProfileFault {
    pub(super) fn hint(&self) -> Option<String> {
        let hint = match self {
            ProfileFault::Malformed(_) => {
                "correct the line: AWS tools read it differently, and roleseal left the file unchanged"
            }
            ProfileFault::LongLived { .. } | ProfileFault::Foreign { .. } => {
                "use another --profile, or overwrite the keys with --force"
            }
            ProfileFault::Unwritable | ProfileFault::Entangled(_) => return None,
        };
        Some(hint.to_owned())
    }
}

const ACCESS_KEY_ID: &str = "aws_access_key_id";
const SECRET_ACCESS_KEY: &str = "aws_secret_access_key";
const SESSION_TOKEN: &str = "aws_session_token";
/// Its old name; where it is there, botocore prefers it.
const SECURITY_TOKEN: &str = "aws_security_token";
/// No SDK reads it; saml2aws writes it too, and prompts such as starship show it.
const EXPIRES: &str = "x_security_token_expires";
/// The access key that roleseal wrote: while it is the one in the profile, the keys are its own. Not in a
/// comment, as tools that rewrite the file lose those.
const WRITTEN: &str = "x_roleseal_access_key_id";

const CREDENTIALS: [&str; 4] = [
    ACCESS_KEY_ID,
    SECRET_ACCESS_KEY,
    SESSION_TOKEN,
    SECURITY_TOKEN,
];

/// The lines that are replaced, or go.
fn of_credentials(entry: &Entry) -> bool {
    CREDENTIALS.contains(&entry.key.as_str()) || [EXPIRES, WRITTEN].contains(&entry.key.as_str())
}

/// Whether the profile may be written.
pub(super) fn vet(text: &str, profile: &ProfileName, force: bool) -> Result<(), ProfileFault> {
    let ini = Ini::read(text)?;
    let Some(section) = ini.section(&profile.0)? else {
        return Ok(());
    };
    let Some(entry) = section
        .entries
        .iter()
        .find(|entry| CREDENTIALS.contains(&entry.key.as_str()))
    else {
        return Ok(());
    };
    if force || ours(section) {
        return Ok(());
    }
    let (profile, line) = (profile.clone(), entry.line);
    match [SESSION_TOKEN, SECURITY_TOKEN]
        .iter()
        .any(|key| value(section, key).is_some())
    {
        true => Err(ProfileFault::Foreign { profile, line }),
        false => Err(ProfileFault::LongLived { profile, line }),
    }
}

/// The text with the credentials in the profile.
pub(super) fn put(
    text: &str,
    profile: &ProfileName,
    credentials: &Credentials,
) -> Result<String, ProfileFault> {
    let expires = credentials.expiration.to_string();
    let entries = [
        (ACCESS_KEY_ID, credentials.access_key_id.as_str()),
        (
            SECRET_ACCESS_KEY,
            credentials.secret_access_key.expose_secret(),
        ),
        (SESSION_TOKEN, credentials.session_token.expose_secret()),
        (EXPIRES, expires.as_str()),
        (WRITTEN, credentials.access_key_id.as_str()),
    ];
    let writable = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
    if !entries.iter().all(|(_, value)| writable(value)) {
        return Err(ProfileFault::Unwritable);
    }
    replace(text, profile, &entries)
}

/// The text without the profile's credentials, if roleseal has written them and they end before `end`.
pub(super) fn withdraw(
    text: &str,
    profile: &ProfileName,
    end: Timestamp,
) -> Result<Option<String>, ProfileFault> {
    let ini = Ini::read(text)?;
    let Some(section) = ini.section(&profile.0)? else {
        return Ok(None);
    };
    let ended = value(section, EXPIRES)
        .and_then(|text| text.parse().ok())
        .is_some_and(|expires: Timestamp| expires <= end);
    match ended && ours(section) {
        true => replace(text, profile, &[]).map(Some),
        false => Ok(None),
    }
}

fn ours(section: &Section) -> bool {
    value(section, WRITTEN).is_some()
        && value(section, WRITTEN) == value(section, ACCESS_KEY_ID)
        && value(section, SESSION_TOKEN).is_some()
        && value(section, SECURITY_TOKEN).is_none()
}

fn value<'s>(section: &'s Section, key: &str) -> Option<&'s str> {
    let entry = section.entries.iter().find(|entry| entry.key == key)?;
    Some(&entry.value)
}

/// The new entries in the place of the old ones; in a new section at the end where there is none.
fn replace(
    text: &str,
    profile: &ProfileName,
    entries: &[(&str, &str)],
) -> Result<String, ProfileFault> {
    let ini = Ini::read(text)?;
    let edited = match ini.section(&profile.0)? {
        Some(section) => within(text, &ini, section, entries)?,
        None => at_the_end(text, &ini, profile, entries),
    };
    // How a line is read depends on those before it: nothing else may have changed its meaning.
    let after = Ini::read(&edited)?;
    match same_but(&ini, &after, &profile.0, entries) {
        true => Ok(edited),
        false => Err(ProfileFault::Entangled(profile.clone())),
    }
}

fn within(
    text: &str,
    ini: &Ini,
    section: &Section,
    entries: &[(&str, &str)],
) -> Result<String, IniFault> {
    let old: Vec<&Entry> = section
        .entries
        .iter()
        .filter(|e| of_credentials(e))
        .collect();
    if let Some(continued) = old.iter().find(|entry| entry.value.contains('\n')) {
        return Err(IniFault {
            line: continued.line,
            what: "has a credential that goes on in an indented line: no tool could use it",
        });
    }
    let at = old.first().map_or(section.body, |entry| entry.span.start);
    // Deeper lines after ours would be read as a part of our values.
    let indent = old.first().copied().or(section.entries.first());
    let indent = indent.map_or("", |entry| entry.indent);
    let mut edited = text.get(..at).unwrap_or_default().to_owned();
    end_line(&mut edited, ini.newline);
    edited.extend(lines(entries, indent, ini.newline));
    let mut from = at;
    for entry in old {
        edited.push_str(text.get(from..entry.span.start).unwrap_or_default());
        from = entry.span.end;
    }
    edited.push_str(text.get(from..).unwrap_or_default());
    Ok(edited)
}

fn at_the_end(text: &str, ini: &Ini, profile: &ProfileName, entries: &[(&str, &str)]) -> String {
    let mut edited = text.to_owned();
    end_line(&mut edited, ini.newline);
    if edited
        .lines()
        .last()
        .is_some_and(|line| !line.trim().is_empty())
    {
        edited.push_str(ini.newline);
    }
    edited.push_str(&format!("[{profile}]{}", ini.newline));
    edited.extend(lines(entries, "", ini.newline));
    edited
}

fn end_line(text: &mut String, newline: &str) {
    if !text.is_empty() && !text.ends_with('\n') {
        text.push_str(newline);
    }
}

fn lines<'e>(
    entries: &'e [(&str, &str)],
    indent: &'e str,
    newline: &'e str,
) -> impl Iterator<Item = String> + 'e {
    entries
        .iter()
        .map(move |(key, value)| format!("{indent}{key} = {value}{newline}"))
}

/// Whether both say the same, but that `after` has these credentials in the section of that name.
fn same_but(before: &Ini, after: &Ini, name: &str, entries: &[(&str, &str)]) -> bool {
    let others = |ini: &Ini| -> Vec<_> {
        let all = ini.sections.iter().flat_map(|section| {
            let of_profile = section.name == name;
            let kept = move |entry: &&Entry| !(of_profile && of_credentials(entry));
            let entries = section.entries.iter().filter(kept);
            entries.map(|entry| {
                (
                    section.name.to_owned(),
                    entry.key.clone(),
                    entry.value.clone(),
                )
            })
        });
        all.collect()
    };
    let named = |ini: &Ini| -> Vec<_> {
        let names = ini.sections.iter().map(|section| section.name.to_owned());
        names.filter(|other| other != name).collect()
    };
    let written = after.sections.iter().find(|section| section.name == name);
    let written: Vec<_> = written
        .into_iter()
        .flat_map(|section| &section.entries)
        .filter(|entry| of_credentials(entry))
        .map(|entry| (entry.key.as_str(), entry.value.as_str()))
        .collect();
    others(before) == others(after) && named(before) == named(after) && written == entries
}

#[cfg(test)]
mod tests;
