//! From the agent's `Open` to keys that can sign.

use std::sync::Arc;

use cryptoki_sys::CK_SLOT_ID;
use token::TokenError;
use token::host::{Opened, PinGuard};
use token::link::{FoundCertificate, KeyReport, Open, OpenKey, OpenedKey};

use crate::issuers::Issuers;
use crate::key::{Mechanism, Pkcs11Key};
use crate::login::{ContextLogin, log_in};
use crate::module::start;
use crate::properties::Properties;
use crate::raw::{Library, Module, Session};
use crate::slot::Token;
use crate::{certificate, key_choice, slot};

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
    let module = start(&request.token.module, library)?;
    let token = slot::find(&module, &request.token.token)?;
    let session = module
        .open_session(token.slot)
        .map_err(|failure| failure.while_doing(format_args!("cannot open a session on {token}")))?;
    let login = log_in(&session, &token, request.token.pin.as_ref(), pins)?;
    let context_login = login.context.map(Arc::new);

    let issuers = Issuers::on(&session);
    let found: Vec<_> = request
        .keys
        .iter()
        .map(|key| find_key(&module, &issuers, &token, key, context_login.as_ref()))
        .collect();

    let mut warnings: Vec<String> = login.warning.into_iter().collect();
    let (sessions, shortage) = open_sessions(&module, token.slot, session, request.token.sessions);
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

/// A key that was found, before it has a session to sign in.
struct FoundKey {
    handle: u64,
    name: Arc<str>,
    mechanism: Mechanism,
    /// Where each signature needs the PIN.
    context_login: Option<Arc<ContextLogin>>,
    certificate: Option<FoundCertificate>,
    warnings: Vec<String>,
}

fn find_key(
    module: &Module,
    issuers: &Issuers,
    token: &Token,
    wanted: &OpenKey,
    context_login: Option<&Arc<ContextLogin>>,
) -> Result<FoundKey, TokenError> {
    let session = issuers.session();
    let handle = key_choice::private_key(session, wanted)?;
    let properties = Properties::read(session, handle, &wanted.uri)?;
    let context_login = properties.context_login(&wanted.uri, context_login)?;
    let certificate = wanted
        .certificate
        .as_ref()
        .map(|certificate| certificate::read(issuers, token, wanted, certificate, &properties))
        .transpose()?;
    Ok(FoundKey {
        handle,
        name: wanted.uri.to_string().into(),
        mechanism: Mechanism::choose(&properties, &wanted.uri, |mechanism| {
            module.signs_with(token.slot, mechanism)
        })?,
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
        algorithm: key.mechanism.algorithm(),
        certificate: key.certificate,
        warnings: key.warnings,
        logs_in: key.context_login.is_some(),
    })
}
