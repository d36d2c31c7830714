//! From the agent's `Open` to keys that can sign.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use sha2::{Digest, Sha256};
use token::host::{Opened, PinGuard, UntriedPins};
use token::link::{Open, OpenTpm, OpenTpmKey, OpenedKey, TpmKeySource};
use token::{Failures, Pin, PinSource, TakeOver, TokenError};
use tss_esapi::handles::KeyHandle;
use tss_esapi::structures::{
    Auth, EncryptedSecret, Private, Public, PublicBuffer, SymmetricDefinitionObject,
};
use tss_esapi::traits::Marshall;
use tss_esapi::{Error, WrapperErrorKind};

use crate::areas::{malformed, private, public};
use crate::auth_value::{self, Proof};
use crate::caller::Caller;
use crate::error::Failure;
use crate::key::{FoundKey, TpmKey};
use crate::key_file::KeyFile;
use crate::marshalled::tpm2b;
use crate::parent::{Parent, Parents, find_persistent};
use crate::policy::Policy;
use crate::sandbox;
use crate::scheme::{self, Scheme};
use crate::tpm::{ObjectId, Tpm, left_sessions};

/// Connects, then loads each key once; the parents are flushed again. A TPM has one worker.
pub(crate) fn open(request: Open, pins: &PinGuard) -> Result<Opened<TpmKey>, TokenError> {
    let Open::Tpm(request) = request else {
        return Err(TokenError::Unusable(
            "roleseal-tpm opens TPMs only".to_owned(),
        ));
    };
    let told = |sessions| match request.tcti.has_resource_manager() {
        true => Ok(()),
        false => pins.holds(sessions),
    };
    told([&request.left_sessions[..], &left_sessions()].concat())?;
    if let Some(directory) = sandbox::closed_directory(&request) {
        return Err(TokenError::Gone(format!(
            "this roleseal-tpm was confined before it had to read {}",
            directory.display()
        )));
    }
    let OpenTpm {
        tcti,
        keys,
        left_sessions,
    } = &request;
    let mut tpm = Tpm::open(tcti, Caller::Agent)?;
    let failed = |failure: Failure| failure.gone(format_args!("TPM {tcti}"));
    tpm.flush_left_sessions(left_sessions).map_err(failed)?;
    tpm.flush_leftovers(&public_areas(keys)).map_err(failed)?;
    let mut parents = Parents::default();
    let mut lost = None;
    let mut found = Vec::new();
    for (number, key) in keys.iter().enumerate() {
        let key = match &lost {
            None => find(&mut tpm, &mut parents, pins, number, key.as_ref()),
            Some(error) => Err(TokenError::clone(error)),
        };
        // A TPM that answers is not lost: the failure is the key's own.
        if lost.is_none()
            && let Err(TokenError::Gone(_)) = &key
            && let Err(failure) = tpm.lockout()
        {
            lost = Some(failure.gone(tpm.name()));
        }
        found.push(key);
        told(tpm.own_sessions())?;
    }
    if let Err(failure) = parents.forget(&mut tpm) {
        lost.get_or_insert(failure.gone(tpm.name()));
    }
    if let Some(error) = lost {
        tpm.close();
        // Not an error as a whole: the agent has to learn of each auth value that was refused.
        for key in &mut found {
            if key.is_ok() {
                *key = Err(error.clone());
            }
        }
    }

    let tpm = Arc::new(Mutex::new(tpm));
    let mut reports = Vec::new();
    let mut worker = Vec::new();
    for key in found {
        reports.push(key.as_ref().map_err(Clone::clone).map(|key| OpenedKey {
            algorithm: key.scheme.algorithm,
            certificate: None,
            warnings: key.warnings.clone(),
            logs_in: false, // there is one program for a TPM, which remembers what was refused
        }));
        worker.push(key.ok().map(|found| TpmKey {
            tpm: Arc::clone(&tpm),
            found,
            locked_until: None,
            used_at: Instant::now(),
        }));
    }
    Ok(Opened {
        reports,
        workers: vec![worker],
    })
}

/// Of the keys in files; what is wrong with a file is told when its key is opened.
fn public_areas(keys: &[Option<OpenTpmKey>]) -> Vec<Public> {
    let paths = keys.iter().flatten().filter_map(OpenTpmKey::file);
    let files = paths.filter_map(|path| KeyFile::read(path).ok());
    files.filter_map(|file| public(&file).ok()).collect()
}

fn find(
    tpm: &mut Tpm,
    parents: &mut Parents,
    pins: &PinGuard,
    number: usize,
    key: Option<&OpenTpmKey>,
) -> Result<FoundKey, TokenError> {
    let Some(key) = key else {
        return Err(TokenError::Unusable("its PIN was refused".to_owned()));
    };
    check_pins(tpm, pins, number, key)?;
    load(tpm, parents, key)
}

/// Loads a key.
pub(crate) fn load(
    tpm: &mut Tpm,
    parents: &mut Parents,
    key: &OpenTpmKey,
) -> Result<FoundKey, TokenError> {
    match &key.source {
        TpmKeySource::File(path) => {
            KeyFile::read(path).and_then(|file| load_file(tpm, parents, key, &file))
        }
        TpmKeySource::Handle(handle) => at_handle(tpm, key, *handle),
    }
    .map_err(|error| error.about(&key.source.to_string()))
}

/// All of its auth values: one that cannot be read would make the others another combination, which was never tried.
fn read_pins(key: &OpenTpmKey) -> Result<Vec<Pin>, TokenError> {
    let pins = key.pins().map(PinSource::read);
    pins.collect::<Result<_, _>>()
        .map_err(|error| TokenError::Unusable(error.to_string()).about(&key.source.to_string()))
}

/// Asks whether its auth values may be tried.
fn check_pins(
    tpm: &mut Tpm,
    guard: &PinGuard,
    number: usize,
    key: &OpenTpmKey,
) -> Result<(), TokenError> {
    let pins = read_pins(key)?;
    if pins.is_empty() {
        return Ok(());
    }
    let name = key.source.to_string();
    let found = public_and_parent(tpm, key);
    let failures = match wrong_pins_count(tpm, key, found.as_ref()) {
        false => Failures::Harmless,
        true => match tpm.lockout() {
            Ok(lockout) => Failures::Counted(lockout.counter),
            Err(failure) => return Err(failure.gone(&name)),
        },
    };
    guard.may_try(&UntriedPins {
        key: Some(number),
        name: &name,
        token: &found
            .and_then(|(public, _)| identity(public))
            .unwrap_or_else(|| name.clone()),
        pins: &pins.iter().collect::<Vec<_>>(),
        failures,
        // The key's own auth value is tried by its first signature, the others while it is opened.
        at_once: key.parent_pin.is_some() || key.owner_pin.is_some(),
        take_over: TakeOver::of(key.pins()),
    })
}

/// A key's public area, and the parent of one in a file; `None` for a key that cannot be read.
fn public_and_parent(tpm: &mut Tpm, key: &OpenTpmKey) -> Option<(Public, Option<u32>)> {
    match &key.source {
        TpmKeySource::File(path) => {
            let file = KeyFile::read(path).ok()?;
            Some((public(&file).ok()?, Some(file.parent)))
        }
        TpmKeySource::Handle(handle) => Some((tpm.find_persistent(*handle).ok()?.1, None)),
    }
}

/// The same for the same key, in whatever file or at whatever handle it is. There is one TPM that has it.
fn identity(public: Public) -> Option<String> {
    let area = PublicBuffer::try_from(public).and_then(|public| public.marshall());
    let hash = Sha256::digest(area.ok()?);
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    Some(format!("TPM key sha256:{hash}"))
}

/// Whether a wrong auth value counts, as it does for a key that cannot be read. A hierarchy's never does.
fn wrong_pins_count(
    tpm: &mut Tpm,
    key: &OpenTpmKey,
    found: Option<&(Public, Option<u32>)>,
) -> bool {
    let counts = |public: &Public| !public.object_attributes().no_da();
    let Some((public, parent)) = found else {
        return true;
    };
    if key.pin.is_some() && counts(public) {
        return true;
    }
    match parent.filter(|_| key.parent_pin.is_some()) {
        Some(parent) => tpm
            .find_persistent(parent)
            .map_or(true, |(_, parent)| counts(&parent)),
        None => false,
    }
}

/// Loads the key that is in this file.
pub(crate) fn load_file(
    tpm: &mut Tpm,
    parents: &mut Parents,
    key: &OpenTpmKey,
    file: &KeyFile,
) -> Result<FoundKey, TokenError> {
    let public = public(file)?;
    let scheme = Scheme::of(&public).map_err(TokenError::Unusable)?;
    let auth = auth_value::read(key.pin.as_ref())?;
    let parent = parents.open(tpm, file.parent, key)?;
    let private = match &file.secret {
        None => private(file)?,
        Some(secret) => import(tpm, &parent, file, &public, secret)?,
    };
    let doing = "cannot load it";
    let session = tpm.session_for(&parent.proof)?;
    let object = tpm.run_proving(&parent.proof, doing, session, |tpm, session| {
        let load = "TPM2_Load";
        tpm.add_loaded(
            session,
            load,
            Some(parent.object),
            auth.clone(),
            |context, handle| context.load(required(handle)?, private.clone(), public.clone()),
        )
    });
    let object = object.map_err(|error| match (error, handle_instead_of_key(&private)) {
        (TokenError::Unusable(_), Some(handle)) => TokenError::Unusable(format!(
            "it holds no private key but the persistent handle {handle:#010x}: name the key by \
             handle:{handle:#010x}"
        )),
        (error, _) => error,
    })?;
    let policy = match file.policy.is_empty() {
        true => None,
        false => Some(Policy::prepare(tpm, file, &public)?),
    };
    let loaded = Loaded {
        object,
        public,
        scheme,
        policy,
        auth,
        empty_auth: file.empty_auth && key.pin.is_none(),
    };
    loaded.check(tpm, key)
}

/// tpm2-openssl has written a key at a persistent handle so: the handle in the memory of a TPM2B_PRIVATE, whose
/// length is the lower half, in the byte order of a PC.
fn handle_instead_of_key(private: &Private) -> Option<u32> {
    let lower = u16::try_from(private.len()).ok()?;
    let upper = u16::from_le_bytes(private.get(..2)?.try_into().ok()?);
    Some(u32::from(upper) << 16 | u32::from(lower))
        .filter(|handle| (0x8100_0000..=0x81ff_ffff).contains(handle))
}

/// TPM2_Import turns the key of an importable file into one that loads under the parent.
fn import(
    tpm: &mut Tpm,
    parent: &Parent,
    file: &KeyFile,
    public: &Public,
    secret: &[u8],
) -> Result<Private, TokenError> {
    let secret = tpm2b(secret).and_then(|secret| EncryptedSecret::try_from(secret).ok());
    let secret = secret.ok_or_else(malformed)?;
    let duplicate = private(file)?;
    let session = tpm.session_for(&parent.proof)?;
    tpm.run_proving(
        &parent.proof,
        "cannot import it",
        session,
        |tpm, session| {
            let handle = tpm.handle(parent.object)?;
            tpm.run_in_room(session, "TPM2_Import", Some(parent.object), |context| {
                context.import(
                    handle.into(),
                    None,
                    public.clone(),
                    duplicate.clone(),
                    secret.clone(),
                    SymmetricDefinitionObject::Null,
                )
            })
        },
    )
}

fn at_handle(tpm: &mut Tpm, key: &OpenTpmKey, handle: u32) -> Result<FoundKey, TokenError> {
    let auth = auth_value::read(key.pin.as_ref())?;
    let (object, public) = find_persistent(tpm, handle)?;
    let failed = |failure: Failure| failure.while_doing("cannot use it");
    let scheme = Scheme::of(&public).map_err(TokenError::Unusable)?;
    let object = tpm.add_persistent(object, auth.clone()).map_err(failed)?;
    let loaded = Loaded {
        object,
        public,
        scheme,
        policy: None,
        auth,
        empty_auth: false,
    };
    loaded.check(tpm, key)
}

/// A key in the TPM, before we know whether it may be tried.
struct Loaded {
    object: ObjectId,
    public: Public,
    scheme: Scheme,
    policy: Option<Policy>,
    auth: Auth,
    /// Whether the auth value is known to be the right one, since there is none.
    empty_auth: bool,
}

impl Loaded {
    fn check(self, tpm: &mut Tpm, key: &OpenTpmKey) -> Result<FoundKey, TokenError> {
        let attributes = self.public.object_attributes();
        if !attributes.user_with_auth() && self.policy.is_none() {
            return Err(TokenError::Unusable(
                "it is used by a policy (userWithAuth is not set), which is not known here: use the key \
                 file that has the policy, or make a key with the attribute userwithauth"
                    .to_owned(),
            ));
        }
        let what = match &key.pin {
            Some(_) => format!("its auth value ({})", tpm.caller.pin()),
            None => format!(
                "its empty auth value (give {}, where it has one)",
                tpm.caller.pin()
            ),
        };
        let mut warnings = scheme::warnings(&self.public);
        if !attributes.no_da() {
            let failed = |failure: Failure| failure.while_doing("cannot read the lockout counter");
            let lockout = tpm.lockout().map_err(failed)?;
            let auth_is_tried = self.policy.as_ref().is_none_or(Policy::proves_auth);
            if auth_is_tried && !self.empty_auth {
                lockout.check(&what)?;
            }
            warnings.extend(lockout.warning());
        }
        let proof = Proof {
            entity: tpm.entity(self.object),
            auth: self.auth,
            what,
            take_over: TakeOver::of(&key.pin),
        };
        if self.policy.is_none() {
            tpm.session_for(&proof)?; // now, not at the first signature
        }
        Ok(FoundKey {
            name: key.source.to_string(),
            object: self.object,
            public: self.public,
            scheme: self.scheme,
            proof,
            policy: self.policy,
            warnings,
        })
    }
}

fn required(handle: Option<KeyHandle>) -> tss_esapi::Result<KeyHandle> {
    handle.ok_or(Error::WrapperError(WrapperErrorKind::ParamsMissing))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auth_values_are_tried_together_or_not_at_all() {
        let given = |pin: &str| Some(PinSource::Value(Pin::from(pin.to_owned())));
        let mut key = OpenTpmKey {
            source: TpmKeySource::Handle(0x8100_0101),
            pin: given("one"),
            parent_pin: given("two"),
            owner_pin: None,
        };
        let both = ["one", "two"].map(|pin| Pin::from(pin.to_owned()));
        assert_eq!(read_pins(&key).unwrap(), both);
        key.owner_pin = Some(PinSource::File("/nowhere/owner.pin".into()));
        let error = read_pins(&key).unwrap_err();
        assert!(matches!(error, TokenError::Unusable(_)), "{error:?}");
        assert!(error.to_string().contains("/nowhere/owner.pin"), "{error}");
    }
}
