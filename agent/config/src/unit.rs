//! The agent's systemd unit, as this host's files have it: as whom the agent runs, and what systemd passes to it.

use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use token::account::Account;

/// Its name.
pub const NAME: &str = "roleseal-agent.service";

/// The user that the packages make for it.
const USUAL_USER: &str = "roleseal";

/// What its `[Service]` says that matters here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unit {
    user: Option<String>,
    group: Option<String>,
    supplementary_groups: Vec<String>,
    credentials: Vec<Credential>,
    environment: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Credential {
    /// For `ImportCredential=`, a pattern.
    name: String,
    file: Option<PathBuf>,
}

/// What a unit has of a credential's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loaded {
    /// It is read from this file.
    From(PathBuf),
    /// It is in the unit itself, or wherever systemd looks for it.
    Otherwise,
    /// The unit does not name it.
    Not,
}

impl Unit {
    /// Asks `systemctl cat`, which reads the unit's file with its drop-ins. The error says why there is none.
    pub fn read() -> Result<Unit, String> {
        let output = Command::new("systemctl")
            .args(["--no-pager", "cat", NAME])
            .stdin(Stdio::null())
            .output()
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => "there is no systemctl on this host".to_owned(),
                _ => format!("systemctl: {error}"),
            })?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let first = said.lines().next().unwrap_or_default().trim();
            return Err(format!("systemctl cat {NAME}: {first}"));
        }
        Ok(Unit::parse(&String::from_utf8_lossy(&output.stdout)))
    }

    /// Lists grow with each assignment, and start anew with an empty one (systemd.unit(5)).
    fn parse(text: &str) -> Unit {
        let mut unit = Unit::default();
        let mut in_service = false;
        let text = text.replace("\\\n", " ");
        for line in text.lines().map(str::trim) {
            if line.starts_with('[') {
                in_service = line == "[Service]";
            }
            let Some((key, value)) = line.split_once('=').filter(|_| in_service) else {
                continue;
            };
            unit.assign(key.trim(), value.trim());
        }
        unit
    }

    fn assign(&mut self, key: &str, value: &str) {
        let words = value
            .split_whitespace()
            .map(|word| word.trim_matches('"').to_owned());
        match key {
            "User" => self.user = Some(value.to_owned()).filter(|user| !user.is_empty()),
            "Group" => self.group = Some(value.to_owned()).filter(|group| !group.is_empty()),
            "SupplementaryGroups" if value.is_empty() => self.supplementary_groups.clear(),
            "SupplementaryGroups" => self.supplementary_groups.extend(words),
            "Environment" if value.is_empty() => self.environment.clear(),
            "Environment" => self.environment.extend(words),
            "LoadCredential"
            | "LoadCredentialEncrypted"
            | "SetCredential"
            | "SetCredentialEncrypted"
            | "ImportCredential" => {
                let (name, rest) = value.split_once(':').unwrap_or((value, ""));
                if value.is_empty() {
                    self.credentials.clear();
                    return;
                }
                let from_file = key.starts_with("Load") && rest.starts_with('/');
                self.credentials.push(Credential {
                    name: name.to_owned(),
                    file: from_file.then(|| PathBuf::from(rest)),
                });
            }
            _ => {}
        }
    }

    /// Where the service gets this credential from.
    pub fn credential(&self, name: &str) -> Loaded {
        let fits = |credential: &&Credential| {
            let pattern = credential.name.split_once('*'); // of ImportCredential=
            credential.name == name || pattern.is_some_and(|(begin, _)| name.starts_with(begin))
        };
        match self.credentials.iter().find(fits) {
            Some(Credential {
                file: Some(file), ..
            }) => Loaded::From(file.clone()),
            Some(_) => Loaded::Otherwise,
            None => Loaded::Not,
        }
    }

    /// Files of credentials that are not there.
    pub fn missing_files(&self) -> Vec<PathBuf> {
        let files = self.credentials.iter().filter_map(|one| one.file.clone());
        files.filter(|file| !file.exists()).collect()
    }

    /// A variable of its environment.
    pub fn variable(&self, name: &str) -> Option<&str> {
        let mut set = self
            .environment
            .iter()
            .filter_map(|set| set.split_once('='));
        set.rfind(|(set, _)| *set == name).map(|(_, value)| value)
    }

    /// With the groups of the service, if it is this user's.
    fn complete(&self, account: Account) -> io::Result<Account> {
        let mut account = match &self.group {
            Some(group) => account.with_primary_group(group)?,
            None => account,
        };
        for group in &self.supplementary_groups {
            account = account.with_group(group)?;
        }
        Ok(account)
    }
}

/// The user that the agent runs as: the unit's, or the packages'; `None` where this host has no such user.
pub fn account(unit: Option<&Unit>) -> Result<Option<Account>, String> {
    let name = user_of(unit);
    let fault = |error: io::Error| format!("cannot look up the agent's user {name}: {error}");
    match (Account::named(name).map_err(fault)?, unit) {
        (Some(account), Some(unit)) => unit.complete(account).map(Some).map_err(fault),
        (account, _) => Ok(account),
    }
}

/// Its name, whether there is such a user or not.
pub fn user_of(unit: Option<&Unit>) -> &str {
    unit.and_then(|unit| unit.user.as_deref())
        .unwrap_or(USUAL_USER)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# /usr/lib/systemd/system/roleseal-agent.service
[Unit]
User=nobody-here
[Service]
User=roleseal
Group=roleseal
SupplementaryGroups=a \\
  b
LoadCredential=old:/etc/old
Environment=\"SOFTHSM2_CONF=/etc/a\" X=1

# /etc/systemd/system/roleseal-agent.service.d/tpm.conf
[Service]
User=seal
SupplementaryGroups=
SupplementaryGroups=tss
LoadCredential=
LoadCredentialEncrypted=lab:/etc/credstore.encrypted/lab
SetCredential=given:1234
LoadCredential=stored
ImportCredential=site.*
Environment=SOFTHSM2_CONF=/etc/b
[Install]
User=root
";

    #[test]
    fn drop_ins_change_what_the_unit_says() {
        let unit = Unit::parse(TEXT);
        assert_eq!(user_of(Some(&unit)), "seal");
        assert_eq!(unit.group.as_deref(), Some("roleseal"));
        assert_eq!(unit.supplementary_groups, ["tss"]);
        assert_eq!(unit.variable("SOFTHSM2_CONF"), Some("/etc/b"));
        let file = Loaded::From("/etc/credstore.encrypted/lab".into());
        for (name, loaded) in [
            ("lab", file),
            ("given", Loaded::Otherwise),
            ("stored", Loaded::Otherwise),
            ("site.pin", Loaded::Otherwise),
            ("old", Loaded::Not),
        ] {
            assert_eq!(unit.credential(name), loaded, "{name}");
        }
    }

    #[test]
    fn without_a_unit_it_is_the_packages_user() {
        assert_eq!(user_of(None), "roleseal");
        assert_eq!(
            user_of(Some(&Unit::parse("[Service]\nUser=\n"))),
            "roleseal"
        );
    }
}
