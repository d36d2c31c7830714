//! What tokens there are, and what is on them.

use std::path::Path;
use std::sync::Arc;

use cryptoki_sys::*;
use token::operator::pkcs11::TokenReport;
use token::{ObjectMatch, PinSource, Pkcs11Uri, TokenError, TokenMatch};

use super::place::{Places, open_session};
use super::report;
use crate::error::Failure;
use crate::find;
use crate::raw::Session;
use crate::slot::{self, Token};

/// How many objects of each kind are told of one token: as many as an operator reads, and few enough for one
/// answer with all their certificates.
const LIST_LIMIT: usize = 250;

/// Every token that matches.
pub(super) fn tokens(
    places: &mut Places,
    path: &Path,
    wanted: &Pkcs11Uri,
    pin: Option<&PinSource>,
) -> Result<Vec<TokenReport>, TokenError> {
    let module = places.started(path)?;
    let all = slot::all(&module)?;
    let matching: Vec<&Token> = all
        .tokens
        .iter()
        .filter(|token| token.matches(&wanted.token))
        .collect();
    if matching.is_empty() {
        all.find(&wanted.token)?; // says what there is
    }
    let usable = matching
        .iter()
        .filter(|token| token.is_initialized())
        .count();
    let mut reports = Vec::new();
    for token in matching {
        let (session, logged_in) = if !token.is_initialized() {
            (None, false)
        } else if places.has_tried(path, token) || (usable == 1 && pin.is_some()) {
            let place = places.enter(path, token, &all, pin)?;
            (Some(place.session), true)
        } else {
            let session = open_session(&module, token)?;
            (
                Some(Arc::new(session)),
                token.flags & CKF_LOGIN_REQUIRED == 0,
            )
        };
        let name = token.shortest(&all.tokens);
        let mut report = of_token(token, &name, logged_in);
        if usable > 1 && pin.is_some() && !logged_in {
            report.warnings.push(
                "not logged in: a PIN is tried only where one token alone is meant, so name it"
                    .to_owned(),
            );
        }
        if let Some(session) = session {
            add_objects(&mut report, &session, &name).map_err(|failure| {
                failure.while_doing(format_args!("cannot list what is on {token}"))
            })?;
        }
        reports.push(report);
    }
    Ok(reports)
}

fn of_token(token: &Token, name: &TokenMatch, logged_in: bool) -> TokenReport {
    let has = |flag| token.flags & flag != 0;
    let flags = FLAGS.iter().filter(|(flag, _)| has(*flag));
    let warnings = WARNINGS.iter().filter(|(flag, is_set, _)| {
        has(*flag) == *is_set && (token.is_initialized() || *flag == CKF_TOKEN_INITIALIZED)
    });
    TokenReport {
        uri: Pkcs11Uri {
            token: name.clone(),
            ..Pkcs11Uri::default()
        },
        slot: token.slot,
        model: token.model(),
        flags: flags.map(|(_, name)| (*name).to_owned()).collect(),
        logged_in,
        keys: Vec::new(),
        certificates: Vec::new(),
        warnings: warnings.map(|(.., text)| (*text).to_owned()).collect(),
    }
}

macro_rules! flags {
    ($($name:ident)*) => { &[$(($name, stringify!($name))),*] };
}

const FLAGS: &[(CK_FLAGS, &str)] = flags! {
    CKF_TOKEN_INITIALIZED CKF_LOGIN_REQUIRED CKF_USER_PIN_INITIALIZED CKF_WRITE_PROTECTED
    CKF_PROTECTED_AUTHENTICATION_PATH CKF_USER_PIN_COUNT_LOW CKF_USER_PIN_FINAL_TRY CKF_USER_PIN_LOCKED
    CKF_USER_PIN_TO_BE_CHANGED CKF_ERROR_STATE
};

/// What to say where a flag is set, or is not.
const WARNINGS: &[(CK_FLAGS, bool, &str)] = &[
    (
        CKF_TOKEN_INITIALIZED,
        false,
        "not initialised, so that it can have no keys: initialise it with the vendor's tool, or with \
         pkcs11-tool --init-token --slot SLOT --label LABEL, then pkcs11-tool --init-pin",
    ),
    (
        CKF_USER_PIN_LOCKED,
        true,
        "its user PIN is locked: have the security officer unlock it",
    ),
    (
        CKF_USER_PIN_FINAL_TRY,
        true,
        "one more wrong PIN locks it, and so it is not tried here: log in once by hand with the right one \
         (pkcs11-tool --login --list-objects)",
    ),
    (
        CKF_USER_PIN_COUNT_LOW,
        true,
        "somebody gave it a wrong PIN: look for a program with an old PIN before it locks the token",
    ),
    (
        CKF_ERROR_STATE,
        true,
        "it failed its self-test and does nothing (CKF_ERROR_STATE): ask its vendor",
    ),
];

fn add_objects(
    report: &mut TokenReport,
    session: &Session,
    name: &TokenMatch,
) -> Result<(), Failure> {
    let mut objects = |class, what: &str| {
        let any = ObjectMatch::default();
        let mut found = find::objects_up_to(LIST_LIMIT + 1, session, class, &any)?;
        if found.len() > LIST_LIMIT {
            found.truncate(LIST_LIMIT);
            report.warnings.push(format!(
                "there are more than {LIST_LIMIT} {what}: these are not all of them"
            ));
        }
        Ok(found)
    };
    let private = objects(CKO_PRIVATE_KEY, "private keys")?;
    let public = objects(CKO_PUBLIC_KEY, "public keys")?;
    let certificates = objects(CKO_CERTIFICATE, "certificates")?;
    for key in &private {
        report.keys.push(report::private_key(session, name, *key)?);
    }
    for key in &public {
        if !shows(session, *key)? {
            report
                .keys
                .push(report::public_key_alone(session, name, *key)?);
        }
    }
    for certificate in certificates {
        report
            .certificates
            .push(report::certificate(session, name, certificate)?);
    }
    Ok(())
}

/// Whether the private key of this public key shows: the one with its id, or with its label if it has none.
fn shows(session: &Session, public: CK_OBJECT_HANDLE) -> Result<bool, Failure> {
    let own = find::name(session, public)?;
    let label = if own.id.is_some() { None } else { own.label };
    let private = ObjectMatch { label, ..own };
    Ok(!find::objects(session, CKO_PRIVATE_KEY, &private)?.is_empty())
}
