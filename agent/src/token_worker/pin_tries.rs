//! Which PINs were tried and not accepted: one record for all workers, since one token may be open under several names of
//! its module; and on the disk, since an agent may be killed.
//!
//! A try is recorded before it is made. The record goes when the token accepts the PIN, when the identities that had the
//! PIN have another one, or when an operator removes it.

mod line;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Instant;

use config::pin_records::{FoundKey, PinRecord, PinRecords};
use jiff::Timestamp;
use token::link::Permission;
use token::{Failures, PinFingerprint, PinKey};

use super::Event;
use crate::log;
use crate::sync::{lock, wait_while};
use line::Line;
pub(super) use line::Turn;

/// The tries of PINs, shared by all workers of an agent and their successors.
#[derive(Debug, Clone)]
pub struct PinTries {
    record: Arc<Mutex<Record>>,
    line: Line,
    /// Told when a try has ended.
    ended: Arc<Condvar>,
}

#[derive(Debug)]
struct Record {
    /// Of the fingerprints.
    key: PinKey,
    key_state: KeyState,
    /// The agent has a state directory, though it may not be usable.
    disk: Option<PinRecords>,
    /// Why nothing is recorded in the state directory, so that no PIN is tried.
    fault: Option<String>,
    tries: BTreeMap<PinFingerprint, Tried>,
    /// PINs that a token has accepted, and not refused since.
    good: BTreeSet<PinFingerprint>,
    /// Tries that the token has not answered yet.
    under_way: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyState {
    /// The key is not on the disk yet.
    New,
    Stored,
    /// The records on the disk have another key, which is lost: none of their tokens is tried with any PIN.
    Lost,
}

#[derive(Debug)]
struct Tried {
    record: PinRecord,
    /// As the token counted failures before the try.
    before: Failures,
    /// There was a try without an answer before the present one.
    is_doubtful: bool,
    /// It is on the disk.
    is_stored: bool,
}

/// Whose PIN it is.
#[derive(Debug, Clone)]
pub(super) struct PinOwner {
    /// What the token or key says of itself.
    pub(super) token: String,
    pub(super) identities: Vec<String>,
}

/// A PIN that the token is opened with.
#[derive(Debug)]
pub(super) struct KeyPin {
    pub(super) pin: PinFingerprint,
    pub(super) owner: PinOwner,
    /// As the token counted them before.
    pub(super) failures: Failures,
    pub(super) state: PinState,
    /// While it is being tried.
    pub(super) under_way: Option<TryUnderWay>,
}

/// A PIN is being tried, until drop: when the outcome is recorded.
#[derive(Debug)]
pub(super) struct TryUnderWay(PinTries);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PinState {
    /// Recorded, and not tried yet.
    Announced,
    Tried,
    /// The token has accepted it.
    Good,
}

/// More records are not made: a PIN that cannot be recorded is not tried. None goes to make room, so that no token
/// program has another token's refusals forgotten.
const LIMIT: usize = 2000;

/// The same for each identity: a token program cannot use up all records.
const LIMIT_EACH: usize = 100;

impl PinTries {
    /// A record in this state directory: where it cannot be used, no PIN is tried. Without one, the record lasts as long
    /// as the agent, and the log says so.
    pub fn open(state: Option<&Path>) -> io::Result<PinTries> {
        let tries = PinTries::in_memory()?;
        let mut record = tries.lock();
        match state.map(|state| (state, PinRecords::make(state))) {
            Some((_, Ok(disk))) => {
                let _ = disk.sweep(); // what is left takes little room
                record.disk = Some(disk);
                record.load();
            }
            Some((state, Err(error))) => record.fail(format!(
                "cannot use the state directory {}: {error}; mend it, then restart the agent",
                state.display()
            )),
            None => log::warn(
                "refused PINs are not remembered across restarts: there is no state directory (state = \"DIR\")",
            ),
        }
        drop(record);
        Ok(tries)
    }

    /// A record that lasts as long as the agent.
    pub fn in_memory() -> io::Result<PinTries> {
        let record = Record {
            key: PinKey::random()?,
            key_state: KeyState::New,
            disk: None,
            fault: None,
            tries: BTreeMap::new(),
            good: BTreeSet::new(),
            under_way: 0,
        };
        Ok(PinTries {
            record: Arc::new(Mutex::new(record)),
            line: Line::default(),
            ended: Arc::default(),
        })
    }

    /// The directory that it writes to.
    pub fn directory(&self) -> Option<PathBuf> {
        Some(self.lock().disk.as_ref()?.path().to_owned())
    }

    /// Forgets what an operator has removed from the disk.
    pub fn read_again(&self) {
        self.lock().load();
    }

    pub(super) fn key(&self) -> PinKey {
        self.lock().key.clone()
    }

    /// Whether this PIN may be tried, where the token counts failures so. If it may, the try is recorded from here on,
    /// and on the disk where there is one; but for a PIN that was good before. One that was good for another worker needs
    /// no room on the disk. What its identities had before is forgotten.
    pub(super) fn begin(
        &self,
        pin: &PinFingerprint,
        owner: &PinOwner,
        failures: Failures,
        was_good: bool,
    ) -> Permission {
        let mut record = self.lock();
        record.release_others(pin, owner);
        match record.find(pin, &owner.token) {
            Some(tried) => record.try_again(&tried, owner, failures),
            None if was_good => Permission::Try,
            None => match record.begin(pin, owner, failures) {
                Permission::Unrecorded(_) | Permission::TooManyRecords(_)
                    if record.good.contains(pin) =>
                {
                    record.insert(pin, owner, failures);
                    Permission::Try
                }
                permission => permission,
            },
        }
    }

    /// The token has accepted this PIN.
    pub(super) fn accept(&self, pin: &PinFingerprint) {
        let mut record = self.lock();
        record.forget(pin);
        if record.good.len() < LIMIT {
            record.good.insert(pin.clone());
        }
    }

    /// The try was not made, or its answer was another one than a refusal: what an earlier try has left stays.
    pub(super) fn cancel(&self, pin: &PinFingerprint) {
        let mut record = self.lock();
        let tried = record.tries.get(pin);
        if tried.is_some_and(|tried| !tried.is_doubtful && !tried.record.refused) {
            record.forget(pin);
        }
    }

    /// The try had no answer.
    pub(super) fn doubt(&self, pin: &PinFingerprint) {
        if let Some(tried) = self.lock().tries.get_mut(pin) {
            tried.is_doubtful = true;
        }
    }

    /// Has no worker try this PIN again.
    pub(super) fn refuse(&self, pin: &PinFingerprint, owner: &PinOwner) {
        let mut record = self.lock();
        record.good.remove(pin);
        if !record.tries.contains_key(pin) {
            record.insert(pin, owner, Failures::Untold); // a good one until now
        }
        if let Some(tried) = record.tries.get_mut(pin) {
            tried.record.refused = true;
            let identities = owner.identities.iter().cloned();
            tried.record.identities.extend(identities);
        }
        record.update(pin);
    }

    pub(super) fn is_refused(&self, pin: &PinFingerprint) -> bool {
        let record = self.lock();
        record
            .tries
            .get(pin)
            .is_some_and(|tried| tried.record.refused)
    }

    /// Waits in line for the token of this identity. `events` gets [`Event::Turn`] when somebody has left.
    pub(super) fn line_up(&self, token: String, events: Sender<Event>) -> Turn {
        self.line.enter(token, events)
    }

    /// A try begins, which the end of the agent waits for.
    pub(super) fn begin_try(&self) -> TryUnderWay {
        self.lock().under_way += 1;
        TryUnderWay(self.clone())
    }

    /// Waits until no PIN is being tried, or `deadline`. Says whether one was.
    pub fn wait_for_answers(&self, deadline: Instant) -> bool {
        let record = self.lock();
        if record.under_way == 0 {
            return false;
        }
        drop(wait_while(&self.ended, record, Some(deadline), |record| {
            record.under_way > 0
        }));
        true
    }

    #[cfg(test)]
    pub(super) fn is_recorded(&self, identity: &str) -> bool {
        let record = self.lock();
        let mut tries = record.tries.values();
        tries.any(|tried| tried.record.identities.contains(identity))
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        lock(&self.record)
    }
}

impl Record {
    /// The record of this PIN; without the key of the records, any of this token.
    fn find(&self, pin: &PinFingerprint, token: &str) -> Option<PinFingerprint> {
        if self.tries.contains_key(pin) {
            return Some(pin.clone());
        }
        let may_be = |tried: &Tried| tried.record.token.is_empty() || tried.record.token == token;
        let is_lost = self.key_state == KeyState::Lost;
        let mut tries = self.tries.iter().filter(|_| is_lost);
        tries
            .find(|(_, tried)| may_be(tried))
            .map(|(pin, _)| pin.clone())
    }

    fn try_again(
        &mut self,
        pin: &PinFingerprint,
        owner: &PinOwner,
        failures: Failures,
    ) -> Permission {
        let Some(tried) = self.tries.get_mut(pin) else {
            return Permission::Try;
        };
        let known = tried.record.identities.len();
        tried
            .record
            .identities
            .extend(owner.identities.iter().cloned());
        let is_new = tried.record.identities.len() > known || !tried.is_stored;
        let permission = match tried.before.was_none(failures) {
            _ if tried.record.refused => Permission::Refused,
            true => Permission::Try,
            false => Permission::Unanswered,
        };
        if permission == Permission::Try {
            tried.before = failures;
        }
        if is_new {
            self.update(pin);
        }
        permission
    }

    /// Records a try that was not made yet, or says why it cannot.
    fn begin(&mut self, pin: &PinFingerprint, owner: &PinOwner, before: Failures) -> Permission {
        if let Some(fault) = &self.fault {
            return Permission::Unrecorded(fault.clone());
        }
        if let Some(why) = self.beyond_limits(owner) {
            return Permission::TooManyRecords(why);
        }
        self.insert(pin, owner, before);
        match self.store(pin) {
            Ok(()) => Permission::Try,
            Err(error) => {
                self.tries.remove(pin);
                let mut remedy = "mend that: the agent tries again each minute";
                if let Some(disk) = &self.disk {
                    let _ = disk.remove(pin); // it is there if the disk failed after the rename
                    if disk.is_removed() {
                        remedy = "the directory was removed: restart the agent";
                    }
                }
                Permission::Unrecorded(format!("{error}; {remedy}"))
            }
        }
    }

    /// Says that there are too many records for another one of this owner, and which to remove.
    fn beyond_limits(&self, owner: &PinOwner) -> Option<String> {
        let mut counts = BTreeMap::new();
        for identity in self
            .tries
            .values()
            .flat_map(|tried| &tried.record.identities)
        {
            *counts.entry(identity).or_insert(0) += 1;
        }
        let own = owner
            .identities
            .iter()
            .filter_map(|one| counts.get_key_value(one));
        let most = own.max_by_key(|(_, count)| **count);
        let (identity, count) = match most {
            Some((identity, count)) if *count >= LIMIT_EACH => (*identity, *count),
            _ if self.tries.len() < LIMIT => return None,
            _ => match counts.into_iter().max_by_key(|(_, count)| *count) {
                Some(most) => most,
                None => return Some(format!("there are {LIMIT} damaged records of refused PINs")),
            },
        };
        Some(format!(
            "there are {} records of refused PINs, {count} of them of identity {identity:?}: roleseal-admin pin retry \
             {identity}",
            self.tries.len()
        ))
    }

    fn insert(&mut self, pin: &PinFingerprint, owner: &PinOwner, before: Failures) {
        let tried = Tried {
            record: PinRecord::of_try(&owner.token, &owner.identities, Timestamp::now()),
            before,
            is_doubtful: false,
            is_stored: false,
        };
        self.tries.insert(pin.clone(), tried);
    }

    /// These identities have this PIN of the token now, and no other.
    fn release_others(&mut self, pin: &PinFingerprint, owner: &PinOwner) {
        if self.key_state == KeyState::Lost {
            return; // another fingerprint is no other PIN
        }
        let mut changed = Vec::new();
        for (other, tried) in &mut self.tries {
            if other == pin || tried.record.token != owner.token {
                continue;
            }
            let known = tried.record.identities.len();
            for identity in &owner.identities {
                tried.record.identities.remove(identity);
            }
            let left = tried.record.identities.len();
            if left < known {
                changed.push((other.clone(), left));
            }
        }
        for (other, left) in changed {
            match left {
                0 => self.forget(&other),
                _ => self.update(&other),
            }
        }
    }

    fn forget(&mut self, pin: &PinFingerprint) {
        let removed = self.tries.remove(pin);
        if removed.is_some_and(|tried| tried.is_stored)
            && let Some(disk) = &self.disk
            && let Err(error) = disk.remove(pin)
        {
            let path = disk.path().join(pin.to_hex());
            log::warn(&format!(
                "cannot remove {}: {error}; after a restart, this PIN counts as refused",
                path.display()
            ));
        }
    }

    /// Stores what is known now of a try that is recorded.
    fn update(&mut self, pin: &PinFingerprint) {
        if let Err(error) = self.store(pin) {
            log::warn(&format!("{error}; a restart may forget a refused PIN"));
        }
    }

    /// Writes the record of a PIN, where there is a disk, and before it the key that it is recognized by.
    fn store(&mut self, pin: &PinFingerprint) -> Result<(), String> {
        let (Some(disk), Some(tried)) = (&self.disk, self.tries.get_mut(pin)) else {
            return Ok(());
        };
        let mut store = || {
            if self.key_state == KeyState::New {
                disk.store_key(&self.key)?;
                self.key_state = KeyState::Stored;
            }
            disk.store(pin, &tried.record)
        };
        store().map_err(|error| format!("cannot write to {}: {error}", disk.path().display()))?;
        tried.is_stored = true;
        Ok(())
    }

    /// As it is on the disk; what could not be stored there stays.
    fn load(&mut self) {
        let Some(disk) = &self.disk else { return };
        let path = disk.path().display().to_string();
        if disk.is_removed() {
            return self.fail(format!("{path} was removed: restart the agent"));
        }
        let found = match disk.read() {
            Ok(found) => found,
            Err(error) => {
                return self.fail(format!(
                    "cannot read {path}: {error}; mend it, then reload the agent"
                ));
            }
        };
        self.fault = None;
        match found.key {
            FoundKey::Sound(key) => (self.key, self.key_state) = (key, KeyState::Stored),
            FoundKey::Missing if found.records.is_empty() => self.key_state = KeyState::New,
            FoundKey::Missing | FoundKey::Damaged => {
                self.key_state = KeyState::Lost;
                log::error(&format!(
                    "cannot read {path}/key: it is missing or damaged; no PIN is tried on a token with a record there: \
                     roleseal-admin pin retry IDENTITY"
                ));
            }
        }
        let mut before = std::mem::take(&mut self.tries);
        for (pin, record) in found.records {
            let known = before.remove(&pin);
            let record = record.unwrap_or_else(|| damaged(&path, &pin));
            let loaded = || Tried {
                record,
                before: Failures::Untold,
                is_doubtful: true,
                is_stored: true,
            };
            self.tries.insert(pin, known.unwrap_or_else(loaded));
        }
        before.retain(|_, tried| !tried.is_stored);
        self.tries.append(&mut before);
    }

    /// Has no PIN tried, since no try can be recorded.
    fn fail(&mut self, why: String) {
        log::error(&format!("no PIN is tried: {why}"));
        self.fault = Some(why);
    }
}

/// The name of the file says which PIN was tried: that much is known.
fn damaged(path: &str, pin: &PinFingerprint) -> PinRecord {
    log::error(&format!(
        "cannot read {path}/{}: it is damaged; its PIN counts as refused",
        pin.to_hex()
    ));
    PinRecord {
        refused: true,
        ..PinRecord::of_try("", &[], Timestamp::now())
    }
}

impl Drop for TryUnderWay {
    fn drop(&mut self) {
        self.0.lock().under_way -= 1;
        self.0.ended.notify_all();
    }
}

#[cfg(test)]
mod tests;
