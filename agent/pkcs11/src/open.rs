//! From the agent's `Open` to keys that can sign.

use std::env;
use std::path::Path;
use std::sync::Arc;

use cryptoki_sys::CK_SLOT_ID;
use token::host::{Opened, PinGuard};
use token::link::{KeyReport, Open, OpenKey, OpenedKey};
use token::{TokenError, softhsm};

use crate::key::{Mechanism, Pkcs11Key};
use crate::login::{ContextLogin, log_in};
use crate::properties::Properties;
use crate::raw::{Library, Module, Session};
use crate::slot::Token;
use crate::softhsm_store::Store;
use crate::{certificate, find, slot};

/// Starts the module, logs in once, finds each key once; then opens the sessions that sign. `library` is
/// the module, once it is loaded: to open the token again it is only started again.
pub(crate) fn open(
    request: Open,
    pins: &PinGuard,
    library: &mut Option<Library>,
) -> Result<Opened<Pkcs11Key>, TokenError> {
    let Open::Pkcs11(request) = request else {
        return Err(TokenError::Unusable("not a PKCS#11 token".to_owned()));
    };
    let module = start(&request.module, library)?;
    let token = slot::find(&module, &request.token.token)?;
    let session = module
        .open_session(token.slot)
        .map_err(|failure| failure.while_doing(format_args!("cannot open a session on {token}")))?;
    let login = log_in(&session, &token, request.pin.as_ref(), pins)?;
    let context_login = login.context.map(Arc::new);

    let found: Vec<_> = request
        .keys
        .iter()
        .map(|key| find_key(&module, &session, &token, key, context_login.as_ref()))
        .collect();

    let mut warnings: Vec<String> = login.warning.into_iter().collect();
    let (sessions, shortage) = open_sessions(&module, token.slot, session, request.sessions);
    warnings.extend(shortage);
    let workers = sessions
        .into_iter()
        .map(|session| worker(&found, session))
        .collect();
    let reports = found
        .into_iter()
        .map(|key| report(key, &warnings))
        .collect();
    Ok(Opened { reports, workers })
}

/// A module between `C_Initialize` and `C_Finalize`; loads it where `library` is none yet.
pub(crate) fn start(path: &Path, library: &mut Option<Library>) -> Result<Arc<Module>, TokenError> {
    let loaded = match library {
        Some(library) => *library,
        None => *library.insert(load(path)?),
    };
    let store = Store::in_process();
    let _lock = store.as_ref().map(Store::lock); // the module reads all tokens now
    // Whatever the code: no key and no PIN has had a part in it, and a daemon that the module needs may
    // come up later.
    loaded.initialize().map(Arc::new).map_err(|failure| {
        let module = path.display();
        let mut text = format!("PKCS#11 module {module} does not start: {failure}");
        if softhsm::is_module(path)
            && let Some(obstacle) = softhsm::obstacle(env::var_os(softhsm::VARIABLE).as_deref())
        {
            text += &format!(": {obstacle}");
        }
        TokenError::Gone(text)
    })
}

fn load(path: &Path) -> Result<Library, TokenError> {
    let module = path.display();
    // A bare name, as our default is, is searched by the dynamic linker.
    let bare = path.file_name() == Some(path.as_os_str());
    if !bare && !path.is_absolute() {
        return Err(TokenError::Unusable(format!(
            "PKCS#11 module {module}: write its absolute path"
        )));
    }
    if !bare && let Err(error) = path.metadata() {
        return Err(TokenError::Unusable(format!(
            "PKCS#11 module {module} cannot be read: {error}; {}, or correct the module's name \
             (--module, module-path in the key's URI, or pkcs11-module)",
            remedy(path)
        )));
    }
    Library::load(path).map_err(|error| {
        TokenError::Unusable(format!(
            "{module} cannot be loaded as a PKCS#11 module: {error}; {}, or correct the module's name \
             (--module, module-path in the key's URI, or pkcs11-module)",
            remedy(path)
        ))
    })
}

fn remedy(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match PACKAGES.iter().find(|(part, _)| name.contains(part)) {
        Some((_, package)) => format!("on Debian and Ubuntu, `apt install {package}`"),
        None => "install the vendor's package".to_owned(),
    }
}

/// Which Debian package a module is in, by a part of its name.
const PACKAGES: [(&str, &str); 7] = [
    ("softhsm", "softhsm2"),
    ("p11-kit-proxy", "p11-kit-modules"),
    ("opensc", "opensc-pkcs11"),
    ("pkcs11-spy", "opensc-pkcs11"),
    ("ykcs11", "ykcs11"),
    ("tpm2_pkcs11", "libtpm2-pkcs11-1"),
    ("softokn3", "libnss3"),
];

/// A key that was found, before it has a session to sign in.
struct FoundKey {
    handle: u64,
    name: Arc<str>,
    mechanism: Mechanism,
    /// Where each signature needs the PIN.
    context_login: Option<Arc<ContextLogin>>,
    certificate: Option<Vec<u8>>,
    warnings: Vec<String>,
}

fn find_key(
    module: &Module,
    session: &Session,
    token: &Token,
    wanted: &OpenKey,
    context_login: Option<&Arc<ContextLogin>>,
) -> Result<FoundKey, TokenError> {
    let handle = find::private_key(session, &wanted.uri)?;
    let properties = Properties::read(session, handle, &wanted.uri)?;
    let context_login = properties.context_login(&wanted.uri, context_login)?;
    let certificate = wanted
        .certificate
        .as_ref()
        .map(|certificate| certificate::read(session, token, wanted, certificate, &properties))
        .transpose()?;
    Ok(FoundKey {
        handle,
        name: wanted.uri.to_string().into(),
        mechanism: Mechanism::choose(properties.key_type, |mechanism| {
            module.signs_with(token.slot, mechanism)
        }),
        context_login,
        certificate,
        warnings: properties.warnings,
    })
}

/// `wanted` sessions, of which one is open already; fewer, with a warning, where the token has no more.
fn open_sessions(
    module: &Arc<Module>,
    slot: CK_SLOT_ID,
    first: Session,
    wanted: usize,
) -> (Vec<Session>, Option<String>) {
    let mut sessions = vec![first];
    while sessions.len() < wanted {
        match module.open_session(slot) {
            Ok(session) => sessions.push(session),
            Err(failure) => {
                let count = sessions.len();
                let shortage = format!(
                    "{count} of {wanted} sessions could be opened ({failure}): signing goes on \
                     with {count}; set sessions = {count}, or end other programs that use the token"
                );
                return (sessions, Some(shortage));
            }
        }
    }
    (sessions, None)
}

fn worker(found: &[Result<FoundKey, TokenError>], session: Session) -> Vec<Option<Pkcs11Key>> {
    let session = Arc::new(session);
    let mut context_logins = found.iter().flatten().map(|found| &found.context_login);
    let any = context_logins.find_map(Option::as_ref);
    let key = |found: &FoundKey| Pkcs11Key {
        session: Arc::clone(&session),
        handle: found.handle,
        name: Arc::clone(&found.name),
        mechanism: found.mechanism,
        context_login: found.context_login.clone(),
        others_login: any.filter(|_| found.context_login.is_none()).cloned(),
    };
    found
        .iter()
        .map(|found| found.as_ref().ok().map(key))
        .collect()
}

fn report(found: Result<FoundKey, TokenError>, warnings: &[String]) -> KeyReport {
    let mut key = found?;
    key.warnings.extend_from_slice(warnings);
    Ok(OpenedKey {
        certificate: key.certificate,
        warnings: key.warnings,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(path: &str) -> String {
        match load(Path::new(path)) {
            Err(TokenError::Unusable(text)) => text,
            Err(error) => panic!("{error:?}"),
            Ok(_) => panic!("{path} was loaded"),
        }
    }

    #[test]
    fn what_is_no_module_is_named_with_a_remedy() {
        let text = refusal("/nowhere/libsofthsm2.so");
        assert!(text.contains("/nowhere/libsofthsm2.so"), "{text}");
        assert!(text.contains("apt install softhsm2"), "{text}");
        // Debian 12 has no package for a YubiHSM.
        for module in ["libcs_pkcs11_R3.so", "pkcs11/yubihsm_pkcs11.so"] {
            let text = refusal(&format!("/nowhere/{module}"));
            assert!(text.contains("install the vendor's package"), "{text}");
        }
        let text = refusal("lib/libsofthsm2.so");
        assert!(text.contains("absolute path"), "{text}");
        let text = refusal("libopensc-is-not-here.so");
        assert!(text.contains("apt install opensc-pkcs11"), "{text}");
        // Neither a library, nor a library that has to do with PKCS#11.
        let text = refusal("/etc/passwd");
        assert!(
            text.contains("cannot be loaded as a PKCS#11 module"),
            "{text}"
        );
        let libc = std::fs::read_to_string("/proc/self/maps").unwrap();
        let libc = libc.lines().find(|line| line.ends_with("libc.so.6"));
        let libc = libc.unwrap().split_whitespace().last().unwrap();
        let text = refusal(libc);
        assert!(text.contains("C_GetFunctionList"), "{text}");
    }
}
