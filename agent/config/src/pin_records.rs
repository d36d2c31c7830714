//! The record of PINs that were tried and not accepted, in the agent's state directory: `roleseal-agent` keeps it across
//! its restarts, `roleseal-admin pin retry` removes from it.
//!
//! One file for each PIN, named by the PIN's fingerprint: a file that is damaged, or that a power failure has emptied,
//! still says that its PIN was tried.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use files::{NewFile, Place, Storage, directory};
use jiff::Timestamp;
use rustix::fs::{Access, Dir, Mode, OFlags, access, fstat, openat};
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};
use token::{PinFingerprint, PinKey};

/// The directory of the records.
#[derive(Debug)]
pub struct PinRecords {
    path: PathBuf,
    directory: OwnedFd,
}

/// A PIN that was tried and not accepted, without the PIN.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinRecord {
    /// What the token or key says of itself.
    pub token: String,
    /// The identities that have this PIN.
    pub identities: BTreeSet<String>,
    /// When it was tried, in UTC.
    pub time: String,
    /// Whether the token has refused it; else its answer is unknown.
    pub refused: bool,
}

/// What is on the disk.
#[derive(Debug, Default)]
pub struct Found {
    /// The key of the fingerprints.
    pub key: FoundKey,
    /// Each PIN, and its record; `None` where that is damaged.
    pub records: Vec<(PinFingerprint, Option<PinRecord>)>,
}

/// The file of the key.
#[derive(Debug, Default)]
pub enum FoundKey {
    /// It does not exist.
    #[default]
    Missing,
    /// It cannot be read, or is no key.
    Damaged,
    /// The key.
    Sound(PinKey),
}

/// Of the packages, and of systemd with `StateDirectory=roleseal`.
const STATE: &str = "/var/lib/roleseal";

/// Below the state directory, where the agent's certificates may be: it may write here and not there.
const NAME: &str = "pin-tries";

const KEY: &str = "key";

/// Temporary files, before their rename.
const PREFIX: &str = ".new.";

/// More records are not read. The agent keeps fewer.
const COUNT_LIMIT: usize = 4096;

/// The largest record that is read, in bytes: names of a thousand identities.
const SIZE_LIMIT: u64 = 128 * 1024;

/// Of what a token says of itself, what is kept, in characters.
const TOKEN_LIMIT: usize = 1000;

/// Where the agent keeps its state: where systemd says (`StateDirectory=`), else as configured, else in the packages'
/// directory if it belongs to this user and can be written to, or has records.
pub fn state_directory(configured: Option<&Path>) -> Option<PathBuf> {
    let packaged = || Some(PathBuf::from(STATE)).filter(|path| is_usable(path));
    by_systemd()
        .or_else(|| configured.map(Path::to_owned))
        .or_else(packaged)
}

/// Records count where no more can be written, too: a PIN that was refused is not tried.
fn is_usable(state: &Path) -> bool {
    let metadata = std::fs::metadata(state);
    metadata.is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == geteuid().as_raw())
        && (access(state, Access::WRITE_OK).is_ok() || state.join(NAME).is_dir())
}

/// Where an agent of this configuration may keep its state, whoever started it.
pub fn state_directories(configured: Option<&Path>) -> Vec<PathBuf> {
    let configured = configured.map(Path::to_owned);
    let all = [by_systemd(), configured, Some(PathBuf::from(STATE))];
    all.into_iter().flatten().collect()
}

/// The first one, where a unit has several.
fn by_systemd() -> Option<PathBuf> {
    let all = std::env::var_os("STATE_DIRECTORY")?;
    let first = all.as_bytes().split(|byte| *byte == b':').next()?;
    (!first.is_empty()).then(|| PathBuf::from(OsStr::from_bytes(first)))
}

impl PinRecord {
    /// Of a PIN that is about to be tried.
    pub fn of_try(token: &str, identities: &[String], now: Timestamp) -> PinRecord {
        PinRecord {
            token: token.chars().take(TOKEN_LIMIT).collect(),
            identities: identities.iter().cloned().collect(),
            time: now.strftime("%FT%TZ").to_string(),
            refused: false,
        }
    }
}

impl PinRecords {
    /// Opens the directory below this state directory, which it makes where it is missing.
    pub fn make(state: &Path) -> io::Result<PinRecords> {
        match DirBuilder::new().mode(0o700).create(state.join(NAME)) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
            _ => PinRecords::open(state),
        }
    }

    /// Opens the directory below this state directory.
    pub fn open(state: &Path) -> io::Result<PinRecords> {
        let path = state.join(NAME);
        // Not of a file in it, which might be a link to another directory.
        let place = Place::find(&path)?;
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = openat(&place.directory, &place.name, flags, Mode::empty())?;
        Ok(PinRecords { path, directory })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether it was removed since it was opened: what is written to it is lost.
    pub fn is_removed(&self) -> bool {
        fstat(&self.directory).is_ok_and(|stat| stat.st_nlink == 0)
    }

    /// Reads everything.
    pub fn read(&self) -> io::Result<Found> {
        let key = match directory::open_file(&self.directory, KEY) {
            Ok(file) => match read(file) {
                Ok(bytes) => PinKey::from_bytes(&bytes).map_or(FoundKey::Damaged, FoundKey::Sound),
                Err(_) => FoundKey::Damaged,
            },
            Err(error) if error.kind() == ErrorKind::NotFound => FoundKey::Missing,
            Err(_) => FoundKey::Damaged,
        };
        let mut records = Vec::new();
        for entry in Dir::read_from(&self.directory)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if let Some(pin) = PinFingerprint::from_hex(&name)
                && records.len() < COUNT_LIMIT
            {
                records.push((pin, self.record(&name)));
            }
        }
        Ok(Found { key, records })
    }

    fn record(&self, name: &str) -> Option<PinRecord> {
        let text = read(directory::open_file(&self.directory, name).ok()?).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Writes the key.
    pub fn store_key(&self, key: &PinKey) -> io::Result<()> {
        self.write(KEY, key.bytes())
    }

    /// Writes a record.
    pub fn store(&self, pin: &PinFingerprint, record: &PinRecord) -> io::Result<()> {
        self.write(&pin.to_hex(), &serde_json::to_vec(record)?)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut new = NewFile::begin(&self.directory, PREFIX)?;
        new.write(bytes)?;
        new.replace(name, Storage::Disk)
    }

    /// Removes a record. One that does not exist is removed.
    pub fn remove(&self, pin: &PinFingerprint) -> io::Result<()> {
        self.unlink(&pin.to_hex())
    }

    /// Removes the key. Without records, the agent makes a new one.
    pub fn remove_key(&self) -> io::Result<()> {
        self.unlink(KEY)
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        match directory::remove(&self.directory, name) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            // A record that a power failure brings back keeps a good PIN from being tried.
            _ => directory::sync(&self.directory),
        }
    }

    /// Removes what programs that were killed have left.
    pub fn sweep(&self) -> io::Result<()> {
        files::sweep(&self.directory, PREFIX)
    }
}

fn read(file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    files::read_to(file, SIZE_LIMIT, &mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    use token::Pin;

    fn pin(key: &PinKey, text: &str) -> PinFingerprint {
        PinFingerprint::of(key, "lab", &[&Pin::from(text.to_owned())])
    }

    #[test]
    fn what_is_written_is_read_and_what_is_damaged_is_there() {
        let state = tempfile::tempdir().unwrap();
        assert!(PinRecords::open(state.path()).is_err());
        let records = PinRecords::make(state.path()).unwrap();
        let found = records.read().unwrap();
        assert!(matches!(found.key, FoundKey::Missing) && found.records.is_empty());

        let key = PinKey::random().unwrap();
        records.store_key(&key).unwrap();
        let now = "2026-11-29T12:00:00.5Z".parse().unwrap();
        let record = PinRecord::of_try("pkcs11:token=lab", &["web".to_owned()], now);
        assert_eq!(record.time, "2026-11-29T12:00:00Z");
        records.store(&pin(&key, "1234"), &record).unwrap();
        std::fs::write(records.path().join("other"), "").unwrap();
        let found = PinRecords::make(state.path()).unwrap().read().unwrap();
        assert!(matches!(found.key, FoundKey::Sound(found) if found == key));
        assert_eq!(found.records, [(pin(&key, "1234"), Some(record))]);

        for damage in ["", "{", "[1]"] {
            let file = records.path().join(pin(&key, "1234").to_hex());
            std::fs::write(file, damage).unwrap();
            std::fs::write(records.path().join(KEY), damage).unwrap();
            let found = records.read().unwrap();
            assert!(matches!(found.key, FoundKey::Damaged));
            assert_eq!(found.records, [(pin(&key, "1234"), None)]);
        }
        std::fs::remove_file(records.path().join(KEY)).unwrap();
        let elsewhere = state.path().join("elsewhere");
        std::os::unix::fs::symlink(elsewhere, records.path().join(KEY)).unwrap();
        let found = PinRecords::open(state.path()).unwrap().read().unwrap();
        assert!(matches!(found.key, FoundKey::Damaged));
        assert_eq!(found.records, [(pin(&key, "1234"), None)]);
        for _ in 0..2 {
            records.remove(&pin(&key, "1234")).unwrap();
            records.remove_key().unwrap();
        }
        let found = records.read().unwrap();
        assert!(matches!(found.key, FoundKey::Missing) && found.records.is_empty());
    }

    /// On a file system that is mounted read-only, or in a directory that belongs to this user alone by its number.
    #[test]
    fn records_in_a_directory_that_cannot_be_written_to_count() {
        let state = tempfile::tempdir().unwrap();
        assert!(is_usable(state.path()));
        assert!(!is_usable(&state.path().join("absent")));
        let records = PinRecords::make(state.path()).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode;
        std::fs::set_permissions(state.path(), mode(0o500)).unwrap();
        let with_records = is_usable(state.path());
        std::fs::set_permissions(state.path(), mode(0o700)).unwrap();
        assert!(with_records);
        assert!(!records.is_removed());
        std::fs::remove_dir(records.path()).unwrap();
        assert!(records.is_removed());
    }

    #[test]
    fn nothing_that_is_written_tells_the_pin() {
        let state = tempfile::tempdir().unwrap();
        let records = PinRecords::make(state.path()).unwrap();
        let key = PinKey::random().unwrap();
        let record = PinRecord::of_try("lab", &[], Timestamp::UNIX_EPOCH);
        records.store(&pin(&key, "271828"), &record).unwrap();
        // Without the key, the right PIN is not recognized.
        let other = PinKey::random().unwrap();
        let found = records.read().unwrap().records;
        assert_ne!(found[0].0, pin(&other, "271828"));
        let mode = state.path().join(NAME).metadata().unwrap().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}
