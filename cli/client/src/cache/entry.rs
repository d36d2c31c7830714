//! One session in a file.

use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;

use files::{NewFile, Storage};
use jiff::{SignedDuration, Timestamp};
use rolesanywhere::DURATION;
use rustix::fs::{AtFlags, Timespec, Timestamps, UTIME_OMIT, utimensat};
use secrecy::{ExposeSecret, SecretSlice};
use serde::{Deserialize, Serialize};

use super::directory;
use crate::credentials::Members;
use crate::moment::Moment;
use crate::session::Session;

#[derive(Serialize)]
struct Written<'s> {
    credentials: WrittenCredentials<'s>,
    issued: Timestamp,
    serial: Option<&'s str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenCredentials<'s> {
    access_key_id: &'s str,
    secret_access_key: &'s str,
    session_token: &'s str,
    expiration: Timestamp,
}

#[derive(Deserialize)]
struct Entry {
    credentials: Members,
    issued: Timestamp,
    serial: Option<String>,
}

/// A session takes some 3 KiB: read at once, no copies of secrets are left behind.
const USUAL: usize = 8 * 1024;

/// More is no session.
const ENTRY_LIMIT: u64 = 64 * 1024;

pub(super) fn load(directory: &OwnedFd, key: &str) -> Option<Session> {
    let name = name(key);
    match read(directory, &name) {
        Ok(session) => Some(session),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(_) => {
            let _ = directory::remove(directory, &name); // or it is replaced by the next one
            None
        }
    }
}

pub(super) fn store(directory: &OwnedFd, key: &str, session: &Session) -> io::Result<()> {
    sweep(directory, session.issued);
    let credentials = &session.credentials;
    let json: SecretSlice<u8> = serde_json::to_vec(&Written {
        credentials: WrittenCredentials {
            access_key_id: &credentials.access_key_id,
            secret_access_key: credentials.secret_access_key.expose_secret(),
            session_token: credentials.session_token.expose_secret(),
            expiration: credentials.expiration,
        },
        issued: session.issued,
        serial: session.serial.as_deref(),
    })?
    .into();
    let mut new = NewFile::begin(directory, format!("{key}.new."))?;
    new.write(json.expose_secret())?;
    new.replace(name(key), Storage::Memory)?;
    note_check(directory, key, session.issued)
}

/// The file's time is when the agent last had a say. A file that has just taken the place of another is as good.
pub(super) fn note_check(directory: &OwnedFd, key: &str, at: Timestamp) -> io::Result<()> {
    let omitted = Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_OMIT,
    };
    let times = Timestamps {
        last_access: omitted,
        last_modification: Timespec {
            tv_sec: at.as_second(),
            tv_nsec: at.subsec_nanosecond().into(),
        },
    };
    Ok(utimensat(
        directory,
        name(key),
        &times,
        AtFlags::SYMLINK_NOFOLLOW,
    )?)
}

pub(super) fn remove(directory: &OwnedFd, key: &str) {
    let _ = directory::remove(directory, name(key)); // another may have done it
}

fn name(key: &str) -> String {
    format!("{key}.json")
}

fn read(directory: &OwnedFd, name: &str) -> io::Result<Session> {
    let file = directory::open_to_read(directory, name)?;
    let checked = Timestamp::try_from(file.metadata()?.modified()?)
        .map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
    let mut json = Vec::with_capacity(USUAL);
    let read = files::read_to(file, ENTRY_LIMIT, &mut json);
    let json: SecretSlice<u8> = json.into();
    read?;
    let entry: Entry = serde_json::from_slice(json.expose_secret())?;
    let credentials = entry
        .credentials
        .complete()
        .map_err(|fault| io::Error::new(ErrorKind::InvalidData, fault))?;
    Ok(Session::kept(
        credentials,
        entry.issued,
        entry.serial,
        checked,
        Moment::now(),
    ))
}

/// Removes what nobody asks for any more: a file that is older than the longest session holds none that
/// is valid. Locks stay: a process may wait for one.
fn sweep(directory: &OwnedFd, now: Timestamp) {
    let oldest = now - SignedDuration::from_secs(i64::from(*DURATION.end()));
    for (name, written) in directory::files(directory).unwrap_or_default() {
        let ours =
            [".json", ".new"].iter().any(|end| name.ends_with(end)) || name.contains(".new.");
        if ours && written < oldest.as_second() {
            let _ = directory::remove(directory, &name);
        }
    }
}
