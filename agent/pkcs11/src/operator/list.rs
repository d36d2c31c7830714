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
use crate::slot::{Slots, Token};

/// How many objects of each kind are told of one token: as many as an operator reads, and few enough for one
/// answer with all their certificates.
const LIST_LIMIT: usize = 250;

/// Every token that matches, with the objects on it that do, and every slot that cannot be read where all are asked for.
pub(super) fn tokens(
    places: &mut Places,
    path: &Path,
    wanted: &Pkcs11Uri,
    pin: Option<&PinSource>,
) -> Result<Vec<TokenReport>, TokenError> {
    let all = places.slots(path, &wanted.token)?;
    let matching: Vec<&Token> = all
        .tokens
        .iter()
        .filter(|token| token.matches(&wanted.token))
        .collect();
    let mut reports = Vec::new();
    if wanted.token == TokenMatch::default() {
        reports.extend(all.unreadable.iter().map(unreadable));
    }
    if matching.is_empty() && reports.is_empty() {
        all.find(&wanted.token)?; // says what there is
    }
    let ready = matching.iter().filter(|token| token.is_initialized());
    let several = ready.count() > 1;
    for token in matching {
        reports.push(match several {
            false => of_token(places, path, token, &all, &wanted.object, pin)?,
            true => of_one_of_several(places, path, token, &all, &wanted.object, pin),
        });
    }
    Ok(reports)
}

fn unreadable((slot, failure): &(CK_SLOT_ID, Failure)) -> TokenReport {
    let name = TokenMatch {
        slot_id: Some(*slot),
        ..TokenMatch::default()
    };
    let warning = format!("cannot be read: {failure}");
    TokenReport {
        uri: named(&name),
        slot: *slot,
        model: String::new(),
        flags: Vec::new(),
        logged_in: false,
        keys: Vec::new(),
        certificates: Vec::new(),
        warnings: vec![warning],
    }
}

/// No PIN is tried, since it may be another token's; and what is wrong with one is no reason to be silent about
/// the others.
fn of_one_of_several(
    places: &mut Places,
    path: &Path,
    token: &Token,
    all: &Slots,
    wanted: &ObjectMatch,
    pin: Option<&PinSource>,
) -> TokenReport {
    let mut report = of_token(places, path, token, all, wanted, None).unwrap_or_else(|error| {
        let mut report = without_objects(token, all);
        report.warnings.push(error.to_string());
        report
    });
    if pin.is_some() && token.is_initialized() && !report.logged_in {
        report.warnings.push(
            "not logged in: a PIN is tried only where one token alone is meant, so name it"
                .to_owned(),
        );
    }
    report
}

fn of_token(
    places: &mut Places,
    path: &Path,
    token: &Token,
    all: &Slots,
    wanted: &ObjectMatch,
    pin: Option<&PinSource>,
) -> Result<TokenReport, TokenError> {
    let mut report = without_objects(token, all);
    if !token.is_initialized() {
        return Ok(report);
    }
    let session = if pin.is_some() || places.has_tried(path, token) {
        report.logged_in = true;
        places.enter(path, token, all, pin)?.session
    } else {
        Arc::new(open_session(&places.started(path)?, token)?)
    };
    add_objects(&mut report, &session, &token.shortest(&all.tokens), wanted)
        .map_err(|failure| failure.while_doing(format_args!("cannot list what is on {token}")))?;
    Ok(report)
}

fn without_objects(token: &Token, all: &Slots) -> TokenReport {
    let has = |flag| token.flags & flag != 0;
    let flags = FLAGS.iter().filter(|(flag, _)| has(*flag));
    let warnings = WARNINGS.iter().filter(|(flag, is_set, _)| {
        has(*flag) == *is_set && (token.is_initialized() || *flag == CKF_TOKEN_INITIALIZED)
    });
    TokenReport {
        uri: named(&token.shortest(&all.tokens)),
        slot: token.slot,
        model: token.model(),
        flags: flags.map(|(_, name)| (*name).to_owned()).collect(),
        logged_in: !has(CKF_LOGIN_REQUIRED) && token.is_initialized(),
        keys: Vec::new(),
        certificates: Vec::new(),
        warnings: warnings.map(|(.., text)| (*text).to_owned()).collect(),
    }
}

fn named(token: &TokenMatch) -> Pkcs11Uri {
    Pkcs11Uri {
        token: token.clone(),
        ..Pkcs11Uri::default()
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
    wanted: &ObjectMatch,
) -> Result<(), Failure> {
    let private = objects(report, session, CKO_PRIVATE_KEY, wanted)?;
    let public = objects(report, session, CKO_PUBLIC_KEY, wanted)?;
    // Wherever p11-kit is, one of its tokens has the system's CA certificates: a hundred and more.
    let has_cas_alone = private.is_empty()
        && public.is_empty()
        && report
            .flags
            .iter()
            .any(|flag| flag == "CKF_WRITE_PROTECTED");
    let certificates = match has_cas_alone && *wanted == ObjectMatch::default() {
        true => Vec::new(),
        false => objects(report, session, CKO_CERTIFICATE, wanted)?,
    };
    for key in &private {
        report.keys.push(report::private_key(session, name, *key)?);
    }
    let names = private.iter().map(|key| find::name(session, *key));
    let names: Vec<ObjectMatch> = names.collect::<Result<_, _>>()?;
    for key in &public {
        let own = find::name(session, *key)?;
        if !names.iter().any(|private| belongs(&own, private)) {
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

/// All matching objects of a class that are told of; with a warning where that is not all of them.
fn objects(
    report: &mut TokenReport,
    session: &Session,
    class: CK_OBJECT_CLASS,
    wanted: &ObjectMatch,
) -> Result<Vec<CK_OBJECT_HANDLE>, Failure> {
    let (name, what) = match class {
        CKO_PRIVATE_KEY => ("private", "private keys"),
        CKO_PUBLIC_KEY => ("public", "public keys"),
        _ => ("cert", "certificates"),
    };
    if wanted.class.as_ref().is_some_and(|class| class != name) {
        return Ok(Vec::new());
    }
    let mut found = find::objects_up_to(LIST_LIMIT + 1, session, class, wanted)?;
    if found.len() > LIST_LIMIT {
        found.truncate(LIST_LIMIT);
        report.warnings.push(format!(
            "there are more than {LIST_LIMIT} {what}: these are not all of them"
        ));
    }
    Ok(found)
}

/// Whether a public key is that of a private one: by its id, or by its label if it has none.
fn belongs(public: &ObjectMatch, private: &ObjectMatch) -> bool {
    match &public.id {
        Some(_) => public.id == private.id,
        None => public.label == private.label,
    }
}
