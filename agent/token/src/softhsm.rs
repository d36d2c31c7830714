//! SoftHSM keeps a token's objects as files, which its module opens as the user who runs it: who may not read the
//! configuration, or enter the store, gets `CKR_GENERAL_ERROR` and no more.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use crate::account::{Account, group_name, how_to_join};

/// The environment variable that names the configuration.
pub const VARIABLE: &str = "SOFTHSM2_CONF";

/// Where the distributions keep it: Debian and Ubuntu, then Fedora and its relatives.
const USUAL: [&str; 2] = ["/etc/softhsm/softhsm2.conf", "/etc/softhsm2.conf"];

/// The store where the configuration names none, on Debian, Ubuntu, Fedora and its relatives.
const USUAL_STORE: &str = "/var/lib/softhsm/tokens";

/// A user's own configuration, in the home directory; it goes before those of the system.
const OWN: &str = ".config/softhsm2/softhsm2.conf";

/// Whether a module is SoftHSM's, by its file's name.
pub fn is_module(module: &Path) -> bool {
    let name = module.file_name().map(OsStr::to_string_lossy);
    name.is_some_and(|name| name.contains("softhsm"))
}

/// The directory of SoftHSM's tokens, where its configuration can be read. `named`: the value of [`VARIABLE`].
pub fn store(named: Option<&OsStr>) -> Option<PathBuf> {
    let text = read(&configuration(named)?).ok()?;
    Some(store_in(&text).unwrap_or_else(|| PathBuf::from(USUAL_STORE)))
}

/// What keeps this process's user from SoftHSM's store, and what to do. `named`: the value of [`VARIABLE`].
pub fn obstacle(named: Option<&OsStr>) -> Option<String> {
    let config = configuration(named)?;
    let text = match read(&config) {
        Ok(text) => text,
        Err(error) => {
            return Some(told("SoftHSM's configuration", &config, &error));
        }
    };
    let store = store_in(&text)?;
    let wanted = Access::READ_OK | Access::EXEC_OK;
    let error = access(&store, wanted).err()?;
    Some(told("SoftHSM's tokens in", &store, &error.into()))
}

/// The configuration that SoftHSM reads.
fn configuration(named: Option<&OsStr>) -> Option<PathBuf> {
    if let Some(named) = named.filter(|path| !path.is_empty()) {
        return Some(PathBuf::from(named));
    }
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
    let own = home.map(|home| Path::new(&home).join(OWN));
    let own = own.filter(|path| access(path, Access::READ_OK).is_ok());
    own.or_else(|| USUAL.iter().map(PathBuf::from).find(|path| is_there(path)))
}

fn read(config: &Path) -> io::Result<String> {
    File::open(config)?; // a better error than that of a directory
    fs::read_to_string(config)
}

/// Also one in a directory that this user may not enter.
fn is_there(path: &Path) -> bool {
    !matches!(path.metadata(), Err(error) if error.kind() == io::ErrorKind::NotFound)
}

/// `directories.tokendir = PATH`
fn store_in(config: &str) -> Option<PathBuf> {
    let lines = config.lines().filter_map(|line| line.split_once('='));
    let mut stores = lines.filter(|(name, _)| name.trim() == "directories.tokendir");
    let (_, path) = stores.next_back()?;
    Some(PathBuf::from(path.trim()))
}

fn told(what: &str, path: &Path, error: &io::Error) -> String {
    let user = Account::own().map_or_else(|_| "this user".to_owned(), |user| user.name);
    let mut text = format!(
        "{what} {} cannot be read by {user}: {error}",
        path.display()
    );
    if error.kind() == io::ErrorKind::PermissionDenied
        && let Some(group) = group_of_obstacle(path)
    {
        text += &format!("; {}", how_to_join(&group, &user));
    }
    text
}

/// The group of the first part of the path that keeps this user out, if its members come further.
fn group_of_obstacle(path: &Path) -> Option<String> {
    let mut parts: Vec<&Path> = path.ancestors().collect();
    parts.reverse();
    let closed = parts.into_iter().find(|part| {
        let wanted = match part == &path {
            true => Access::READ_OK,
            false => Access::EXEC_OK,
        };
        access(*part, wanted).is_err()
    })?;
    let metadata = closed.metadata().ok()?;
    let bit = if metadata.is_dir() { 0o010 } else { 0o040 };
    (metadata.mode() & bit != 0 && metadata.gid() != 0).then(|| group_name(metadata.gid()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_is_the_configurations_last_word() {
        let text = "# x\ndirectories.tokendir = /a\nlog.level = INFO\ndirectories.tokendir=/b b\n";
        assert_eq!(store_in(text), Some("/b b".into()));
        assert_eq!(store_in("# directories.tokendir = /a\n"), None);
    }

    #[test]
    fn what_is_missing_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("softhsm2.conf");
        let text = obstacle(Some(config.as_os_str())).unwrap();
        assert!(text.contains(config.to_str().unwrap()), "{text}");
        let store = directory.path().join("tokens");
        fs::write(
            &config,
            format!("directories.tokendir = {}\n", store.display()),
        )
        .unwrap();
        let text = obstacle(Some(config.as_os_str())).unwrap();
        assert!(text.contains(store.to_str().unwrap()), "{text}");
        fs::create_dir(&store).unwrap();
        assert_eq!(obstacle(Some(config.as_os_str())), None);
        assert_eq!(super::store(Some(config.as_os_str())), Some(store));
    }

    #[test]
    fn modules_are_known_by_their_name() {
        assert!(is_module(Path::new("/usr/lib/softhsm/libsofthsm2.so")));
        assert!(!is_module(Path::new("/usr/lib/softhsm/opensc-pkcs11.so")));
    }
}
