//! What will be done, and where: known, and found without fault, before the first step.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::{Path, PathBuf};

use files::{Place, directory};
use nix::unistd::geteuid;
use rustix::fs::{Mode, mkdirat};
use token::PinSource;
use token::account::Account;
use toml_edit::Table;

use super::configuration::{self, Edit};
use super::{EnrollArguments, document, identity_table};
use crate::failure::Failure;
use crate::key_choice::absolute;
use crate::report::CERTIFICATES;
use crate::token_key::KeyPlace;

/// Where everything is.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) name: String,
    pub(super) place: KeyPlace,
    /// Beside the certificate, for renewals.
    pub(super) request: PathBuf,
    pub(super) certificate: PathBuf,
    pub(super) config: PathBuf,
    /// As the configuration has it.
    pub(super) identity: Table,
    pub(super) edit: Edit,
    /// The agent's socket.
    pub(super) socket: PathBuf,
    /// Whose the files are to be.
    pub(super) owner: Option<Account>,
    existing_key: bool,
    issue: Option<String>,
}

impl Plan {
    pub(super) fn new(arguments: &EnrollArguments) -> Result<Plan, Failure> {
        let name = arguments.name.to_string();
        let certificate = match &arguments.certificate {
            Some(path) => absolute(path)?,
            None => Path::new(CERTIFICATES).join(format!("{name}.pem")),
        };
        let request = certificate.with_extension("csr");
        if request == certificate {
            return Err(Failure::usage(
                "cannot use --certificate: it ends in .csr, as the CSR beside it does",
            )
            .hint("give it another extension, such as .pem"));
        }
        if certificate.is_symlink() {
            return Err(Failure::failed(format!(
                "cannot install a certificate at {}: it is a symbolic link",
                certificate.display()
            ))
            .hint("give --certificate the link's target"));
        }
        if certificate.exists() && !request.exists() {
            return Err(Failure::failed(format!(
                "cannot install a certificate at {}: the file exists, without the CSR of an earlier run",
                certificate.display()
            ))
            .hint("name another --certificate"));
        }
        if let Some(command) = &arguments.issue {
            check_command(command)?;
        }
        let owner = arguments.owner.account()?;
        let place = arguments.key.place(owner.as_ref())?;
        if let Some(owner) = &owner {
            check_pins(&place, owner)?;
        }
        if matches!(place.pin(), Some(PinSource::Value(_))) {
            return Err(Failure::usage(
                "cannot enroll with a pin-value: it would be in the configuration",
            )
            .hint("use --pin-file, or pin-source"));
        }
        let config = absolute(&arguments.config)?;
        let identity = identity_table::identity(arguments, &place, &certificate)?;
        let (edit, socket) = configuration::plan(&config, &name, &place, &certificate, &identity)?;
        Ok(Plan {
            name,
            place,
            request,
            certificate,
            config,
            identity,
            edit,
            socket,
            owner,
            existing_key: arguments.existing_key,
            issue: arguments.issue.clone(),
        })
    }

    /// Whether an earlier run came so far.
    pub(super) fn request_is_there(&self) -> bool {
        self.request.exists()
    }

    /// Of the certificate, one level: another one's parents are for whoever names it.
    pub(super) fn make_directory(&self) -> Result<(), Failure> {
        let directory = self.certificate.parent().unwrap_or(Path::new("/"));
        if directory.is_dir() {
            return Ok(());
        }
        let made = Place::find(directory).and_then(|place| {
            let mode = Mode::from_raw_mode(0o777); // and the umask
            let made = mkdirat(&place.directory, &place.name, mode);
            Ok(made.map_err(io::Error::from)?)
        });
        made.map_err(|error| {
            Failure::failed(format!("cannot make {}: {error}", directory.display()))
        })?;
        self.give(directory)
    }

    /// To the agent's user.
    pub(super) fn give(&self, path: &Path) -> Result<(), Failure> {
        let Some(owner) = &self.owner else {
            return Ok(());
        };
        give_away(path, owner.uid, owner.gid).map_err(|error| {
            let path = path.display();
            Failure::failed(format!("cannot give {path} to {}: {error}", owner.name))
        })
    }

    /// A key of a TPM may be in a file that only this user can read: as it was just made, or by an earlier run
    /// that did not come further.
    pub(super) fn give_key_file(&self) -> Result<(), Failure> {
        let KeyPlace::Tpm { key, .. } = &self.place else {
            return Ok(());
        };
        match key.file() {
            Some(path) if is_for_this_user_alone(path) => self.give(path),
            _ => Ok(()),
        }
    }
}

fn is_for_this_user_alone(path: &Path) -> bool {
    fs::symlink_metadata(path)
        .is_ok_and(|file| file.uid() == geteuid().as_raw() && file.mode() & 0o077 == 0)
}

/// In a directory of the agent's user, something else may have the name by now: what is elsewhere too, by a
/// link of either kind, stays whose it is.
fn give_away(path: &Path, user: u32, group: u32) -> io::Result<()> {
    let place = Place::find(path)?;
    if path.is_symlink() {
        return Err(io::Error::other("a symbolic link"));
    }
    let file = directory::open_file(&place.directory, &place.name)?;
    let metadata = file.metadata()?;
    let is_one_file = metadata.is_file() && metadata.nlink() == 1;
    if !is_one_file && !metadata.is_dir() {
        return Err(io::Error::other("not a regular file with one name"));
    }
    fchown(&file, Some(user), Some(group))
}

fn check_command(command: &str) -> Result<(), Failure> {
    config::command::check(command).map_err(|untrusted| {
        let failure = Failure::failed(format!("cannot use --issue: {untrusted}"));
        match untrusted.remedy() {
            Some(remedy) => failure.hint(remedy),
            None => failure,
        }
    })
}

/// PIN files are for the agent, which reads them as its own user.
fn check_pins(place: &KeyPlace, owner: &Account) -> Result<(), Failure> {
    for pin in place.pins() {
        if let PinSource::File(path) = pin
            && let Ok(false) = owner.may_read(path)
        {
            let (path, name) = (path.display(), &owner.name);
            return Err(Failure::failed(format!(
                "cannot use PIN file {path}: {name}, as whom the agent reads it, may not"
            ))
            .hint(format!(
                "sudo chown {name} {path}, and let {name} enter its directory; or use --pin-credential, with the \
                 file in the service's LoadCredential="
            )));
        }
    }
    Ok(())
}

/// What it would do.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (request, certificate) = (self.request.display(), self.certificate.display());
        if let Some(owner) = &self.owner {
            writeln!(f, "files: for {}, as whom SoftHSM's are made", owner.name)?;
        }
        if self.request_is_there() {
            writeln!(f, "key: {}: check that CSR {request} is for it", self.place)?;
        } else {
            let how = if self.existing_key {
                "use the existing key"
            } else {
                "make it"
            };
            writeln!(f, "key: {}: {how}", self.place)?;
            writeln!(f, "CSR: {request}: write it, signed by the key")?;
        }
        match &self.issue {
            _ if self.certificate.exists() => writeln!(f, "certificate: {certificate}: check it")?,
            Some(command) => writeln!(
                f,
                "certificate: {certificate}: from the command {command:?}"
            )?,
            None => writeln!(f, "certificate: {certificate}: wait for it")?,
        }
        let config = self.config.display();
        match &self.edit {
            Edit::Add(_) => writeln!(
                f,
                "configuration: {config}: add\n\n{}",
                document::render(&self.identity)
            )?,
            Edit::RenewalInput => {
                writeln!(f, "configuration: {config}: the identity already exists")?
            }
            Edit::LacksPin => writeln!(
                f,
                "configuration: print what to add to {config}\n\n{}",
                document::render(&self.identity)
            )?,
        }
        writeln!(
            f,
            "agent at {}: reload it if it runs",
            self.socket.display()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn nothing_is_given_away_that_is_elsewhere() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let (user, group) = (geteuid().as_raw(), nix::unistd::getegid().as_raw());
        fs::write(path("file"), "").unwrap();
        symlink("file", path("link")).unwrap();
        give_away(directory.path(), user, group).unwrap();
        give_away(&path("file"), user, group).unwrap();
        assert!(give_away(&path("link"), user, group).is_err());
        fs::hard_link(path("file"), path("second")).unwrap();
        assert!(give_away(&path("file"), user, group).is_err());
    }
}
